"""The link of a handoff session: batches of records and descriptors, however they are cut; and what
is no batch, or no answer.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.harness import raw
from tests.harness.descriptors import no_descriptors_left, open_descriptors
from tests.harness.moving import (
    Plain,
    await_alone,
    begin_alone,
    move,
    two,
)
from tests.harness.served import served
from tests.unit.server.peer import OFF, Peer, everything_read, opened
from wssup.errors import MessageError
from wssup.server.handoff.answers import Answer, AnswerKind, pack_answer
from wssup.server.handoff.link import BATCH, Incoming, Outgoing, Progress


@contextmanager
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a link."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        yield one, other


@contextmanager
def files(count: int) -> Iterator[list[int]]:
    """Descriptors that can be told apart: each of a file of its own."""
    made = [os.memfd_create(str(n), os.MFD_CLOEXEC) for n in range(count)]
    try:
        yield made
    finally:
        for descriptor in made:
            os.close(descriptor)


def read_all(incoming: Incoming) -> list[tuple[bytes, int]]:
    """What there is."""
    found: list[tuple[bytes, int]] = []
    with contextlib.suppress(BlockingIOError):
        while (more := incoming.read()) is not None:
            found += more
    return found


def same_file(one: int, other: int) -> bool:
    return os.fstat(one).st_ino == os.fstat(other).st_ino


# Batches.


@pytest.mark.parametrize("sizes", [[1], [0, 1, 0], [200] * BATCH, [500_000, 0, 3 << 20]])
@pytest.mark.parametrize("batches", [1, 3])
def test_batches_arrive_whole(sizes: list[int], batches: int) -> None:
    """Records arrive as they were sent, each with its own descriptor, however often the kernel has
    no room in between.
    """
    records = [bytes([n % 256]) * size for n, size in enumerate(sizes * batches)]
    with no_descriptors_left(), link() as (one, other), files(len(records)) as made:
        outgoing, incoming = Outgoing(one), Incoming(other)
        for at in range(0, len(records), len(sizes)):
            outgoing.add(records[at : at + len(sizes)], made[at : at + len(sizes)])
        found, rounds = read_all(incoming), 0
        while outgoing.flush() is not Progress.DONE:
            found += read_all(incoming)
            rounds += 1
        found += read_all(incoming)
        assert (rounds > 1) is (sum(sizes) > 1 << 20)
        assert [record for record, _ in found] == records
        for (_, came), sent in zip(found, made, strict=True):
            assert came not in made
            assert same_file(came, sent)
            assert not os.get_inheritable(came)
            os.close(came)


@pytest.mark.parametrize("seed", range(5))
def test_batches_cut_anywhere(seed: int) -> None:
    """The bytes of batches may come in any pieces; descriptors come with the first byte of each."""
    chance = random.Random(seed)
    with no_descriptors_left(), link() as (one, other), files(6) as made:
        incoming = Incoming(other)
        found: list[tuple[bytes, int]] = []
        expected: list[bytes] = []
        for first in (0, 3):
            records = [chance.randbytes(chance.randrange(50)) for _ in range(3)]
            data, rights = batch(records), made[first : first + 3]
            while data:
                cut = chance.randrange(1, len(data) + 1)
                send(one, data[:cut], rights)
                data, rights = data[cut:], []
                if chance.random() < 0.5:
                    found += read_all(incoming)
            expected += records
        found += read_all(incoming)
        assert [record for record, _ in found] == expected
        for (_, came), sent in zip(found, made, strict=True):
            assert same_file(came, sent)
            os.close(came)


def batch(records: list[bytes]) -> bytes:
    """A batch as it is sent; see the head of link.py."""
    body = b"".join(struct.pack("!I", len(record)) + record for record in records)
    return struct.pack("!IH", 2 + len(body), len(records)) + body


def send(end: socket.socket, data: bytes, rights: list[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights))]
    assert end.sendmsg([data], ancillary if rights else []) == len(data)


def test_the_end() -> None:
    """Both sides see the other's end, what was sent before it first."""
    with no_descriptors_left(), files(1) as made, link() as (one, other):
        outgoing, incoming = Outgoing(one), Incoming(other)
        outgoing.add([b"x"], made)
        assert outgoing.flush() is Progress.DONE
        one.close()
        found = incoming.read()
        assert found is not None
        ((record, came),) = found
        assert record == b"x"
        os.close(came)
        assert incoming.read() is None
    with link() as (one, other), files(1) as made:
        other.close()
        outgoing = Outgoing(one)
        outgoing.add([b"x"], made)
        with pytest.raises(OSError):  # noqa: PT011 - whichever; it tells nothing
            outgoing.flush()


GARBAGE = {
    "no records": struct.pack("!IH", 2, 0),
    "too many": struct.pack("!IH", 1000, BATCH + 1),
    "no size": struct.pack("!IH", 1, 1),
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "a record too long": struct.pack("!IHI", 10, 1, 5) + bytes(4),
    "a record too short": struct.pack("!IHI", 10, 1, 3) + bytes(4),
    "half a size": struct.pack("!IH", 5, 1) + bytes(3),
    "no descriptor": batch([b"x"]),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(name: str) -> None:
    """What is no batch is an error, and descriptors that came with it can be closed."""
    with no_descriptors_left(), files(2) as made, link() as (one, other):
        incoming = Incoming(other)
        send(one, GARBAGE[name], [] if name == "no descriptor" else made)
        with pytest.raises(MessageError):
            read_all(incoming)
        incoming.close()


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_behind_a_batch(name: str) -> None:
    """The same behind the last piece of a batch that was in order: its descriptors do not leak."""
    with no_descriptors_left(), files(2) as made, link() as (one, other):
        incoming = Incoming(other)
        data = batch([b"x", b"y"])
        send(one, data[:5], made)
        assert read_all(incoming) == []
        send(one, data[5:] + GARBAGE[name], [])
        found: list[tuple[bytes, int]] = []
        with pytest.raises(MessageError):
            read_two(incoming, found)
        for _, came in found:
            os.close(came)
        incoming.close()


def read_two(incoming: Incoming, found: list[tuple[bytes, int]]) -> None:
    """What is whole may be had, and the error at the next read."""
    for _ in range(2):
        found += incoming.read() or []


def test_too_many_descriptors() -> None:
    """More descriptors than a batch may have are an error and do not leak."""
    with no_descriptors_left(), files(BATCH + 10) as made, link() as (one, other):
        incoming = Incoming(other)
        send(one, batch([b"x"]), made)
        with pytest.raises(MessageError):
            read_all(incoming)
        incoming.close()


# Garbage at workers.


async def test_garbage_to_a_receiver(tmp_path: Path) -> None:
    """Whatever comes that is no batch ends the session, counts nothing, leaks nothing, and disturbs
    nobody.
    """
    cases = [*GARBAGE.values(), batch([b"no record"]), batch([b""]), batch([b"\x9c" * 12])]
    async with served(tmp_path, Plain(), heartbeat=OFF) as new, opened(new, 3) as peers:
        await everything_read()
        for n, data in enumerate(cases):
            with no_descriptors_left():
                session, end = await_alone(new)
                with end, files(1) as made:
                    send(end, data, [] if data == GARBAGE["no descriptor"] else made)
                    taken = await session.took_over()
                    assert end.recv(100) == b""
            assert (taken.taken, taken.failed) == (0, 0)
            for peer in peers:
                assert await peer.ask("x") == f"{n + 1} x"
        assert (new.counts.moved_in, new.counts.active, new.engine.count) == (0, 3, 3)


async def test_a_record_whose_descriptor_is_no_socket(tmp_path: Path) -> None:
    """A good record with a descriptor of something else is taken and is a lost connection: nothing
    hangs and nothing leaks.
    """
    async with two(tmp_path, Plain(), heartbeat=OFF) as both, opened(both.old, 1) as peers:
        await everything_read()
        before = len(open_descriptors())
        session, link_ = begin_alone(both.old)
        incoming, away = await_alone(both.new)
        with link_, away:
            await trio.lowlevel.wait_readable(link_)
            data, ancillary, _, _ = link_.recvmsg(1 << 16, 1000)
            for _, _, rights in ancillary:
                for descriptor in memoryview(rights).cast("i"):
                    os.close(descriptor)
            with files(1) as made:
                send(away, data, made)
                await everything_read()
            await both.new.until(lambda c: c.closed_by_reason["lost"] == 1)
            both.old.engine.recall(session.number)
            await session.handed_over()
            away.close()
            assert (await incoming.took_over()).taken == 1
        assert len(open_descriptors()) == before
        assert await peers[0].ask("x") == "1 x"
        assert both.new.engine.count == 0


BAD_ANSWERS = {
    "a kind": struct.pack("!HH", 9, 1),
    "nothing": struct.pack("!HH", AnswerKind.TAKEN, 0),
    "too many": pack_answer(Answer(AnswerKind.TAKEN, 60_000)),
    "text": b"hello, world",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_garbage_to_a_sender_with_nothing_out(tmp_path: Path, name: str) -> None:
    """Answers that make no sense end the session; nobody is out, so everybody is alive."""
    async with two(tmp_path, Plain(), heartbeat=OFF) as both, opened(both.old, 20) as peers:
        await everything_read()
        assert await move(both.old, both.new) == 20
        session, end = begin_alone(both.old)
        with end:
            await session.swept()
            end.send(BAD_ANSWERS[name])
            given = await session.handed_over()
        assert given.moved == 0
        assert given.error
        for peer in peers:
            assert await peer.ask("x") == "1 x"


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_garbage_to_a_sender(tmp_path: Path, name: str) -> None:
    """Answers that make no sense leave open whose those are that are out: their sender closes and
    counts them, unread; all others live on.
    """
    count = 60
    async with served(tmp_path, Plain(), heartbeat=OFF) as old, opened(old, count) as peers:
        await everything_read()
        session, end = begin_alone(old)
        with end:
            await trio.lowlevel.wait_readable(end)
            await everything_read()
            end.send(BAD_ANSWERS[name])
            given = await session.handed_over()
            assert given.moved == 0
            assert given.error
        ends = 0
        for peer in peers:
            ends += await is_at_its_end(peer)
        counts = await old.until(lambda c: c.active == count - ends)
        assert counts.closed == ends > 0
        assert old.engine.count == count - ends


async def is_at_its_end(peer: Peer) -> bool:
    """Whether a connection was ended; if not, it answers."""
    with contextlib.suppress(trio.BrokenResourceError):
        await peer.say("x")
    opcode, payload = await peer.frame()
    assert opcode < 0 or (opcode, payload) == (raw.TEXT, b"1 x")
    return opcode < 0
