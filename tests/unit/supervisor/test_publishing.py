"""Messages that come over the control socket, with workers that the test plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.unit.supervisor.puppets import Puppet, Stage, stage
from wssup.errors import CommandError
from wssup.messages import Peers, Publish, PublishDone
from wssup.supervisor import publishing as module


class Publisher:
    """Publishes in a task of its own; its result is the number of subscribers, or an error."""

    def __init__(self, made: Stage, topic: str = "news", data: bytes = b"hi", **how: Any) -> None:
        self.done = trio.Event()
        self.result: int | CommandError | None = None
        made.nursery.start_soon(self._run, made, topic, data, how)

    async def _run(self, made: Stage, topic: str, data: bytes, how: dict[str, Any]) -> None:
        try:
            self.result = await made.fleet.publishing.publish(topic, data, **{"text": True} | how)
        except CommandError as error:
            self.result = error
        self.done.set()

    async def end(self) -> int | CommandError | None:
        await self.done.wait()
        return self.result


async def asked(made: Stage, puppet: Puppet, count: int = 1) -> list[Publish]:
    """What a worker is to publish, once it is so much."""
    await made.until(lambda: len(puppet.got(Publish)) == count)
    return puppet.got(Publish)


async def test_a_worker_publishes_it(tmp_path: Path) -> None:
    """One worker is told, and its answer is the result; questions are told apart, in any order."""
    async with stage(tmp_path) as made:
        await made.start(2)
        puppet = made.puppet(1)
        one = Publisher(made)
        await asked(made, puppet)
        two = Publisher(made, "x" * 255, bytes(64 * 1024), text=False)
        first, second = await asked(made, puppet, 2)
        assert (first.topic, first.text, first.data) == ("news", True, b"hi")
        assert (second.topic, second.text, second.data) == ("x" * 255, False, bytes(64 * 1024))
        assert first.question != second.question
        assert made.puppet(0).got(Publish) == []
        puppet.say(PublishDone(second.question, 7))
        assert await two.end() == 7
        assert not one.done.is_set()
        puppet.say(PublishDone(first.question, 0))
        assert await one.end() == 0


async def test_who_is_asked(tmp_path: Path) -> None:
    """The newest worker that serves: none that is not ready yet, leaves, stalls or is gone."""
    async with stage(tmp_path) as made:
        made.fleet.scale(2)
        await made.until(lambda: len(made.puppets) == 2)
        refused = await Publisher(made).end()
        assert isinstance(refused, CommandError)
        assert refused.code == "no_worker"
        await made.born(2)
        made.fleet.stall(made.worker(1), stalled=True)
        first = Publisher(made)
        (order,) = await asked(made, made.puppet(0))
        made.puppet(0).say(PublishDone(order.question, 1))
        assert await first.end() == 1
        made.fleet.stall(made.worker(1), stalled=False)
        second = Publisher(made)
        (order,) = await asked(made, made.puppet(1))
        made.puppet(1).say(PublishDone(order.question, 2))
        assert await second.end() == 2
        made.worker(0).leaving = made.worker(1).leaving = True
        refused = await Publisher(made).end()
        assert isinstance(refused, CommandError)
        assert refused.code == "no_worker"


async def test_a_worker_that_dies_over_it(tmp_path: Path) -> None:
    """The end of the worker is told at once, and that nobody knows whether it was published."""
    async with stage(tmp_path) as made:
        await made.start(1)
        publisher = Publisher(made)
        await asked(made, made.puppet(0))
        await made.kill(made.worker(0))
        refused = await publisher.end()
        assert isinstance(refused, CommandError)
        assert refused.code == "no_worker"
        assert "ended" in refused.message
        assert "or not" in refused.remedy


async def test_a_worker_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its silence ends in an error after some seconds; its answer then is of no consequence."""
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    async with stage(tmp_path) as made:
        await made.start(2)
        refused = await Publisher(made).end()
        assert isinstance(refused, CommandError)
        assert "does not answer" in refused.message
        puppet = made.puppet(1)
        puppet.say(PublishDone(puppet.got(Publish)[0].question, 9))
        # An answer to somebody else's question does not count either.
        monkeypatch.setattr(module, "_PATIENCE", 20)
        publisher = Publisher(made)
        orders = await asked(made, puppet, 2)
        made.puppet(0).say(PublishDone(orders[1].question, 8))
        puppet.say(PublishDone(orders[1].question, 5))
        assert await publisher.end() == 5


async def test_what_the_worker_refuses(tmp_path: Path) -> None:
    """The worker's own words reach the client."""
    async with stage(tmp_path) as made:
        await made.start(1)
        publisher = Publisher(made)
        (order,) = await asked(made, made.puppet(0))
        made.puppet(0).say(PublishDone(order.question, 0, "too long for this generation"))
        refused = await publisher.end()
        assert isinstance(refused, CommandError)
        assert (refused.code, refused.message) == ("refused", "too long for this generation")


@pytest.mark.parametrize(
    ("topic", "data", "said"),
    [
        ("", b"", "empty"),
        ("a\nb", b"", "control characters"),
        ("x" * 256, b"", "256 bytes"),
        ("a", bytes(64 * 1024 + 1), "65537 bytes"),
    ],
)
async def test_what_no_worker_is_asked(tmp_path: Path, topic: str, data: bytes, said: str) -> None:
    """A bad name and a message that is too long are refused without asking anybody."""
    async with stage(tmp_path) as made:
        await made.start(1)
        refused = await Publisher(made, topic, data).end()
        assert isinstance(refused, CommandError)
        assert refused.code == "bad_argument"
        assert said in refused.message
        assert made.puppet(0).got(Publish) == []


async def test_workers_join_the_mesh_when_they_are_asked_for(tmp_path: Path) -> None:
    """A worker is told of all others before it says a word, and they of it."""
    async with stage(tmp_path) as made:
        made.fleet.scale(3)
        await made.until(lambda: len(made.puppets) == 3)
        puppets = {made.worker(slot).serial: made.puppet(slot) for slot in range(3)}
        known = {
            serial: [other for message in puppet.got(Peers) for other in message.serials]
            for serial, puppet in puppets.items()
        }
        for serial, others in known.items():
            assert sorted(others) == [other for other in puppets if other != serial]
            assert len(puppets[serial].descriptors) == 2
        assert all(not puppet.got(Peers)[0].more for puppet in puppets.values())


async def test_a_worker_that_is_gone_has_left_the_mesh(tmp_path: Path) -> None:
    """Nobody is linked to a worker that is gone; the one in its place is linked to all others."""
    async with stage(tmp_path, backoff_min=0.01) as made:
        await made.start(2)
        lost, stays = made.worker(0), made.puppet(1)
        await made.kill(lost)
        await made.until(lambda: made.fleet.slots[0].current)
        await made.until(lambda: made.worker(0).serial in made.puppets)
        new = made.puppet(0)
        await made.until(lambda: new.got(Peers))
        assert new.got(Peers) == [Peers([stays.serial])]
        assert stays.got(Peers)[-1] == Peers([new.serial])
