"""The stream of events: its order, its bounds, and that nothing piles up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Message

from tests.unit.observer.scenes import facts
from wssup.observer.events import MOST, Stream
from wssup.observer.state import RECENT, State
from wssup.scoreboard import Scoreboard

PATIENCE = 20.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """What an observer knows that was told facts and three events."""
    board = Scoreboard.create(f"unit.{secrets.token_hex(6)}", tmp_path, 4, 2)
    board.unlink()
    made = State(board)
    made.facts = facts()
    for number in (1, 2, 3):
        happen(made, number)
    yield made
    board.close()


def happen(state: State, number: int) -> None:
    """Something happens."""
    state.events.append({"seq": number, "event": f"e{number}"})
    state.changed()


class Listener:
    """A client of the stream, in this process: takes what is sent when it is told to."""

    def __init__(self, stream: Stream, query: str = "", last: str = "") -> None:
        headers = [(b"last-event-id", last.encode())] if last else []
        self.scope = {
            "type": "http",
            "method": "GET",
            "query_string": query.encode(),
            "headers": headers,
        }
        self.taken = asyncio.Queue[Message]()
        self.gone = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.response = stream.answer(Request(self.scope))
        self.task = asyncio.create_task(self.response(self.scope, self._receive, self._send))

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.open.wait()
        await self.taken.put(message)

    async def next(self) -> list[tuple[str, Any]]:
        """The events of the next piece of the body."""
        found: list[tuple[str, Any]] = []
        while not found:
            message = await self.taken.get()
            if message["type"] == "http.response.start":
                continue
            for block in message.get("body", b"").decode().split("\n\n"):
                lines = dict(line.partition(": ")[::2] for line in block.splitlines())
                if "data" in lines:
                    found.append((lines["event"], msgspec.json.decode(lines["data"])))
        return found

    async def names(self) -> list[str]:
        """The same, by name; a state is called so."""
        return [data.get("event", kind) for kind, data in await self.next()]

    async def leave(self) -> None:
        """Close the connection."""
        self.gone.set()
        await self.task


def run(scene: Any, *args: Any) -> None:
    """Run a scene, but not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scene(*args)

    asyncio.run(bounded())


def test_first_what_was_then_what_is(state: State) -> None:
    """A listener gets the recent events, then the state; each event after that as it happens; who
    comes back gets what came after the last it has, and all of them if that was another master's.
    """

    async def scene() -> None:
        stream = Stream(state)
        listener = Listener(stream)
        assert await listener.names() == ["e1", "e2", "e3", "state"]
        happen(state, 4)
        assert await listener.names() == ["e4"]
        for query, last, expected in (
            ("", "3", ["e4", "state"]),
            ("", "4", ["state"]),
            ("", "4711", ["e1", "e2", "e3", "e4", "state"]),
            ("", "nonsense", ["e1", "e2", "e3", "e4", "state"]),
            ("past=1", "", ["e4", "state"]),
            ("past=0", "", ["state"]),
            ("past=2&state=no", "", ["e3", "e4"]),
        ):
            other = Listener(stream, query, last)
            assert await other.names() == expected, (query, last)
            await other.leave()
        await listener.leave()
        assert stream.listeners == 0

    run(scene)


def test_nothing_is_between_the_past_and_the_present(state: State) -> None:
    """An event that happens between the request and its first byte comes once."""

    async def scene() -> None:
        listener = Listener(Stream(state))
        happen(state, 4)
        seen = await listener.names()
        while "e4" not in seen:
            seen += await listener.names()
        assert seen.count("e4") == 1
        assert [name for name in seen if name != "state"] == ["e1", "e2", "e3", "e4"]
        await listener.leave()

    run(scene)


def test_a_slow_one_gets_the_newest(state: State) -> None:
    """For a listener that takes nothing, nothing is queued: when it reads again it gets the events
    that are still kept, once each, and one state.
    """

    async def scene() -> None:
        listener = Listener(Stream(state))
        await listener.names()
        listener.open.clear()
        for number in range(4, 5000):
            happen(state, number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(1.2)
        assert listener.taken.qsize() == 0
        listener.open.set()
        seen: list[str] = []
        while "e4999" not in seen:
            seen += await listener.names()
        events = [name for name in seen if name != "state"]
        assert len(set(events)) == len(events) <= 2 * RECENT
        assert seen.count("state") <= 2
        await listener.leave()

    run(scene)


def test_how_many_may_listen(state: State) -> None:
    """One too many is told 503; a place is free again when somebody leaves; all share one encoding
    of the state; at the observer's end all streams end.
    """

    async def scene() -> None:
        made = 0

        def beat() -> bytes:
            nonlocal made
            made += 1
            return b'{"made": %d}' % made

        state.beat = beat  # type: ignore[method-assign]
        stream = Stream(state)
        listeners = [Listener(stream) for _ in range(MOST)]
        for listener in listeners:
            await listener.names()
        assert made == 1
        assert Listener(stream).response.status_code == 503
        await listeners.pop().leave()
        listeners.append(Listener(stream))
        assert listeners[-1].response.status_code == 200
        await listeners[-1].names()
        state.ending = True
        state.changed()
        for listener in listeners:
            await listener.task
        assert stream.listeners == 0

    run(scene)
