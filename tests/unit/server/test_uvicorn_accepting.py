"""Accepting on asyncio: the limit, listeners that come and go, and running out of descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from tests.harness.fresh import python
from tests.harness.on_asyncio import on_asyncio
from tests.harness.waiting import until_on_asyncio as until
from wssup.scoreboard import RefusedReason
from wssup.server.admission import Admission
from wssup.server.uvicorn_worker.accepting import Accepting


class Taken:
    """What was accepted, as descriptors' sockets."""

    def __init__(self, limit: int = 1000, **more: Any) -> None:
        self.sockets: list[socket.socket] = []
        self.gauge: list[bool] = []
        self.accepting = Accepting(
            admission=Admission(limit, **more), accepted=lambda: None, gauge=self.gauge.append
        )
        self.accepting.adopt = lambda fd, _: self.sockets.append(socket.socket(fileno=fd))

    def close_one(self) -> None:
        self.sockets.pop(0).close()
        self.accepting.closed_one()

    async def settled(self) -> int:
        """How many there are when nothing more comes."""
        for _ in range(20):
            await asyncio.sleep(0.002)
        return len(self.sockets)

    def end(self) -> None:
        self.accepting.close_listeners()
        for each in self.sockets:
            each.close()


def _listener() -> socket.socket:
    found = socket.create_server(("127.0.0.1", 0), backlog=200)
    found.setblocking(False)
    return found


@on_asyncio
async def test_listeners_come_and_go() -> None:
    """Nothing is taken before it is switched on; a listener that is added then is accepted from at
    once, one that is removed no more; switched off, all wait in the kernel, until it is on again.
    """
    taken = Taken()
    with _listener() as one, _listener() as two:
        taken.accepting.add((0, "one"), os.dup(one.fileno()))
        clients = [socket.create_connection(one.getsockname(), 5)]
        assert await taken.settled() == 0
        taken.accepting.switch(on=True)
        await until(lambda: len(taken.sockets) == 1)
        assert not os.get_blocking(taken.sockets[0].fileno())
        taken.accepting.add((1, "two"), os.dup(two.fileno()))
        clients.append(socket.create_connection(two.getsockname(), 5))
        await until(lambda: len(taken.sockets) == 2)
        taken.accepting.remove((0, "one"))
        taken.accepting.remove((0, "one"))
        clients.append(socket.create_connection(one.getsockname(), 5))
        assert await taken.settled() == 2
        taken.accepting.switch(on=False)
        clients.append(socket.create_connection(two.getsockname(), 5))
        assert await taken.settled() == 2
        taken.accepting.switch(on=True)
        await until(lambda: len(taken.sockets) == 3)
        assert taken.accepting.open == 3
        assert taken.gauge == [True, False, True]
        taken.end()
        assert taken.gauge[-1] is False
        for client in clients:
            client.close()


@on_asyncio
async def test_the_limit() -> None:
    """Beyond the limit connections wait, and come as others are closed; a listener that is taken
    away, switched off or added meanwhile is none the worse for it.
    """
    taken = Taken(limit=2)
    with _listener() as one, _listener() as two:
        taken.accepting.add((0, "one"), os.dup(one.fileno()))
        taken.accepting.switch(on=True)
        clients = [socket.create_connection(one.getsockname(), 5) for _ in range(4)]
        await until(lambda: len(taken.sockets) == 2)
        assert await taken.settled() == 2
        taken.close_one()
        await until(lambda: len(taken.sockets) == 2)
        taken.accepting.add((1, "two"), os.dup(two.fileno()))
        clients.append(socket.create_connection(two.getsockname(), 5))
        assert await taken.settled() == 2
        taken.accepting.switch(on=False)
        taken.close_one()
        assert await taken.settled() == 1
        taken.accepting.switch(on=True)
        await until(lambda: len(taken.sockets) == 2)
        assert await taken.settled() == 2
        taken.accepting.remove((0, "one"))
        taken.close_one()
        taken.close_one()
        await taken.settled()
        assert taken.accepting.closed == 4
        taken.end()
        for client in clients:
            client.close()


@on_asyncio
async def test_turned_away_or_let_in_at_a_rate() -> None:
    """Beyond a limit connections are given to whoever turns them away, a few at a time; those that
    come too fast wait until it is their turn, which comes by itself.
    """
    listener = _listener()
    with listener:
        clients = [socket.create_connection(listener.getsockname(), 20) for _ in range(12)]
        taken = Taken(part=2, refuses=True)
        away: list[tuple[socket.socket, RefusedReason]] = []
        taken.accepting.turn_away = lambda fd, _, why: away.append((socket.socket(fileno=fd), why))
        taken.accepting.add((0, "one"), os.dup(listener.fileno()))
        taken.accepting.switch(on=True)
        for left in range(10, 0, -1):
            await until(lambda left=left: len(away) == min(4, left))
            assert await taken.settled() == 2
            assert len(away) == min(4, left)
            sock, why = away.pop()
            sock.close()
            assert why is RefusedReason.LIMIT
            taken.accepting.turned_away()
            taken.accepting.closed_one()
        taken.end()
        patient = Taken(rate=20.0)
        clients += [socket.create_connection(listener.getsockname(), 20) for _ in range(25)]
        patient.accepting.add((0, "one"), os.dup(listener.fileno()))
        patient.accepting.switch(on=True)
        await until(lambda: len(patient.sockets) == 25)
        patient.end()
        for client in clients:
            client.close()


def test_the_spare_descriptor() -> None:
    """Out of descriptors, those who come are turned away one at a time by means of the descriptor
    that was kept for it, which is kept anew when one has gone.
    """
    said = python(
        """
        import asyncio
        from wssup import logs
        from wssup.server import listening
        from wssup.server.admission import Admission
        from tests.harness.waiting import until_on_asyncio as until
        from wssup.server.uvicorn_worker import accepting as module
        logs.configure("info", "json")
        sys.stderr = sys.stdout
        listening._RELIEF = 1000.0
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        clients = [socket.create_connection(listener.getsockname(), 20) for _ in range(10)]

        async def main():
            inside, away = [], []
            found = module.Accepting(
                admission=Admission(1000, refuses=True),
                accepted=lambda: None,
                gauge=lambda on: None,
            )
            found.adopt = lambda fd, _: inside.append(fd)
            found.turn_away = lambda fd, _, why: away.append((fd, why.label))
            found.add((0, "a"), os.dup(listener.fileno()))
            opened = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 4, opened + 4))
            found.switch(on=True)
            for n in range(7):
                await until(lambda: away)
                # Nobody else.
                await asyncio.sleep(0.02)
                assert len(inside) == 3
                ((fd, why),) = away
                assert why == "descriptors"
                away.clear()
                os.close(fd)
                found.turned_away()
                found.closed_one()
            print(found.open, found.closed)

        asyncio.run(asyncio.wait_for(main(), 50))
        """
    )
    assert said.splitlines()[-1] == "3 7"


def test_out_of_descriptors() -> None:
    """At the process's limit of open files accepting pauses, is warned of once, and goes on as soon
    as a connection is closed; no connection is lost.
    """
    said = python(
        """
        import asyncio
        from wssup import logs
        from wssup.server import listening
        from wssup.server.admission import Admission
        from tests.harness.waiting import until_on_asyncio as until
        from wssup.server.uvicorn_worker import accepting as module
        logs.configure("info", "json")
        sys.stderr = sys.stdout
        listening._RELIEF = 1000.0
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        # Clients first: they need descriptors of this process too.
        clients = [socket.create_connection(listener.getsockname(), 20) for _ in range(10)]

        async def main():
            counted, taken = [], []
            found = module.Accepting(
                admission=Admission(1000),
                accepted=lambda: counted.append(1),
                gauge=lambda on: None,
            )
            found.adopt = lambda fd, _: taken.append(socket.socket(fileno=fd))
            found.add((0, "a"), os.dup(listener.fileno()))
            opened = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 3, opened + 3))
            found.switch(on=True)
            for n in range(10):
                await until(lambda: taken)
                taken.pop(0).close()
                found.closed_one()
            print(len(counted), found.open)

        asyncio.run(asyncio.wait_for(main(), 50))
        """
    )
    lines = said.splitlines()
    assert len([line for line in lines if "accept_exhausted" in line]) == 1
    assert lines[-1] == "10 0"
