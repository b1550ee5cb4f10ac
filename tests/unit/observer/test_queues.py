"""Accept queues as the kernel tells them, on real listeners."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.processes import until
from wssup.kernel.sockdiag import Family
from wssup.observer.queues import Queues, families
from wssup.status.facts import ListenerFacts


def facts(sock: socket.socket, slot: int | None = 0) -> ListenerFacts:
    """A listener as the master tells of it."""
    name = sock.getsockname()
    address = f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
    return ListenerFacts(slot, address, os.fstat(sock.fileno()).st_ino)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_queue_fills_and_is_emptied(family: socket.AddressFamily, host: str) -> None:
    """Connections that nobody has accepted are the queue's length; its bound is listen(2)'s. One
    more than the bound is let in, as the kernel does, and further ones are counted as drops.
    """
    queues = Queues()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, 0), family=family, backlog=3))
        about = facts(listener)
        assert queues.read([about]) == {about.inode: (about.inode, 0, 3, 0)}
        for _ in range(2):
            stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        # The client may be done before its last segment is, which makes it one of the queue.
        until(lambda: queues.read([about])[about.inode][:3] == (about.inode, 2, 3), 10, "both")
        for _ in range(2):
            stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        late = stack.enter_context(socket.socket(family))
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        until(lambda: queues.read([about])[about.inode].drops, 10, "a drop")
        until(lambda: queues.read([about])[about.inode].length == 4, 10, "a full queue")
        listener.accept()[0].close()
        assert queues.read([about])[about.inode].length == 3
    assert queues.read([about]) == {}
    queues.close()


def test_a_unix_socket(tmp_path: Path) -> None:
    """A unix listener has a queue, too; its clients wait, so nothing is dropped."""
    queues = Queues()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "app.sock"))
        listener.listen(7)
        about = facts(listener, None)
        client.connect(listener.getsockname())
        assert queues.read([about]) == {about.inode: (about.inode, 1, 7, None)}
    queues.close()


def test_each_listener_of_a_group_has_its_own(tmp_path: Path) -> None:
    """Listeners of one port, and of all families at once, are told apart by their inodes; those of
    others are left out.
    """
    queues = Queues()
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
        group = [first] + [
            stack.enter_context(socket.create_server(first.getsockname(), reuse_port=True))
            for _ in range(2)
        ]
        six = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(tmp_path / "x.sock"))
        other.listen()
        wanted = [facts(sock) for sock in (*group, six, other)]
        for _ in range(9):
            stack.enter_context(socket.create_connection(first.getsockname()))
        assert set(queues.read(wanted)) == {about.inode for about in wanted}

        def waiting() -> int:
            found = queues.read(wanted)
            return sum(found[about.inode].length for about in wanted[:3])

        until(lambda: waiting() == 9, 10, "all of them")
        assert set(queues.read(wanted[:1])) == {wanted[0].inode}
    queues.close()


def test_families_are_those_of_the_listeners() -> None:
    """Unix sockets are only asked for if there is a listener of that kind, and nothing without."""
    tcp, unix = ListenerFacts(0, "[::]:1", 1), ListenerFacts(None, "unix:/x", 2)
    assert families([]) == []
    assert families([tcp]) == [Family.IPV4, Family.IPV6]
    assert families([unix]) == [Family.UNIX]
    assert families([unix, tcp]) == [Family.IPV4, Family.IPV6, Family.UNIX]


def test_connections_cost_nothing() -> None:
    """With 4000 established connections beside it, a listener's queue is read as fast as without:
    the kernel does not walk them.
    """
    queues = Queues()

    def fastest() -> float:
        best = 1.0
        for _ in range(30):
            began = time.perf_counter()
            queues.read([about])
            best = min(best, time.perf_counter() - began)
        return best

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        about = facts(listener)
        alone = fastest()
        for _ in range(2000):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        assert fastest() < 3 * alone + 0.000_2
    queues.close()
