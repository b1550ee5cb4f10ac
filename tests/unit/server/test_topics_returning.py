"""Clients that come back with positions that are further than the worker, or that a server is asked
for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketConnection

from tests.harness.moving import STYLE_NAMES, STYLES, begin_alone
from tests.harness.served import Served, served
from tests.harness.waiting import until
from tests.unit.server.peer import OFF, Peer
from tests.unit.server.test_topics import Commands, ask
from wssup.config.topics import Topics
from wssup.server.connection import Connection
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer
from wssup.server.topics.hub import Hub
from wssup.topics import position
from wssup.topics.message import Message
from wssup.topics.packets import Entry
from wssup.topics.retained import WALL

#: The instance of the tests' hub, another worker of it, and that of another instance.
NODE = "00000000"
MATE = f"{NODE}.7"
OTHER = "deadbeef.1"
#: Where the answers of a server that is asked for what was missed go.
Told = Callable[[list[Entry], bool], None]


def message(sequence: int, topic: str = "t") -> Message:
    """One of the other worker."""
    at = time.monotonic()
    return Message(topic, True, b"%d" % sequence, 7, sequence, MATE, sequence, at)


def comes(hub: Hub, *messages: Message) -> None:
    """They have come from the other worker."""
    for each in messages:
        hub._history.add(each)
        hub._deliver(each)


def since(**marks: int) -> str:
    """A position, of the other worker and of another instance."""
    return position.encode({{"mate": MATE, "other": OTHER}[name]: n for name, n in marks.items()})


@asynccontextmanager
async def asking(
    tmp_path: Path, application: Commands
) -> AsyncIterator[tuple[Served, list[Told], WebSocketConnection]]:
    """A server that asks another one what somebody has missed, and its client."""
    topics = Topics(bus="redis://127.0.0.1:1", bus_history=True, history=100)
    answers: list[Told] = []
    async with served(tmp_path, application, topics=topics) as server:

        def recover(_topic: str, _marks: object, _limit: int, told: Told) -> None:
            answers.append(told)

        server.engine.topics.bus.recover = recover  # type: ignore[method-assign,assignment]
        yield server, answers, await server.connect()


async def heard(ws: WebSocketConnection) -> list[str]:
    """What a client has been sent until it is answered."""
    await ws.send_message('["topics"]')
    found: list[str] = []
    while not (text := str(await ws.get_message())).startswith('{"topics"'):
        found.append(text)
    return found


@pytest.mark.parametrize("how", ["closed", "unsubscribed", "subscribed again"])
async def test_who_goes_while_a_server_is_asked(tmp_path: Path, how: str) -> None:
    """Whoever waits until it is known what a subscriber has missed waits no longer when that is no
    subscriber any more; the answer that comes then is nobody's.
    """
    settled: list[bool] = []

    class App(Commands):
        async def on_receive(self, ws: Connection, data: str | bytes) -> None:  # type: ignore[override]
            if data == "wait":
                settled.append(await ws.subscribe("t", since=since(mate=3)).settled())
            else:
                super().on_receive(ws, data)

    async with asking(tmp_path, App()) as (server, answers, ws):
        await ws.send_message("wait")
        with trio.fail_after(10):
            await until(lambda: answers)
            hub = server.engine.topics
            (connection,) = hub._topics["t"].waiting or {}
            if how == "closed":
                await ws.aclose()
            elif how == "unsubscribed":
                assert hub.unsubscribe(connection, "t")
            else:
                hub.subscribe(connection, "t", since=None, positions=False, member=None)
            await until(lambda: settled)
        answers[0]([], True)
        assert settled == [False]
        if how != "closed":
            await ws.aclose()
        counts = await server.until(lambda c: c.closed == 1)
        assert counts.topics.not_recovered == 1


async def test_a_server_that_knows_more_than_the_worker(tmp_path: Path) -> None:
    """What a server has told comes once, also what comes to the worker only then, and the position
    is behind it.
    """
    async with asking(tmp_path, Commands()) as (server, answers, ws):
        hub = server.engine.topics
        options = {"since": since(mate=3)}
        assert (await ask(ws, "subscribe", "t", options))[2] is None
        (recovery,) = (hub._topics["t"].waiting or {}).values()
        found = [Entry("t", True, b"%d" % n, MATE, n, time.time(), 7, n) for n in (4, 5, 6)]
        comes(hub, message(4))
        answers[0](found, True)
        assert recovery.answer.recovered
        assert position.decode(recovery.answer.position)[MATE] == 6
        comes(hub, message(5), message(6), message(7))
        assert await heard(ws) == ["4", "5", "6", "7"]
        await ws.aclose()


async def test_positions_have_the_time_of_day(tmp_path: Path) -> None:
    """Where a server keeps the history a position says when it was made: of publishers that it does
    not name any more the server knows then what was seen.
    """
    async with asking(tmp_path, Commands()) as (server, answers, ws):
        hub = server.engine.topics
        await ask(ws, "subscribe", "t", {"since": since(other=9), "positions": True})
        found = [Entry("t", True, b"%d" % n, OTHER, n, time.time(), 7, n) for n in (10, 11, 12)]
        answers[0](found, True)
        before = time.time()
        hub.beat(time.monotonic() + 30)
        comes(hub, message(1))
        said = [position.decode(json.loads(text)["position"]) for text in await heard(ws)]
        assert [marks.get(OTHER) for marks in said] == [10, 11, 12, None]
        assert before - 1 <= said[-1][WALL] / 1000 <= time.time() + 31
        await ws.aclose()
    async with served(tmp_path / "embedded", Commands(), topics=Topics(history=9)) as server:
        assert WALL not in position.decode(server.engine.topics.token("t"))


def ahead(hub: Hub) -> list[dict[str, int]]:
    """What is kept of those that are further than the worker."""
    topic = hub._topics.get("t")
    return list((topic.ahead or {}).values()) if topic is not None else []


async def subscribed(server: Served, token: str) -> WebSocketConnection:
    ws = await server.connect()
    await ask(ws, "subscribe", "t", {"since": token})
    return ws


async def test_positions_of_who_publishes_no_more(tmp_path: Path) -> None:
    """What a position says of another instance, which nothing comes from, is not kept; what it says
    of a worker is, until that has published it, or would have long ago.
    """
    async with served(tmp_path, Commands(), topics=Topics(history=100)) as server:
        hub = server.engine.topics
        ws = await subscribed(server, since(mate=5, other=9))
        assert ahead(hub) == [{MATE: 5}]
        comes(hub, message(5), message(6))
        assert await heard(ws) == ["6"]
        hub.beat(time.monotonic())
        assert ahead(hub) == []
        again = await subscribed(server, since(mate=500))
        hub.beat(time.monotonic() + 10)
        assert ahead(hub) == [{MATE: 500}]
        hub.beat(time.monotonic() + 30)
        assert ahead(hub) == []
        for each in (ws, again):
            await each.aclose()


@pytest.mark.parametrize("bus", ["embedded", "redis://127.0.0.1:1"])
async def test_positions_that_are_made_up(tmp_path: Path, bus: str) -> None:
    """Of a token that is full of publishers that there never were little is kept, and not for long,
    with a history and without one.
    """
    token = position.encode({f"deadbeef.{n}": 1 for n in range(500)})
    for history in (0, 100):
        topics = Topics(bus=bus, history=history)
        async with served(tmp_path / str(history), Commands(), topics=topics) as server:
            ws = await subscribed(server, token)
            hub = server.engine.topics
            assert sum(map(len, ahead(hub))) == (0 if bus == "embedded" else 150)
            hub.beat(time.monotonic() + 30)
            assert ahead(hub) == []
            await ws.aclose()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("bus", ["embedded", "redis://127.0.0.1:1"])
async def test_a_subscription_with_a_position_after_a_move(
    tmp_path: Path,
    bus: str,
    again: bool,  # noqa: FBT001 - a case
) -> None:
    """A connection that came from a worker which was further than this one, and says here since
    when it wants a topic, gets what that worker had and this one gets only now; also if it moves
    again before that comes.
    """
    application = Commands()
    async with served(tmp_path, application, topics=Topics(bus=bus, history=100)) as server:
        hub = server.engine.topics
        hub.bus.may_carry = lambda _: False  # type: ignore[method-assign]
        ws = await server.connect()
        await ask(ws, "subscribe", "old")
        (connection,) = application.connections
        comes(hub, *(message(n, "new") for n in range(81, 91)))
        hub._floors.raised(connection, {7: 100}, time.monotonic())
        options = {"since": since(mate=80)}
        assert (await ask(ws, "subscribe", "new", options))[3] == 10
        if again:
            joined, there, _ = hub.suspend(connection)
            hub.resume(connection, joined, there, {})
        comes(hub, message(95, "old"), message(96, "new"), message(101, "old"))
        assert await heard(ws) == ["96", "101"]
        await ws.aclose()


async def test_positions_of_who_came_from_a_worker_that_was_further(tmp_path: Path) -> None:
    """They name what is still to come here and will be skipped, also that of a subscription made
    here; and nothing else of that worker, which may never have published in this topic.
    """
    application = Commands()
    async with served(tmp_path, application, topics=Topics(history=100)) as server:
        hub = server.engine.topics
        ws = await server.connect()
        await ask(ws, "subscribe", "old")
        (connection,) = application.connections
        hub._floors.raised(connection, {7: 5}, time.monotonic())
        _, token, *_ = await ask(ws, "subscribe", "new", {"positions": True})
        assert position.decode(token)[MATE] == 5
        hub.bus.seen[7] = 5
        _, token, *_ = await ask(ws, "subscribe", "new", {"positions": True})
        assert MATE not in position.decode(token)
        comes(hub, message(6, "old"))
        hub.publish("new", "x")
        (_, said) = await heard(ws)
        assert MATE not in position.decode(json.loads(said)["position"])
        await ws.aclose()


async def test_a_move_of_who_is_ahead(tmp_path: Path) -> None:
    """A connection that was further than its worker, and moves to one that has more, gets nothing
    again of what it had, and its positions are behind that.
    """
    application = Commands()
    for positions in (False, True):
        async with served(tmp_path, application, topics=Topics(history=100)) as server:
            hub = server.engine.topics
            ws = await server.connect()
            options = {"since": since(mate=5), "positions": positions}
            await ask(ws, "subscribe", "t", options)
            connection = application.connections[-1]
            hub._history.keep()
            hub.hurry(connection)
            joined, there, _ = hub.suspend(connection)
            assert joined[0].ahead == {MATE: 5}
            comes(hub, message(3), message(4))
            hub.resume(connection, joined, there, {})
            comes(hub, message(5), message(6))
            found = await heard(ws)
            if positions:
                said = [json.loads(text) for text in found]
                assert {position.decode(each["position"])[MATE] for each in said} == {6}
                found = [each["data"] for each in said]
            assert found == ["6"]
            await ws.aclose()


async def test_what_a_new_worker_said_elsewhere_first(tmp_path: Path) -> None:
    """A connection has messages of a worker that is not known here yet: when that is, they do not
    come again; of one that never is nothing is kept for ever.
    """
    application = Commands()
    async with served(tmp_path, application) as server:
        hub = server.engine.topics
        ws = await server.connect()
        await ask(ws, "subscribe", "t")
        (connection,) = application.connections
        joined, there, _ = hub.suspend(connection)
        hub.resume(connection, joined, there | {7: 5}, {})
        hub.beat(time.monotonic())
        hub.bus.seen[7] = 0
        comes(hub, message(4), message(5), message(6))
        assert await heard(ws) == ["6"]
        del hub.bus.seen[7]
        hub.beat(time.monotonic() + 30)
        assert hub._floors.numbers
        hub.beat(time.monotonic() + 61)
        assert not hub._floors.numbers
        assert not hub._floors._until
        await ws.aclose()


@pytest.mark.parametrize("make", STYLES[:3], ids=STYLE_NAMES[:3])
async def test_who_is_lost_as_it_is_to_move(tmp_path: Path, make: Callable[[], object]) -> None:
    """A client whose end shows only in what it is still sent before it moves: it is lost, and
    nobody else.
    """
    topics = Topics(bus="redis://127.0.0.1:1", bus_history=True, history=100)
    async with served(tmp_path, make(), topics=topics, heartbeat=OFF) as server:
        hub = server.engine.topics
        hub.bus.recover = lambda *_: None  # type: ignore[method-assign,assignment]
        async with await Peer.open(server) as peer, await Peer.open(server) as other:
            connection = min(server.engine._pump.connections.values(), key=lambda c: c.id)
            hub.subscribe(connection, "t", since=since(mate=3), positions=False, member=None)
            comes(hub, message(4))
            with socket.socket(fileno=os.dup(connection.fd)) as same:
                # All that a client's end comes to, as far as sending goes (send(2), EPIPE).
                same.shutdown(socket.SHUT_WR)
            session, end = begin_alone(server)
            with end:
                await server.until(lambda c: c.closed_by_reason["lost"] == 1)
                await trio.lowlevel.wait_readable(end)
                end.send(pack_answer(Answer(AnswerKind.STOP, 1)))
                await session.handed_over()
            assert await other.ask("still here?") == "1 still here?"
            peer.drop()
