"""Both cores of the seam side by side: whatever comes and however it is cut, and whatever is sent
to a client that reads when it likes, they cannot be told apart.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.harness.cores import COMPILED, PURE, End, a_wire, counts, needs_compiled
from tests.property.test_frames_streams import (
    budgets,
    client_frame,
    cuttings,
    garbage,
    mutated,
    pieces_of,
    streams,
)
from wssup.server.frames import BINARY, PING, TEXT, Close, Violation, encode
from wssup.server.handoff.record import half_of
from wssup.server.wire import END

pytestmark = needs_compiled

#: Many short messages, as a client sends them that does not wait for answers.
_rushes = st.lists(
    st.tuples(st.sampled_from([0x81, 0x82, 0x89, 0x8A, 0x88]), st.binary(max_size=9)),
    min_size=1,
    max_size=90,
).map(lambda many: b"".join(client_frame(first, data, b"\1\2\3\4") for first, data in many))


def shape(found: Any) -> Any:
    """What was received, with the types of all of it."""
    if isinstance(found, str | bytes):
        return found
    return type(found), [(type(event), event) for event in found]


def received(ends: Sequence[End], budget: int) -> Any:
    """One call of each; both give the same, and are in the same state then."""
    first, second = (end.ours.receive(budget) for end in ends)
    assert shape(first) == shape(second)
    assert half_of(ends[0].ours.unfinished) == half_of(ends[1].ours.unfinished)
    assert counts(ends[0].ours.wire) == counts(ends[1].ours.wire)
    return first


@settings(max_examples=200, deadline=None)
@given(
    streams().map(lambda stream: stream.data) | mutated | garbage | _rushes,
    cuttings,
    budgets,
    st.integers(0, 200) | st.just(1 << 40),
    st.integers(1, 5),
    st.sampled_from([16, 100, 1 << 12, 1 << 16, 1 << 18]),
)
@example(b"\x81\x86\0\0\0\0\xed\xa0\x80abc", [], [1], 100, 3, 100)
@example(b"\x82\xfe\0\x7d" + bytes(4 + 125), [], [1], 1000, 3, 1000)
@example(b"\x82\xfe\0\x7e" + bytes(4 + 126), [], [1], 1000, 3, 1000)
def test_whatever_comes(  # noqa: PLR0917 - hypothesis gives them by position
    data: bytes,
    cutting: list[int],
    most: list[int],
    message_bytes: int,
    fragments: int,
    read_bytes: int,
) -> None:
    """The same events, in the same form, the same counters and the same rest after each read."""
    limits = {"message_bytes": message_bytes, "fragments": fragments, "read_bytes": read_bytes}
    budget = itertools.cycle(most)
    with ExitStack() as stack:
        ends = [End(core, a_wire(core, **limits)) for core in (PURE, COMPILED)]
        for end in ends:
            stack.callback(end.close)
        for piece in pieces_of(data, cutting):
            # What the kernel cannot hold at once comes in the same portions to both.
            for portion in pieces_of(piece, range(0, len(piece), 1 << 14)):
                for end in ends:
                    end.client.sendall(portion)
                while (found := received(ends, next(budget))) != ():
                    if not isinstance(found, str | bytes) and any(
                        isinstance(event, Close | Violation) for event in found
                    ):
                        return
        for end in ends:
            end.client.shutdown(socket.SHUT_WR)
        assert received(ends, 1) == (END,)


_texts = st.text(max_size=20) | st.sampled_from(["x" * 126, "é" * 500, "😀" * 3000, "a\ud800"])
_sizes = st.integers(0, 300) | st.sampled_from([2047, 2048, 2049, 65535, 65536, 300_000])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), _sizes),
        st.tuples(st.just("send_text"), _texts),
        st.tuples(st.just("post"), _sizes),
        st.tuples(st.just("transmit"), st.integers(0, 125)),
        st.tuples(st.just("broadcast"), _sizes),
        st.tuples(st.just("read"), st.integers(1, 1 << 17)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("drop_queue"), st.booleans()),
        st.tuples(st.just("leave"), st.just(0)),
    ),
    max_size=25,
)


def _did(end: End, core: Any, step: str, what: Any) -> Any:
    """Do a step; its outcome."""
    ours = end.ours
    try:
        if step == "send":
            return ours.send(BINARY, b"s" * what)
        if step == "send_text":
            return ours.send_text(what)
        if step == "post":
            return ours.post(encode(TEXT, b"p" * what), what)
        if step == "transmit":
            return ours.transmit(encode(PING, b"t" * what))
        if step == "broadcast":
            found = core.broadcast([ours], encode(TEXT, b"b" * what), what)
            return [[one is ours for one in some] for some in found]
        if step == "flush":
            return ours.flush()
        if step == "drop_queue":
            return ours.drop_queue(keep_first=what)
        if step == "read":
            return end.read_of_what_waits(what)
        return end.client.close()
    except (OSError, UnicodeEncodeError) as error:
        return type(error), str(error)


@settings(max_examples=100, deadline=None)
@given(_steps, st.sampled_from([1, 20_000, 0]))
def test_whatever_is_sent(steps: list[tuple[str, Any]], buffer: int) -> None:
    """The same is answered, queued, counted and seen by the client after each step."""
    with ExitStack() as stack:
        ends = [End(core, a_wire(core), buffer) for core in (PURE, COMPILED)]
        for end in ends:
            stack.callback(end.close)
        for step, what in steps:
            if step == "read" and ends[0].client.fileno() < 0:
                continue
            pure, compiled = (
                _did(end, core, step, what)
                for end, core in zip(ends, (PURE, COMPILED), strict=True)
            )
            assert pure == compiled, step
            queues = [
                None if end.ours.outbox is None else [bytes(part) for part in end.ours.outbox]
                for end in ends
            ]
            assert queues[0] == queues[1]
            assert ends[0].ours.out_bytes == ends[1].ours.out_bytes
            assert counts(ends[0].ours.wire) == counts(ends[1].ours.wire)


def test_the_suite_has_both() -> None:
    """The compiled core that is looked at is not the other one under another name."""
    assert COMPILED.WireConnection.receive is not PURE.WireConnection.receive
    with pytest.raises(AttributeError):
        COMPILED.WireConnection.receive.__code__  # noqa: B018
