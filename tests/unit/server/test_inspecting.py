"""What a worker tells the master of its connections, and closes for it, on real connections."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.served import Served, code_of, everything, served
from tests.harness.waiting import until
from tests.unit.server.peer import OFF, Peer, bystander, opened, queued, small_buffer
from wssup.messages import CloseConnections, ConnectionsClosing, Inspect, Inspected, Message
from wssup.questions import LONGEST_PATH, ConnectionSeen
from wssup.server import inspecting as module
from wssup.server.connection import Connection
from wssup.server.request import Request


class Keeping:
    """Echoes, and keeps its connections in the order in which they came."""

    def __init__(self) -> None:
        self.all: list[Connection] = []

    def on_connect(self, ws: Connection) -> None:
        self.all.append(ws)

    def on_receive(self, ws: Connection, data: str | bytes) -> None:
        ws.send_nowait(data)


async def seen(server: Served, order: str = "oldest", limit: int = 200) -> list[ConnectionSeen]:
    posted: list[Message] = []
    await server.engine.answer(Inspect(7, order, limit), posted.append)
    (answer,) = posted
    assert isinstance(answer, Inspected)
    assert answer.question == 7
    return answer.connections


async def close(
    server: Served, *ids: int, code: int = 1008, reason: str = ""
) -> ConnectionsClosing:
    posted: list[Message] = []
    await server.engine.answer(CloseConnections(8, list(ids), code, reason), posted.append)
    (answer,) = posted
    assert isinstance(answer, ConnectionsClosing)
    assert answer.question == 8
    return answer


async def test_orders_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest, newest, most silent and fullest connections come first, so many at most, also
    where they do not fit into one slice.
    """
    monkeypatch.setattr(module, "_SLICE", 2)
    app = Keeping()
    async with served(tmp_path, app, heartbeat=OFF) as server, opened(server, 7) as peers:
        ids = [ws.id for ws in app.all]
        assert [c.id for c in await seen(server, "oldest")] == ids
        assert [c.id for c in await seen(server, "newest", 3)] == ids[:-4:-1]
        by_id = dict(zip(ids, peers, strict=True))
        for number in [ids[4], ids[1], ids[6], ids[0], ids[2], ids[5]]:
            assert await by_id[number].ask("I am here") == "I am here"
        assert [c.id for c in await seen(server, "idle", 3)] == [ids[3], ids[4], ids[1]]
        for number, size in ((3, 9_000_000), (5, 10_000_000)):
            small_buffer(app.all[number])
            app.all[number].send_nowait(bytes(size))
        assert queued(server) > 0
        assert [c.id for c in await seen(server, "queue", 2)] == [ids[5], ids[3]]
        assert await seen(server, "oldest", 0) == []


async def test_what_is_told(tmp_path: Path) -> None:
    """Address, path without its query, state, ages, what waits, and how many topics."""
    app = Keeping()
    async with served(tmp_path, app, heartbeat=OFF) as server:
        began = time.monotonic()
        path = "/" + "p" * 300
        async with (
            await Peer.open(server, "/room/1?token=secret") as one,
            await Peer.open(server, path) as other,
        ):
            app.all[0].subscribe("news")
            first, second = await seen(server)
            host, port = one.socket.getsockname()
            assert first.address == f"{host}:{port}"
            assert (first.path, first.state, first.topics) == ("/room/1?…", "open", 1)
            assert second.path == path[:LONGEST_PATH]
            assert second.address == "{}:{}".format(*other.socket.getsockname())
            for found in (first, second):
                assert 0 <= found.idle <= found.age <= time.monotonic() - began
                assert (found.queue_bytes, found.inbox) == (0, 0)


async def test_behind_a_proxy(tmp_path: Path) -> None:
    """What X-Forwarded-For says is told, cut where it is long; nothing if there was none."""
    async with served(tmp_path, heartbeat=OFF) as server:
        for value in ("", "203.0.113.9, 10.0.0.1", "x" * 200):
            peer = await Peer.connect(server)
            head = raw.request("/").removesuffix(b"\r\n")
            field = f"X-Forwarded-For: {value}\r\n\r\n".encode() if value else b"\r\n"
            await peer.send(head + field)
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
            (found,) = await seen(server)
            assert found.forwarded == value[:100]
            await peer.close()
            await server.until(lambda c: not c.open)


async def test_those_that_are_no_websocket_yet(tmp_path: Path) -> None:
    """Who has not sent its request, and whose request is not answered, is listed too, and can be
    closed: with 503, whatever the application does with the request later.
    """
    requests: list[Request] = []
    released = trio.Event()

    async def handler(request: Request) -> None:
        requests.append(request)
        await released.wait()
        await request.accept()

    async with served(tmp_path, handler) as server:
        silent = await server.open()
        await server.until(lambda c: c.accepted == 1)
        pending = await server.open()
        await pending.send_all(raw.request("/slow"))
        await until(lambda: requests)
        found = await seen(server)
        assert [(c.state, c.path) for c in found] == [("handshake", ""), ("pending", "/slow")]
        answer = await close(server, *(c.id for c in found))
        assert answer.closing == [c.id for c in found]
        for stream in (silent, pending):
            assert (await everything(stream)).startswith(b"HTTP/1.1 503 ")
        released.set()
        await server.ended(rejected=2)


async def test_one_is_closed_and_others_live_on(tmp_path: Path) -> None:
    """The client gets code and reason, the close is counted as the operator's, the application's
    task sees a closed connection; ids that are not here are passed over.
    """
    async with served(tmp_path) as server, bystander(server):
        (standing,) = await seen(server)
        ws = await server.connect()
        (newest,) = await seen(server, "newest", 1)
        answer = await close(server, 98, newest.id, 99, code=4001, reason="enough")
        assert (answer.closing, answer.moving, answer.error) == ([newest.id], [], "")
        assert await code_of(ws) == (4001, "enough")
        await server.until(lambda c: c.closed_by_reason["operator"] == 1)
        assert [c.id for c in await seen(server)] == [standing.id]
        assert (await close(server, newest.id)).closing == []


async def test_again_and_while_it_closes(tmp_path: Path) -> None:
    """One that is in its closing handshake already is found, and nothing happens to it."""
    async with served(tmp_path) as server, await Peer.open(server) as peer:
        (found,) = await seen(server)
        for _ in range(2):
            assert (await close(server, found.id)).closing == [found.id]
        assert [c.state for c in await seen(server)] == ["closing"]
        assert await peer.code() == 1008
        await peer.send(raw.frame(raw.CLOSE, b"\x03\xf0"))
        assert (await peer.frame())[0] == -1
        await server.ended(operator=1)


@pytest.mark.parametrize("code", [999, 1006, 1015, 2999])
async def test_a_code_that_nobody_may_send(tmp_path: Path, code: int) -> None:
    """Such a code closes nothing, and the answer says why."""
    async with served(tmp_path) as server, await Peer.open(server) as peer:
        (found,) = await seen(server)
        answer = await close(server, found.id, code=code)
        assert answer.closing == []
        assert str(code) in answer.error
        assert await peer.ask("still here?") == "still here?"


async def test_others_have_their_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices everybody else has a turn; one that ends meanwhile is left out."""
    monkeypatch.setattr(module, "_SLICE", 1)
    app = Keeping()
    async with served(tmp_path, app, heartbeat=OFF) as server, opened(server, 20) as peers:
        found: list[list[ConnectionSeen]] = []

        async def look() -> None:
            found.append(await seen(server))

        server.nursery.start_soon(look)
        gone = app.all[0].id
        while not found:
            await trio.lowlevel.checkpoint()
            peers[0].drop()
        assert len(found[0]) in {19, 20}
        await server.until(lambda c: c.open == 19)
        assert gone not in {c.id for c in await seen(server)}
