"""What application code may do inside a turn, and to whom: the pump's rules, each with its test."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from tests.harness import raw
from tests.harness.served import Echo, served
from tests.unit.server.peer import (
    OFF,
    Peer,
    bystander,
    close_frame,
    opened,
)
from wssup.server.connection import Connection
from wssup.server.request import Request

# A descriptor's number.


async def test_a_number_is_not_given_out_again_within_a_turn(tmp_path: Path) -> None:
    """What an application ends inside a turn, of which events are still in the turn's list, keeps
    its descriptor until the turn is over: nothing opened meanwhile has its number. A connection
    that gets it afterwards is not touched by what was its former owner's.
    """
    reused = 0
    members: dict[str, Connection] = {}
    numbers: dict[str, int] = {}

    class App:
        def on_connect(self, ws: Connection) -> None:
            members[ws.path] = ws
            numbers[ws.path] = ws.fd

        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            if data == "end":
                other = members["/victim"]
                assert not other.send_nowait("you are gone")
                assert other.closed is not None
                opened_now = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
                assert numbers["/victim"] not in opened_now
                for descriptor in opened_now:
                    os.close(descriptor)
            ws.send_nowait(f"{ws.path} {ws.id} {data!s}")

        def on_disconnect(self, ws: Connection, _code: int) -> None:
            del members[ws.path]

    async with served(tmp_path, App(), heartbeat=OFF) as server:
        async with await Peer.open(server, "/killer") as killer:
            for number in range(30):
                victim = await Peer.open(server, "/victim")
                gone = numbers["/victim"]
                # All three before the pump has a turn: the application's order comes first.
                killer.push(raw.frame(raw.TEXT, b"end"))
                victim.push(raw.frame(raw.TEXT, b"never answered"))
                victim.reset()
                async with await Peer.open(server, f"/next{number}") as heir:
                    assert (await killer.frame())[1].endswith(b"end")
                    reused += numbers[f"/next{number}"] == gone
                    answer = await heir.ask("hello")
                    assert answer == f"/next{number} {members[f'/next{number}'].id} hello"
                await server.until(lambda c: c.active == 1)
        await server.ended(lost=61)
    assert reused, "the numbers were never used again, so this shows nothing"


# Application code that deals with others.


class Hub:
    """Broadcasts to everybody who ever came; ``purge`` also closes those with odd numbers."""

    def __init__(self) -> None:
        self.everybody: list[Connection] = []

    def broadcast(self, text: str) -> None:
        for other in self.everybody:
            other.send_nowait(text)

    def purge(self) -> None:
        self.broadcast("purge")
        for number, other in enumerate(self.everybody):
            if number % 2:
                other.close_nowait(4001, "odd")
        self.broadcast("purged")


class EventHub(Hub):
    def on_connect(self, ws: Connection) -> None:
        self.everybody.append(ws)

    def on_receive(self, _ws: Connection, _data: str | bytes) -> None:
        self.purge()

    def on_disconnect(self, ws: Connection, code: int) -> None:
        self.broadcast(f"gone {self.everybody.index(ws)} {code}")
        # Closing again, and what is closed, does nothing.
        self.everybody[1].close_nowait()
        ws.close_nowait()


class TaskHub(Hub):
    async def __call__(self, request: Request) -> None:
        ws = await request.accept()
        self.everybody.append(ws)
        try:
            async for _ in ws:
                self.purge()
        finally:
            assert ws.closed is not None
            self.broadcast(f"gone {self.everybody.index(ws)} {ws.closed.code}")


@pytest.mark.parametrize("style", ["event", "task"])
@pytest.mark.parametrize("whence", ["hook", "outside"])
async def test_closing_others_during_a_broadcast(tmp_path: Path, style: str, whence: str) -> None:
    """From on_receive, from on_disconnect and from a task of its own, an application may close
    others and send to all, to those that are gone as well: who is closed gets the code, who is not
    gets every message, in order.
    """
    count = 20
    task_hub = TaskHub()
    hub: Hub = EventHub() if style == "event" else task_hub
    # The bound method, as the object itself is no async function.
    async with served(tmp_path, hub if style == "event" else task_hub.__call__) as server:
        async with opened(server, count) as peers:
            await server.until(lambda _: len(hub.everybody) == count)
            peers_of = _by_number(peers, hub)
            if whence == "hook":
                await peers_of[0].say("purge")
            else:
                hub.purge()
            odd = peers_of[1::2]
            for peer in odd:
                assert await peer.frame() == (raw.TEXT, b"purge")
                assert await peer.frame() == (raw.CLOSE, b"\x0f\xa1odd")
                await peer.send(close_frame(4001))
                assert (await peer.frame())[0] == -1
            for peer in peers_of[::2]:
                assert await peer.frame() == (raw.TEXT, b"purge")
                assert await peer.frame() == (raw.TEXT, b"purged")
                gone = {(await peer.frame())[1] for _ in odd}
                assert gone == {b"gone %d 4001" % number for number in range(1, count, 2)}
        await server.ended(server=count // 2, lost=count // 2)
        assert server.counts.handler_errors == 0


def _by_number(peers: list[Peer], hub: Hub) -> list[Peer]:
    """The clients in the order in which the application has them."""
    by_port = {peer.socket.getsockname()[1]: peer for peer in peers}
    return [by_port[ws.remote.port] for ws in hub.everybody]  # type: ignore[union-attr]


async def test_closing_when_the_client_closes_at_the_same_time(tmp_path: Path) -> None:
    """An application that closes for a message, behind which the client's close frame has come
    already, does not wait for another one: the connection is closed at once.
    """

    class App:
        def on_receive(self, ws: Connection, _data: str | bytes) -> None:
            ws.close_nowait(4000)

    async with served(tmp_path, App(), heartbeat=OFF, close_timeout=100) as server:
        async with await Peer.open(server) as peer:
            await peer.send(raw.frame(raw.TEXT, b"bye") + close_frame())
            assert await peer.frame() == (raw.CLOSE, b"\x0f\xa0")
            with trio.fail_after(15):
                assert await peer.frame() == (-1, b"")
        await server.ended(server=1)


# Application code that raises.


def _raising(hook: str, *, is_async: bool) -> object:
    """An echo with one hook that raises for those who ask for it."""

    def plain(of: Connection | Request, *data: str | bytes) -> None:
        if of.path == "/raise":
            raise ValueError(hook)
        if isinstance(of, Connection) and hook == "on_receive":
            of.send_nowait(*data)

    async def slow(of: Connection | Request, *data: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        plain(of, *data)

    return SimpleNamespace(**{"on_receive": Echo().on_receive, hook: slow if is_async else plain})


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("hook", ["on_request", "on_connect", "on_receive", "on_disconnect"])
async def test_a_hook_that_raises(tmp_path: Path, hook: str, *, is_async: bool) -> None:
    """Whatever hook raises, plain or async, ends the one connection it was called for: 500 before
    it is a WebSocket, 1011 after. It is counted, and others notice nothing.
    """
    async with served(tmp_path, _raising(hook, is_async=is_async)) as server:
        async with bystander(server), await Peer.connect(server) as peer:
            await peer.send(raw.request("/raise"))
            answer = await peer.head()
            if hook == "on_request":
                assert answer.startswith(b"HTTP/1.1 500 ")
            elif hook == "on_disconnect":
                assert await peer.ask("hello") == "hello"
                await peer.close()
            else:
                assert answer.startswith(b"HTTP/1.1 101 ")
                if hook == "on_receive":
                    await peer.say("raise")
                assert await peer.code() == 1011
            peer.drop()
            await server.until(lambda c: c.handler_errors == 1)
        if hook == "on_disconnect":
            await server.ended(client=2)
        else:
            await server.ended(error=1, client=1)
        assert server.counts.handler_errors == 1


async def test_an_application_that_raises_for_all_in_one_turn(tmp_path: Path) -> None:
    """Of many connections of one turn, each ends for what it did itself."""

    class App:
        def on_receive(self, ws: Connection, data: str | bytes) -> None:
            if data == "raise":
                raise LookupError(data)
            ws.send_nowait(data)

    async with served(tmp_path, App()) as server, opened(server, 40) as peers:
        for number, peer in enumerate(peers):
            peer.push(raw.frame(raw.TEXT, b"fine" if number % 2 else b"raise"))
        for number, peer in enumerate(peers):
            if number % 2:
                assert await peer.frame() == (raw.TEXT, b"fine")
            else:
                assert await peer.code() == 1011
        assert server.counts.handler_errors == 20
        assert server.counts.active >= 20
