"""The kernel's tables of sockets, by netlink and from /proc, on real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.processes import until
from wssup.kernel import tcp, unix
from wssup.kernel.sockets import same_network, tcp_table, unix_table
from wssup.kernel.tcp import TcpSocket, TcpState, shown


def inode(sock: socket.socket) -> int:
    """As the kernel's tables know it."""
    return os.fstat(sock.fileno()).st_ino


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack


def from_proc() -> list[TcpSocket]:
    """What the fallback would see."""
    return tcp.distinct(
        sock
        for name in ("tcp", "tcp6")
        for sock in tcp.from_lines(Path("/proc/self/net", name).read_text().splitlines())
    )


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_all_states(stack: ExitStack, family: socket.AddressFamily, host: str) -> None:
    """A listener with its queue, an accepted connection, one that waits to be accepted, and one
    whose peer has closed and how long ago that is; /proc tells the same without the age.
    """
    listener = stack.enter_context(socket.create_server((host, 0), family=family, backlog=9))
    where = listener.getsockname()[:2]
    open_ = stack.enter_context(socket.create_connection(where))
    accepted = stack.enter_context(listener.accept()[0])
    left = stack.enter_context(socket.create_connection(where))
    kept = stack.enter_context(listener.accept()[0])
    waiting = stack.enter_context(socket.create_connection(where))
    left.close()

    def old() -> bool:
        found = {sock.inode: sock for sock in tcp_table().sockets}[inode(kept)]
        return found.state == TcpState.CLOSE_WAIT and (found.heard or 0) >= 0.05

    until(old, 30, "an age in CLOSE_WAIT")
    table = tcp_table()
    assert table.heard
    for sockets, limit in ((table.sockets, 9), (from_proc(), 0)):
        mine = [sock for sock in sockets if sock.local_port == where[1]]
        there = {sock.inode: sock for sock in mine if sock.inode}
        listens = there[inode(listener)]
        assert (listens.state, listens.rqueue, listens.wqueue) == (TcpState.LISTEN, 1, limit)
        holds = there[inode(accepted)]
        assert holds.state == TcpState.ESTABLISHED
        assert shown(holds.local, holds.local_port) == (
            f"{host}:{where[1]}" if ":" not in host else f"[{host}]:{where[1]}"
        )
        assert holds.remote_port == open_.getsockname()[1]
        assert holds.uid == os.geteuid()
        assert there[inode(kept)].state == TcpState.CLOSE_WAIT
        (queued,) = [
            sock for sock in mine if not sock.inode and sock.remote_port == waiting.getsockname()[1]
        ]
        assert queued.state == TcpState.ESTABLISHED


def test_unix_sockets(stack: ExitStack, tmp_path: Path) -> None:
    """A unix listener, an accepted connection, and one that waits, by the path (with a space)."""
    path = str(tmp_path / "an app.sock")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(5)
    for _ in range(3):
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
    accepted = stack.enter_context(listener.accept()[0])
    mine = [sock for sock in unix_table() if sock.path == path]
    assert sorted(sock.state for sock in mine) == ["connected", "listening", "waiting", "waiting"]
    assert {sock.inode for sock in mine} == {0, inode(listener), inode(accepted)}


def test_the_network_namespace_of_a_process() -> None:
    """A process is in its own; one that cannot be seen is taken to be in ours."""
    assert same_network(os.getpid())
    assert same_network(2**30)


@settings(max_examples=50)
@given(st.text("0123456789ABCDEF: \n\u0663é", max_size=200))
def test_no_lines_do_any_harm(text: str) -> None:
    """Whatever is read, it is a list of sockets."""
    lines = text.splitlines()
    assert all(isinstance(sock, TcpSocket) for sock in tcp.from_lines(lines))
    assert isinstance(unix.from_lines(lines), list)


ENDS = st.tuples(st.sampled_from([b"\x7f\0\0\1", b"\x7f\0\0\2"]), st.integers(1, 3))


@given(st.lists(st.tuples(st.sampled_from(TcpState), ENDS, ENDS, st.integers(0, 4))))
def test_no_connection_is_given_twice(seen: list[tuple[TcpState, Any, Any, int]]) -> None:
    """However often a table names a connection, it is there once, as it was seen last."""
    table = [TcpSocket(state, *here, *there, inode, 0, 0, 0) for state, here, there, inode in seen]
    last = {(sock[1:5]): sock for sock in table}
    assert set(tcp.distinct(table)) == set(last.values())
    assert len(tcp.distinct(table)) == len(last)


@given(st.lists(st.integers(1, 5)))
def test_listeners_that_share_an_address(inodes: list[int]) -> None:
    """Each of several listeners of one address is there, once."""
    table = [TcpSocket(TcpState.LISTEN, bytes(4), 80, bytes(4), 0, n, 0, 0, 0) for n in inodes]
    assert sorted(sock.inode for sock in tcp.distinct(table)) == sorted(set(inodes))


def test_mapped_addresses_are_shown_as_ipv4() -> None:
    """A client of IPv4 at a listener of both families has its IPv4 address."""
    assert shown(bytes(10) + b"\xff\xff\x7f\0\0\1", 80) == "127.0.0.1:80"
    assert shown(bytes(15) + b"\1", 80) == "[::1]:80"
