"""The seam: what is sent, on real sockets, of both cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

from tests.harness.cores import CORES, SIZES, TEXTS, End, a_wire, an_end, counts
from wssup.server.frames import (
    BINARY,
    PING,
    TEXT,
    encode,
)

pytestmark = pytest.mark.parametrize("core", CORES)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_is_one_frame(end: End, size: int) -> None:
    """Each size has the shortest header that holds it; who sent it need not wait."""
    payload = os.urandom(size)
    expected = encode(BINARY, payload)
    waits = end.ours.send(BINARY, payload)
    assert waits == (end.ours.outbox is not None)
    said = end.said(len(expected) - end.ours.out_bytes)
    while end.ours.outbox is not None:
        left = end.ours.out_bytes
        assert end.ours.flush()
        said += end.said(left - end.ours.out_bytes)
    assert said == expected
    assert counts(end.ours.wire) == (0, 0, 1, size, 0)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_sent_as_utf_8(end: End, text: str) -> None:
    """Text of any characters is sent as bytes, which are counted."""
    assert end.ours.send_text(text) is False
    assert end.said(len(expected := encode(TEXT, text.encode()))) == expected
    assert counts(end.ours.wire) == (0, 0, 1, len(text.encode()), 0)


def test_text_that_cannot_be_sent(end: End) -> None:
    """A lone surrogate is an error of who sends it; nothing is sent, and nothing counted."""
    with pytest.raises(UnicodeEncodeError):
        end.ours.send_text("ok \ud800")
    assert end.waiting() == b""
    assert counts(end.ours.wire) == (0, 0, 0, 0, 0)


def test_what_is_posted_and_transmitted(end: End) -> None:
    """A frame made before is sent as it is: `post` counts it as a message, `transmit` does not."""
    assert end.ours.post(b"\x81\x02hi", 2) is False
    assert end.ours.transmit(b"\x89\x00") is False
    assert end.said(6) == b"\x81\x02hi\x89\x00"
    assert counts(end.ours.wire) == (0, 0, 1, 2, 0)


def test_a_peer_that_does_not_read(core: ModuleType) -> None:
    """What the kernel does not take is queued, in order; only the first to be queued is told to
    wait. A flush sends what fits and says if it did; at its end there is no queue.
    """
    with an_end(core, buffer=1) as end:
        ours, sent, waited = end.ours, b"", 0
        payload = bytes(range(256)) * 8
        while ours.outbox is None:
            sent += encode(BINARY, payload)
            waited += ours.send(BINARY, payload)
        assert waited == 1
        assert ours.send(BINARY, b"a") is False
        assert ours.send_text("é") is False
        assert ours.post(encode(TEXT, b"c"), 1) is False
        assert ours.transmit(encode(PING, b"")) is False
        sent += encode(BINARY, b"a") + encode(TEXT, "é".encode()) + encode(TEXT, b"c")
        sent += encode(PING, b"")
        assert ours.out_bytes == ours.wire.queued == sum(map(len, ours.outbox))
        assert ours.flush() is False
        said = b""
        while ours.outbox is not None:
            said += end.waiting()
            assert ours.flush() is True
            assert ours.out_bytes == ours.wire.queued
        assert ours.flush() is False
        assert said + end.waiting() == sent
        assert counts(ours.wire)[4] == 0


@pytest.mark.parametrize("keep_first", [True, False])
def test_a_queue_that_is_dropped(core: ModuleType, keep_first: bool) -> None:  # noqa: FBT001
    """Nothing is left of it, or the first frame, of which the peer may have a part: then the
    stream is that frame to its end.
    """
    with an_end(core, buffer=1) as end:
        while end.ours.outbox is None:
            end.ours.send(BINARY, b"x" * 3000)
        end.ours.send(BINARY, b"lost")
        end.ours.drop_queue(keep_first=keep_first)
        assert (end.ours.outbox is not None) == keep_first
        assert end.ours.wire.queued == end.ours.out_bytes == sum(map(len, end.ours.outbox or ()))
        said = end.waiting()
        while end.ours.outbox is not None:
            end.ours.flush()
            said += end.waiting()
        if keep_first:
            assert len(said) % len(encode(BINARY, b"x" * 3000)) == 0
        assert b"lost" not in said


@pytest.mark.parametrize(
    "sending",
    [
        lambda ours: ours.send(BINARY, b"x"),
        lambda ours: ours.send(BINARY, b"x" * 5000),
        lambda ours: ours.send_text("x"),
        lambda ours: ours.post(b"\x81\0", 0),
        lambda ours: ours.transmit(b"\x89\0"),
    ],
)
def test_a_broken_socket(core: ModuleType, sending: Callable[[Any], object]) -> None:
    """Sending to a peer that is gone, or to a descriptor that is none, raises what the kernel
    says; no signal ends the process.
    """
    with an_end(core) as end:
        end.client.close()
        with pytest.raises(BrokenPipeError):
            sending(end.ours)
        end.ours.fd = -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            sending(end.ours)
        assert end.ours.outbox is None


def test_one_message_to_many(core: ModuleType) -> None:
    """A broadcast reaches all that have no queue, tells who has one now, had one before, or is
    broken, and counts those that it was sent to.
    """
    wire = a_wire(core)
    with ExitStack() as stack:
        ends = [End(core, wire, buffer=1) for _ in range(5)]
        for end in ends:
            stack.callback(end.close)
        fine, full, queue, gone, other = ends
        while full.ours.outbox is None:
            full.ours.transmit(b"x" * 100)
        full.ours.drop_queue(keep_first=False)
        queue.ours.outbox = deque([b"earlier"])
        queue.ours.out_bytes = wire.queued = 7
        gone.client.close()
        before = counts(wire)
        message = encode(TEXT, b"to all")
        found = core.broadcast((end.ours for end in ends), message, 6)
        assert found == ([full.ours], [queue.ours], [gone.ours])
        assert fine.said(8) == other.said(8) == message
        assert [bytes(part) for part in full.ours.outbox] == [message]
        assert list(queue.ours.outbox) == [b"earlier"]
        assert counts(wire)[2:] == (before[2] + 3, before[3] + 18, 7 + 8)
        assert core.broadcast([], message, 6) == ([], [], [])
