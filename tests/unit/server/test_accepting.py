"""Taking connections, with real listeners and real clients."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.fresh import python
from tests.harness.waiting import until
from wssup.server import listening
from wssup.server.accepting import Accepting
from wssup.server.admission import Admission


class Listener:
    """A listening socket as the master makes it, of which workers get duplicates."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.socket.setblocking(False)

    def lend(self) -> int:
        """A descriptor as a message brings it."""
        return os.dup(self.socket.fileno())

    def connect(self) -> socket.socket:
        """A client whose connection waits in the kernel's queue, or is taken from it."""
        return socket.create_connection(self.socket.getsockname(), 20)


@pytest.fixture
def one() -> Iterator[Listener]:
    listener = Listener()
    with listener.socket:
        yield listener


@pytest.fixture
def two() -> Iterator[Listener]:
    listener = Listener()
    with listener.socket:
        yield listener


class Counted:
    """What an Accepting tells."""

    def __init__(self) -> None:
        self.accepted = 0
        self.gauge: list[bool] = []
        self.taken: list[socket.socket] = []

    def one_more(self) -> None:
        self.accepted += 1


@asynccontextmanager
async def accepting(limit: int = 1000, **limits: Any) -> AsyncIterator[tuple[Accepting, Counted]]:
    """A running Accepting; everything must come to its end within 30 seconds.

    :param limits: more of `Admission`.
    """
    counted = Counted()
    found = Accepting(
        admission=Admission(limit, **limits),
        accepted=counted.one_more,
        gauge=counted.gauge.append,
    )
    found.adopt = lambda fd, _: counted.taken.append(socket.socket(fileno=fd))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(found.run)
            try:
                yield found, counted
            finally:
                found.close_listeners()
                for sock in counted.taken:
                    sock.close()
                nursery.cancel_scope.cancel()


async def take(both: tuple[Accepting, Counted], count: int) -> None:
    """Close connections that were taken, or will be, as the engine does."""
    found, counted = both
    for _ in range(count):
        await until(lambda: counted.taken)
        counted.taken.pop(0).close()
        found.closed_one()


async def quiet() -> None:
    """Wait until no task has anything to do."""
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_nothing_is_taken_before_it_is_switched_on(one: Listener) -> None:
    """Connections wait in the kernel until the worker is ready; then they are taken, and counted at
    once.
    """
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        with one.connect(), one.connect():
            await quiet()
            assert counted.accepted == 0
            found.switch(on=True)
            await take((found, counted), 2)
            assert counted.accepted == 2
            assert counted.gauge == [True]


async def test_switched_off_it_keeps_what_it_took_and_its_listeners(one: Listener) -> None:
    """While it is off connections wait; those taken before are still handed out; on again it goes
    on. Switching to what is already so says nothing.
    """
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        found.switch(on=True)
        with one.connect(), one.connect():
            await until(lambda: counted.accepted == 2)
            assert found.open == 2
            found.switch(on=False)
            found.switch(on=False)
            with one.connect():
                await quiet()
                assert counted.accepted == 2
                await take((found, counted), 2)
                found.switch(on=True)
                await take((found, counted), 1)
        assert counted.gauge == [True, False, True]
        assert found.open == 0


async def test_a_listener_added_while_on_is_served(one: Listener, two: Listener) -> None:
    """A listener that is lent to a worker that accepts is accepted from at once."""
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        found.switch(on=True)
        found.add((1, "a"), two.lend())
        with two.connect():
            await take((found, counted), 1)
        with one.connect():
            await take((found, counted), 1)


async def test_a_listener_removed_is_closed_here_only(one: Listener, two: Listener) -> None:
    """Taking a listener away closes this process's copy, and neither shuts down nor disturbs the
    socket that others hold.
    """
    async with accepting() as (found, counted):
        lent = one.lend()
        found.add((0, "a"), lent)
        found.add((1, "a"), two.lend())
        found.switch(on=True)
        await quiet()
        found.remove((0, "a"))
        found.remove((0, "a"))
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(lent)
        with one.connect(), two.connect():
            await take((found, counted), 1)
            await quiet()
            assert counted.accepted == 1
            one.socket.accept()[0].close()


async def test_a_listener_that_is_there_already_is_not_taken_twice(one: Listener) -> None:
    """The second descriptor for the same slot and address is closed."""
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        again = one.lend()
        found.add((0, "a"), again)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(again)
        found.switch(on=True)
        with one.connect():
            await take((found, counted), 1)


async def test_lent_and_taken_back_in_one_go(one: Listener) -> None:
    """A listener that is removed before its task had its first turn does no harm: a loan and its
    end can be read from the channel without a pause.
    """
    async with accepting() as (found, counted):
        found.switch(on=True)
        for _ in range(20):
            found.add((1, "a"), one.lend())
            found.remove((1, "a"))
        found.add((1, "a"), one.lend())
        found.switch(on=False)
        found.switch(on=True)
        found.close_listeners()
        with one.connect():
            await quiet()
            assert counted.accepted == 0


async def test_closed_in_the_very_turn_a_connection_comes(one: Listener) -> None:
    """When listeners are closed in the turn in which a connection woke their task, the connection
    stays in the kernel's queue for others and nothing fails, whichever task runs first.
    """
    for _ in range(20):
        async with accepting() as (found, counted):
            found.add((0, "a"), one.lend())
            found.switch(on=True)
            await quiet()
            reader, writer = socket.socketpair()
            with reader, writer, one.connect():
                # Both are readable before the loop looks again: order and client.
                writer.send(b"x")
                await trio.lowlevel.wait_readable(reader)
                found.close_listeners()
                await quiet()
                taken = counted.accepted
                assert taken == found.open
                if not taken:
                    one.socket.accept()[0].close()


async def test_at_its_limit_connections_wait(one: Listener, two: Listener) -> None:
    """No more sockets are open than the limit; each close lets one more in, from any listener."""
    async with accepting(limit=3) as (found, counted):
        found.add((0, "a"), one.lend())
        found.add((1, "a"), two.lend())
        found.switch(on=True)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(one.connect())
                stack.enter_context(two.connect())
            for gone in range(6):
                await until(lambda gone=gone: counted.accepted >= min(8, 3 + gone))
                await quiet()
                assert counted.accepted == min(8, 3 + gone)
                assert found.open == min(3, 8 - gone)
                await take((found, counted), 1)


async def test_at_its_limit_it_does_not_spin(one: Listener) -> None:
    """A worker that is full sleeps although its listener is readable."""
    async with accepting(limit=1) as (found, counted):
        found.add((0, "a"), one.lend())
        found.switch(on=True)
        with one.connect(), one.connect():
            await until(lambda: counted.accepted)
            await quiet()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            await trio.sleep(0.3)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.15


async def test_many_connections_from_two_listeners(one: Listener, two: Listener) -> None:
    """A storm on one listener does not starve another one: it has its turn after one batch."""
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        found.add((1, "a"), two.lend())
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(one.connect())
            stack.enter_context(two.connect())
            ports = {one.socket.getsockname()[1]: 0, two.socket.getsockname()[1]: 0}
            found.switch(on=True)
            order = []
            for _ in range(61):
                await until(lambda: counted.taken)
                order.append(counted.taken[0].getsockname()[1])
                await take((found, counted), 1)
            for port in order:
                ports[port] += 1
            assert list(ports.values()) == [60, 1]
            assert order.index(two.socket.getsockname()[1]) <= listening._BATCH


async def test_a_connection_that_was_reset_in_the_queue(one: Listener) -> None:
    """A client that gave up before it was taken disturbs nobody."""
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        with one.connect() as client:
            # SO_LINGER with zero seconds makes close(2) send RST.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with one.connect():
            found.switch(on=True)
            # The one that was reset may still be in the queue, or not.
            await until(lambda: counted.accepted)
            await quiet()
            await take((found, counted), found.open)
            with one.connect():
                await take((found, counted), 1)


async def test_the_listeners_stay_non_blocking(one: Listener) -> None:
    """O_NONBLOCK belongs to the open file that all workers share: it stays as the master set it."""
    async with accepting() as (found, counted):
        found.add((0, "a"), one.lend())
        found.switch(on=True)
        with one.connect():
            await take((found, counted), 1)
        assert not os.get_blocking(one.socket.fileno())
    assert not os.get_blocking(one.socket.fileno())


def test_out_of_descriptors() -> None:
    """At the process's limit of open files accepting pauses, is warned of once, and goes on as soon
    as a connection is closed; no connection is lost.
    """
    said = python(
        """
        from wssup import logs
        from wssup.server import accepting as module, listening
        from tests.harness.waiting import until
        from wssup.server.admission import Admission
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
            with trio.fail_after(50):
                async with trio.open_nursery() as nursery:
                    await nursery.start(found.run)
                    found.add((0, "a"), os.dup(listener.fileno()))
                    opened = len(os.listdir("/proc/self/fd")) - 1
                    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 3, opened + 3))
                    found.switch(on=True)
                    for n in range(10):
                        await until(lambda: taken)
                        if n == 0:
                            await trio.testing.wait_all_tasks_blocked(0.05)
                            print(len(counted))
                        taken.pop(0).close()
                        found.closed_one()
                    print(len(counted), found.open)
                    nursery.cancel_scope.cancel()

        import trio.testing
        trio.run(main)
        """
    )
    lines = said.splitlines()
    warnings = [line for line in lines if line.startswith("{")]
    assert [line for line in lines if line not in warnings] == ["3", "10 0"]
    assert len(warnings) == 1
    assert '"event": "accept_exhausted"' in warnings[0]
    assert "Too many open files" in warnings[0]
