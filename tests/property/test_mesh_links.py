"""The mesh in any order of events: nodes come and go, messages fail, sockets are scarce."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.messages import Message, Peers
from wssup.supervisor import mesh as module
from wssup.supervisor.mesh import Mesh, Node


class Process:
    """A node: which ends it got, and whether it waits for its first message."""

    def __init__(self, serial: int, refusals: int) -> None:
        self.serial = serial
        self.refusals = refusals
        self.complete = False
        self.links: dict[int, int] = {}

    def post(self, message: Message, descriptors: Sequence[int]) -> None:
        assert isinstance(message, Peers)
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        for serial, descriptor in zip(message.serials, descriptors, strict=True):
            assert serial not in self.links, "two links between two nodes"
            self.links[serial] = os.dup(descriptor)
        self.complete = self.complete or not message.more

    def close(self) -> None:
        for descriptor in self.links.values():
            os.close(descriptor)


class Scarce:
    """socketpair(2) that can be out of descriptors, and knows what was not closed."""

    def __init__(self) -> None:
        self.left = 10**9
        self.made: list[socket.socket] = []

    def __call__(self, *arguments: Any) -> tuple[socket.socket, socket.socket]:
        if self.left <= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.left -= 1
        ends = socket.socketpair(*arguments)
        self.made += ends
        return ends


def are_one_link(one: int, other: int) -> bool:
    """Whether two descriptors are the ends of one pair: one hears what is said at the other."""
    ends = [socket.socket(fileno=os.dup(descriptor)) for descriptor in (one, other)]
    try:
        ends[0].setblocking(False)
        ends[1].setblocking(False)
        ends[0].send(b"x")
        return ends[1].recv(1) == b"x"
    except (BlockingIOError, BrokenPipeError):
        return False
    finally:
        for end in ends:
            end.close()


steps = st.lists(
    st.tuples(st.just("join"), st.integers(0, 3))
    | st.tuples(st.just("leave"), st.integers(0, 99))
    | st.tuples(st.just("scarce"), st.integers(0, 5))
    | st.tuples(st.just("plenty"), st.just(0))
    | st.tuples(st.just("pass"), st.integers(0, 3)),
    max_size=25,
)


class Course:
    """A mesh to which things happen."""

    def __init__(self, lot: int) -> None:
        self.scarce = Scarce()
        self.living: dict[int, Process] = {}
        self.everybody: list[Process] = []
        self._lot = lot

    def run(self, course: list[tuple[str, int]]) -> None:
        """All of it, and then what is left to do when there are sockets again."""
        sockets = SimpleNamespace(
            AF_UNIX=socket.AF_UNIX, SOCK_STREAM=socket.SOCK_STREAM, socketpair=self.scarce
        )
        with (
            mock.patch.object(module, "_LOT", self._lot),
            mock.patch.object(module, "socket", sockets),
            mock.patch.object(module, "_complain"),
        ):
            clock = trio.testing.MockClock(autojump_threshold=0)
            trio.run(self._run, course, clock=clock)

    async def _run(self, course: list[tuple[str, int]]) -> None:
        async with trio.open_nursery() as nursery:
            mesh = Mesh(nursery)
            for what, number in course:
                match what:
                    case "join":
                        self._join(mesh, number)
                    case "leave" if self.living:
                        gone = list(self.living)[number % len(self.living)]
                        del self.living[gone]
                        mesh.leave(gone)
                    case "scarce":
                        self.scarce.left = number
                    case "plenty":
                        self.scarce.left = 10**9
                    case "pass":
                        await trio.sleep(number / 2)
            self.scarce.left = 10**9

    def _join(self, mesh: Mesh, refusals: int) -> None:
        serial = len(self.everybody) + 1
        process = self.living[serial] = Process(serial, refusals)
        self.everybody.append(process)
        mesh.join(Node(serial, process.post, {}))

    def close(self) -> None:
        for process in self.everybody:
            process.close()


@settings(max_examples=75, deadline=None)
@given(steps, st.integers(1, 4))
def test_all_that_live_are_linked_once(course: list[tuple[str, int]], lot: int) -> None:
    """In the end each two living nodes have the two ends of one link, each new node was told that
    it knows all, and the master keeps nothing.
    """
    made = Course(lot)
    try:
        made.run(course)
        assert all(end.fileno() == -1 for end in made.scarce.made)
        for process in made.living.values():
            assert process.complete
            assert set(made.living) - {process.serial} <= set(process.links)
        for one, other in itertools.combinations(made.living.values(), 2):
            assert are_one_link(one.links[other.serial], other.links[one.serial])
    finally:
        made.close()
