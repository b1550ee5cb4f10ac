from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.harness.descriptors import open_descriptors
from tests.harness.waiting import until
from wssup.messages import Message, Peers
from wssup.supervisor import mesh as module
from wssup.supervisor.mesh import Mesh, Node

PATIENCE = 10.0


class Process:
    """What a node was told, and its ends of links.

    :ivar refusals: errors with which its next messages are answered.
    :ivar told: the serial numbers of each message, and whether another one follows.
    """

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.refusals: list[int] = []
        self.told: list[tuple[list[int], bool]] = []
        self.ends: dict[int, list[socket.socket]] = {}

    @property
    def node(self) -> Node:
        return Node(self.serial, self._post, {"pid": self.serial})

    def _post(self, message: Message, descriptors: Sequence[int]) -> None:
        assert isinstance(message, Peers)
        assert len(message.serials) == len(descriptors)
        if self.refusals:
            number = self.refusals.pop(0)
            raise OSError(number, os.strerror(number))
        self.told.append((message.serials, message.more))
        for serial, descriptor in zip(message.serials, descriptors, strict=True):
            # As the other process would get it: a descriptor of its own.
            end = socket.socket(fileno=os.dup(descriptor))
            end.setblocking(False)
            self.ends.setdefault(serial, []).append(end)

    def close(self) -> None:
        for end in self.linked():
            end.close()

    def linked(self) -> list[socket.socket]:
        return [end for ends in self.ends.values() for end in ends]


def joined(one: Process, other: Process) -> bool:
    """Whether the newest ends of a link belong to each other."""
    word = f"{one.serial}-{other.serial}".encode()
    try:
        one.ends[other.serial][-1].send(word)
        return other.ends[one.serial][-1].recv(100) == word
    except (KeyError, BlockingIOError, BrokenPipeError):
        return False


def all_joined(*processes: Process) -> bool:
    return all(joined(a, b) and joined(b, a) for a in processes for b in processes if a is not b)


class Stage:
    """A mesh, and how many descriptors there were before it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.processes: dict[int, Process] = {}
        self.before = len(open_descriptors())

    def join(self, serial: int, refusals: Sequence[int] = ()) -> Process:
        process = self.processes[serial] = Process(serial)
        process.refusals += refusals
        self.mesh.join(process.node)
        return process

    @property
    def kept(self) -> int:
        """Descriptors that are neither from before nor those of the processes."""
        ends = sum(len(process.linked()) for process in self.processes.values())
        return len(open_descriptors()) - self.before - ends


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "_RETRY", 0.01)
    monkeypatch.setattr(module, "_LOT", 10)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            stage = Stage(Mesh(nursery))
            yield stage
            nursery.cancel_scope.cancel()
    for process in stage.processes.values():
        process.close()


async def test_each_is_linked_to_each(stage: Stage) -> None:
    """Each new node is told of all others in one message, and each of the others of it, at once;
    the ends of each link belong together, and the master keeps none.
    """
    processes = [stage.join(serial) for serial in (1, 2, 5, 9)]
    assert [process.told for process in processes] == [
        [([], False), ([2], False), ([5], False), ([9], False)],
        [([1], False), ([5], False), ([9], False)],
        [([1, 2], False), ([9], False)],
        [([1, 2, 5], False)],
    ]
    assert all_joined(*processes)
    assert stage.kept == 0


async def test_who_is_gone_is_not_linked(stage: Stage) -> None:
    """A new node is not linked to one that is gone, whose links end with it."""
    one, two = stage.join(1), stage.join(2)
    stage.mesh.leave(1)
    stage.mesh.leave(1)
    one.close()
    assert two.ends[1][0].recv(1) == b""
    three = stage.join(3)
    assert three.told == [([2], False)]
    assert 3 not in one.ends
    assert all_joined(two, three)


async def test_many_are_linked_in_lots(stage: Stage) -> None:
    """More nodes than descriptors fit into a message come in several, the last of which says so,
    and the loop turns in between.
    """
    old = [stage.join(serial) for serial in range(1, 26)]
    await until(lambda: all_joined(*old))
    new = stage.join(999)
    assert [(len(serials), more) for serials, more in new.told] == [(10, True)]
    await until(lambda: len(new.told) == 3)
    assert [(len(serials), more) for serials, more in new.told] == [
        (10, True),
        (10, True),
        (5, False),
    ]
    assert sorted(serial for serials, _ in new.told for serial in serials) == list(range(1, 26))
    assert all_joined(*old, new)
    assert stage.kept == 0


async def test_who_goes_meanwhile_is_left_out(stage: Stage) -> None:
    """Nodes that go while a new one is being linked are left out, and the last message comes."""
    for serial in range(1, 16):
        stage.join(serial)
    await until(lambda: len(stage.processes[15].ends) == 14)
    new = stage.join(999)
    for serial in range(11, 16):
        stage.mesh.leave(serial)
    await until(lambda: len(new.told) == 2)
    assert new.told[1] == ([], False)
    assert set(new.ends) == set(range(1, 11))


async def test_a_new_node_that_goes_is_given_up(stage: Stage) -> None:
    """Nothing more is done for a node that is gone."""
    for serial in range(1, 16):
        stage.join(serial)
    await until(lambda: len(stage.processes[15].ends) == 14)
    new = stage.join(999)
    stage.mesh.leave(999)
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    assert len(new.told) == 1
    assert stage.kept == 0


async def test_no_descriptors_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that cannot be made are made later; those that could are there at once, and the new
    node does not wait.
    """
    old = [stage.join(serial) for serial in (1, 2, 3)]
    make = socket.socketpair
    left = 1

    def scarce(*arguments: Any) -> Any:
        nonlocal left
        if left <= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left -= 1
        return make(*arguments)

    monkeypatch.setattr(module.socket, "socketpair", scarce)
    new = stage.join(4)
    assert new.told == [([1], False)]
    assert joined(new, old[0])
    left = 1
    await until(lambda: len(new.told) == 2)
    assert new.told[1] == ([2], False)
    left = 100
    await until(lambda: len(new.told) == 3)
    assert all_joined(new, *old)
    assert stage.kept == 0


async def test_no_descriptors_at_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new node that cannot be linked to anybody is told so, and linked when it can be."""
    one = stage.join(1)
    make = socket.socketpair

    def none(*_arguments: Any) -> Any:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(module.socket, "socketpair", none)
    two = stage.join(2)
    assert two.told == [([], False)]
    monkeypatch.setattr(module.socket, "socketpair", make)
    await until(lambda: all_joined(one, two))
    assert stage.kept == 0


async def test_a_node_that_cannot_be_told(stage: Stage) -> None:
    """A node whose message fails is told again, be it the new one or one of the others: of one and
    the same link, because nodes never have a second one between them.
    """
    one = stage.join(1)
    two = stage.join(2, [errno.EMFILE, errno.EAGAIN])
    assert one.told == [([], False), ([2], False)]
    assert two.told == []
    await until(lambda: all_joined(one, two))
    one.refusals += [errno.EAGAIN] * 3
    three = stage.join(3)
    assert three.told == [([1, 2], False)]
    assert joined(three, two)
    # What it says meanwhile is kept for the other one.
    three.ends[1][0].send(b"early")
    await until(lambda: len(one.told) == 3)
    assert one.ends[3][0].recv(100) == b"early"
    assert all_joined(one, two, three)
    assert all(len(ends) == 1 for node in (one, two, three) for ends in node.ends.values())
    assert stage.kept == 0


async def test_a_node_that_goes_before_it_is_told(stage: Stage) -> None:
    """Who waits for a message and is gone gets it no more; the other ends of its links end."""
    one = stage.join(1)
    two = stage.join(2, [errno.EAGAIN] * 100)
    stage.mesh.leave(2)
    await until(lambda: stage.kept == 0)
    assert two.told == []
    assert one.ends[2][0].recv(1) == b""
