"""Storms at the edge: max_connections, and a process that runs out of descriptors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import processes
from tests.harness.clients import aside
from tests.harness.instance import Instance
from tests.harness.raw import request
from tests.harness.waiting import until

PATIENCE = 90.0
#: These clients answer no pings.
QUIET = {"ping_interval": 0}
#: Connections that move to other workers.
EVENTS = """\
class App:
    def on_receive(self, ws, data):
        ws.send_nowait(data)

app = App()
"""
#: One that has more files open than the reserve is for.
GREEDY = """\
KEPT = [open("/dev/null") for _ in range(60)]

async def app(request):
    ws = await request.accept()
    while True:
        await ws.get_message()
"""
#: Runs a command whose processes may open so many files.
LOWERED = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Poor(Instance):
    """An instance whose processes may open few files."""

    def command(self, *arguments: str) -> list[str]:
        """As ever, but for the server."""
        found = super().command(*arguments)
        if arguments[0] == "serve":
            return [sys.executable, "-c", LOWERED, "120", *found]
        return found


@contextmanager
def poor(home: Path, **settings: object) -> Iterator[Instance]:
    """A running one."""
    instance = Poor(home, GREEDY, settings)
    try:
        instance.running()
        yield instance
    finally:
        instance.end()
        print(instance.logged())  # noqa: T201


class Storm:
    """Clients that come at once, each with its answer; those who are let in stay.

    :ivar streams: of those who are in.
    :ivar refused: heads of the other answers.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self.streams: list[trio.SocketStream] = []
        self.refused: list[bytes] = []

    async def one(self) -> bool:
        """One client; whether it is let in."""
        stream = await trio.open_tcp_stream(self._host, self._port)
        head = bytearray()
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(request())
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some()
                assert chunk, head
                head += chunk
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if head.startswith(b"HTTP/1.1 101 "):
            self.streams.append(stream)
            return True
        self.refused.append(bytes(head))
        await stream.aclose()
        return False

    async def come(self, count: int) -> None:
        """So many, at the same time."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.one)

    async def leave(self, count: int) -> None:
        """So many of those who are in."""
        for _ in range(count):
            await trio.aclose_forcefully(self.streams.pop())

    async def come_until(self, inside: int) -> None:
        """Whoever is told to come again does so."""
        while len(self.streams) < inside:
            if not await self.one():
                await trio.sleep(0.05)


@asynccontextmanager
async def storm(address: str) -> AsyncIterator[Storm]:
    found = Storm(address)
    with trio.fail_after(PATIENCE):
        try:
            yield found
        finally:
            for stream in found.streams:
                await trio.aclose_forcefully(stream)


def sums(status: dict[str, Any]) -> bool:
    """Whether each socket that was accepted is accounted for."""
    c = status["connections"]
    ends = c["closed"] + c["refused"] + c["handshake_failures"] + c["http_closed"]
    return bool(c["accepted"] == c["open"] + ends)


async def test_a_storm_at_the_limit(start: Callable[..., Instance]) -> None:
    """Of a storm exactly max_connections are let in, over all workers; every other client gets 503
    and is counted. It stays so through a reload, in which both generations share the limit, and
    through scaling, as connections move and as some leave: their places are taken again, and never
    more. The warning says which limit it is and what to do; status and log tell the capacity.
    """
    instance = start(
        EVENTS,
        max_connections=20,
        overflow="refuse",
        workers=2,
        rebalance=False,
        heartbeat=QUIET,
    )
    status = await aside(instance.running)
    assert status["capacity"] == 20
    assert (await aside(instance.events, "running"))[0]["formula"] == "max_connections = 20"

    async def exactly(fact: Callable[[dict[str, Any]], object] = lambda _: True) -> dict[str, Any]:
        return await aside(
            instance.wait,
            lambda s: (
                s["connections"]["open"] == s["connections"]["active"] == 20
                and s["connections"]["refused"] == len(crowd.refused)
                and sums(s)
                and fact(s)
            ),
            "exactly 20, and all others counted",
        )

    async with storm(await aside(instance.address)) as crowd:
        await crowd.come(80)
        assert len(crowd.streams) == 20
        assert len(crowd.refused) == 60
        for head in crowd.refused:
            assert head.startswith(b"HTTP/1.1 503 "), head
            assert b"\r\nRetry-After: " in head
        found = await exactly()
        assert found["connections"]["refused_by_reason"]["limit"] == 60
        assert [w["open"] for _, w in _working(found)] == [10, 10]
        warned = (await aside(instance.events, "connection_limit"))[0]
        assert (warned["limit"], warned["set_by"]) == (10, "max_connections")
        assert warned["hint"].startswith("raise max_connections")

        reload = await aside(instance.launch, "reload")
        while reload.poll() is None:
            await crowd.come(2)
            await trio.sleep(0.05)
        assert reload.returncode == 0
        assert len(crowd.streams) == 20
        await exactly(lambda s: s["generation"] == 2)

        await crowd.leave(5)
        await crowd.come_until(20)
        await crowd.come(20)
        await exactly()

        # Those who are in stay where they are: the new worker has room as they leave.
        assert (await aside(instance.run, "scale", "3")).returncode == 0
        while not any(s["slot"] == 2 and w["accepted"] > 2 for s, w in _working(found)):
            await crowd.come(10)
            found = await aside(instance.status)
        assert len(crowd.streams) == 20
        await crowd.leave(10)
        await crowd.come_until(20)
        await crowd.come(20)
        await exactly()

        assert (await aside(instance.run, "scale", "1")).returncode == 0
        await crowd.come(20)
        found = await exactly(lambda s: s["workers"] == 1 and len(_working(s)) == 1)
        await crowd.leave(3)
        await crowd.come_until(20)
        await crowd.come(10)
        await exactly()
    failed = [e for e in await aside(instance.entries) if e["level"] == "error"]
    assert failed == []


def _working(status: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """All workers that count already, each with its slot."""
    return [(s, w) for s in status["slots"] for w in s["workers"] if "accepted" in w]


@pytest.mark.parametrize("overflow", ["refuse", "queue"])
async def test_out_of_descriptors(tmp_path: Path, overflow: str) -> None:
    """A worker that has no descriptor left, in a storm of hundreds, lives on and sleeps. Its
    clients wait, or are turned away by means of the one descriptor that it kept for that; as soon
    as others leave they are served. Each of them is counted once.
    """
    settings = {"workers": 1, "reserve_fds": 16, "overflow": overflow, "heartbeat": QUIET}
    with poor(tmp_path, **settings) as instance:
        (worker,) = (await aside(instance.workers)).values()
        async with storm(await aside(instance.address)) as crowd, trio.open_nursery() as nursery:
            nursery.start_soon(crowd.come, 300)
            (warned, *_) = await aside(instance.wait_logged, "accept_exhausted")
            assert warned["error"] == "Too many open files"
            if overflow == "refuse":
                await aside(
                    instance.wait,
                    lambda s: s["connections"]["accepted"] == 300 and sums(s),
                    "all to be answered",
                )
            before = processes.cpu(worker)
            await trio.sleep(1)
            assert processes.cpu(worker) - before < 0.5
            # What was answered may still be on its way to us.
            inside = 0
            with trio.fail_after(60):
                if overflow == "refuse":
                    await until(lambda: len(crowd.streams) + len(crowd.refused) >= 300, 60)
                else:
                    while len(crowd.streams) <= 10 or len(crowd.streams) > inside:
                        inside = len(crowd.streams)
                        await trio.sleep(1)
            inside = len(crowd.streams)
            assert 10 < inside < 104
            if overflow == "refuse":
                assert len(crowd.refused) == 300 - inside
                assert all(head.startswith(b"HTTP/1.1 503 ") for head in crowd.refused)
                await crowd.leave(5)
                await crowd.come_until(inside)
                refused = len(crowd.refused)
            else:
                # As many as leave can come.
                seen = 0
                while seen < 300:
                    seen += len(crowd.streams)
                    await crowd.leave(len(crowd.streams))
                    await trio.sleep(0.01)
                refused = 0
                assert not crowd.refused
            await crowd.leave(len(crowd.streams))
            status = await aside(
                instance.wait, lambda s: s["connections"]["open"] == 0 and sums(s), "all to be gone"
            )
            assert status["connections"]["refused_by_reason"]["descriptors"] == refused
            assert status["connections"]["refused"] == refused
            assert (await aside(instance.workers)) == {0: worker}
            assert await crowd.one()
