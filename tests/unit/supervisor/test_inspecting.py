"""Questions about single connections, with workers that the test plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.unit.supervisor.puppets import Puppet, Stage, stage
from wssup.errors import CommandError
from wssup.messages import CloseConnections, ConnectionsClosing, Inspect, Inspected
from wssup.questions import ConnectionSeen
from wssup.supervisor import inspecting as module


class Asker:
    """Asks in a task of its own; its result is what the client gets, or an error."""

    def __init__(self, made: Stage, question: Callable[[], Any]) -> None:
        self.done = trio.Event()
        self.result: Any = None
        made.nursery.start_soon(self._run, question)

    async def _run(self, question: Callable[[], Any]) -> None:
        try:
            self.result = await question()
        except CommandError as error:
            self.result = error
        self.done.set()

    async def end(self) -> Any:
        await self.done.wait()
        return self.result


def looking(made: Stage, order: str = "oldest", limit: int = 20, slot: int | None = None) -> Asker:
    return Asker(made, lambda: made.fleet.inspecting.connections(order, limit, slot))


def closing(made: Stage, *ids: int) -> Asker:
    return Asker(made, lambda: made.fleet.inspecting.close(list(ids), 1008, "enough"))


async def asked(made: Stage, puppet: Puppet, kind: type[Any], count: int = 1) -> Any:
    """The last question of a kind, once there are so many."""
    await made.until(lambda: len(puppet.got(kind)) == count)
    return puppet.got(kind)[-1]


def one(number: int, *, age: float = 0.0, idle: float = 0.0, queue: int = 0) -> ConnectionSeen:
    return ConnectionSeen(number, "192.0.2.1:5", "/", "open", age, idle, queue, 0, 0)


async def test_the_answers_are_put_together(tmp_path: Path) -> None:
    """All workers are asked the same; the first in order of all answers come, so many at most, and
    each says whose it is.
    """
    async with stage(tmp_path) as made:
        await made.start(3)
        asker = looking(made, "queue", 3)
        for slot, sizes in enumerate(((5, 1), (9, 4), ())):
            puppet = made.puppet(slot)
            question = await asked(made, puppet, Inspect)
            assert (question.order, question.limit) == ("queue", 3)
            found = [one(10 * slot + size, queue=size) for size in sizes]
            puppet.say(Inspected(question.question, found))
        result = await asker.end()
        assert [(c["id"], c["slot"], c["generation"]) for c in result["connections"]] == [
            (19, 1, 1),
            (5, 0, 1),
            (14, 1, 1),
        ]
        assert (result["order"], result["unanswered"]) == ("queue", [])


@pytest.mark.parametrize("order", ["oldest", "newest", "idle", "queue"])
async def test_orders(tmp_path: Path, order: str) -> None:
    """The order is the one that was asked for."""
    async with stage(tmp_path) as made:
        await made.start(2)
        asker = looking(made, order)
        for slot, (number, age) in enumerate(((1, 5.0), (2, 7.0))):
            question = await asked(made, made.puppet(slot), Inspect)
            seen = one(number, age=age, idle=age, queue=int(age))
            made.puppet(slot).say(Inspected(question.question, [seen]))
        found = [c["id"] for c in (await asker.end())["connections"]]
        assert found == ([1, 2] if order == "newest" else [2, 1])


async def test_who_is_asked(tmp_path: Path) -> None:
    """Of one slot only its workers are asked, also those that drain; one that stalls is not, and
    is named; one that is not ready has no connections.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        made.fleet.scale(3)
        made.worker(0).leaving = True
        made.fleet.stall(made.worker(1), stalled=True)
        asker = looking(made)
        question = await asked(made, made.puppet(0), Inspect)
        made.puppet(0).say(Inspected(question.question, [one(1)]))
        result = await asker.end()
        assert [w["slot"] for w in result["unanswered"]] == [1]
        assert [c["id"] for c in result["connections"]] == [1]
        assert made.puppet(1).got(Inspect) == []
        asker = looking(made, slot=1)
        result = await asker.end()
        assert (result["connections"], len(result["unanswered"])) == ([], 1)
        assert len(made.puppet(0).got(Inspect)) == 1


async def test_who_dies_over_it(tmp_path: Path) -> None:
    """One that dies is not waited for: its connections are gone with it."""
    async with stage(tmp_path) as made:
        await made.start(2)
        asker = looking(made)
        question = await asked(made, made.puppet(0), Inspect)
        made.puppet(0).say(Inspected(question.question, [one(1)]))
        await made.kill(made.worker(1))
        result = await asker.end()
        assert [c["id"] for c in result["connections"]] == [1]
        assert result["unanswered"] == []


async def test_who_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence costs some seconds, and it is named; its answer then is of no consequence, as is
    one to a question that was never asked.
    """
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    async with stage(tmp_path) as made:
        await made.start(1)
        result = await looking(made).end()
        assert [w["slot"] for w in result["unanswered"]] == [0]
        late = made.puppet(0).got(Inspect)[0]
        monkeypatch.setattr(module, "_PATIENCE", 20)
        made.puppet(0).say(Inspected(late.question, [one(1)]))
        made.puppet(0).say(Inspected(999, [one(2)]))
        asker = looking(made)
        question = await asked(made, made.puppet(0), Inspect, 2)
        made.puppet(0).say(Inspected(question.question, [one(3)]))
        assert [c["id"] for c in (await asker.end())["connections"]] == [3]


async def test_one_question_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for their turn, and not for long."""
    monkeypatch.setattr(module, "_TURN", 0.05)
    async with stage(tmp_path) as made:
        await made.start(1)
        first = looking(made)
        question = await asked(made, made.puppet(0), Inspect)
        refused = await looking(made).end()
        assert isinstance(refused, CommandError)
        assert refused.code == "busy"
        assert len(made.puppet(0).got(Inspect)) == 1
        made.puppet(0).say(Inspected(question.question, []))
        assert (await first.end())["connections"] == []
        second = closing(made, 5)
        order = await asked(made, made.puppet(0), CloseConnections)
        made.puppet(0).say(ConnectionsClosing(order.question, [5], []))
        assert [c["id"] for c in (await second.end())["closing"]] == [5]


async def test_closing(tmp_path: Path) -> None:
    """All workers are told all ids; who closes which is put together, and what nobody has is
    missing. One id twice is one.
    """
    async with stage(tmp_path) as made:
        await made.start(2)
        asker = closing(made, 11, 12, 13, 11)
        for slot, found in ((0, [12]), (1, [11])):
            order = await asked(made, made.puppet(slot), CloseConnections)
            assert (order.ids, order.code, order.reason) == ([11, 12, 13], 1008, "enough")
            made.puppet(slot).say(ConnectionsClosing(order.question, found, []))
        result = await asker.end()
        assert {c["id"]: c["slot"] for c in result["closing"]} == {12: 0, 11: 1}
        assert (result["missing"], result["moving"], result["unanswered"]) == ([13], [], [])


async def test_one_that_moves_is_looked_for_again(tmp_path: Path) -> None:
    """One that is between two workers is closed where it arrives."""
    async with stage(tmp_path) as made:
        await made.start(2)
        asker = closing(made, 7)
        for slot, moving in ((0, [7]), (1, [])):
            order = await asked(made, made.puppet(slot), CloseConnections)
            made.puppet(slot).say(ConnectionsClosing(order.question, [], moving))
        for slot, found in ((0, []), (1, [7])):
            order = await asked(made, made.puppet(slot), CloseConnections, 2)
            made.puppet(slot).say(ConnectionsClosing(order.question, found, []))
        result = await asker.end()
        assert [(c["id"], c["slot"]) for c in result["closing"]] == [(7, 1)]
        assert (result["missing"], result["moving"]) == ([], [])


async def test_one_that_moves_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is up it is said that it moves, and was not closed."""
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    monkeypatch.setattr(module, "_AGAIN", 1.0)
    async with stage(tmp_path) as made:
        await made.start(1)
        asker = closing(made, 7, 8)
        order = await asked(made, made.puppet(0), CloseConnections)
        made.puppet(0).say(ConnectionsClosing(order.question, [], [7]))
        result = await asker.end()
        assert (result["closing"], result["moving"], result["missing"]) == ([], [7], [8])


async def test_a_code_that_nobody_may_send(tmp_path: Path) -> None:
    """The worker's refusal is the client's error."""
    async with stage(tmp_path) as made:
        await made.start(1)
        asker = closing(made, 7)
        order = await asked(made, made.puppet(0), CloseConnections)
        made.puppet(0).say(ConnectionsClosing(order.question, [], [], "no such code"))
        refused = await asker.end()
        assert isinstance(refused, CommandError)
        assert (refused.code, refused.message) == ("bad_argument", "no such code")
