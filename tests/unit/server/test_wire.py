"""The seam: what is received, on real sockets, and its objects; of both cores."""

from __future__ import annotations

import gc
import os
import socket
import tracemalloc
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

from tests.harness import cores
from tests.harness.cores import CORES, SIZES, TEXTS, End, a_wire, an_end, counts
from tests.property.test_frames_streams import client_frame
from wssup.server.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Close,
    Ping,
    Pong,
    Unfinished,
    Violation,
    encode,
)
from wssup.server.wire import END

pytestmark = pytest.mark.parametrize("core", CORES)


def frame(opcode: int, payload: bytes, mask: bytes = b"\1\2\xf3\x84") -> bytes:
    """A client's."""
    return client_frame(0x80 | opcode, payload, mask)


# Receiving.


@pytest.mark.parametrize("size", [size for size in SIZES if size < 4000])
def test_a_message_in_one_read(end: End, size: int) -> None:
    """A frame that is a message comes out as that, bare: binary as bytes, text as str; it is
    counted, with the bytes of its payload.
    """
    payload = os.urandom(size)
    end.client.send(frame(BINARY, payload))
    assert end.ours.receive(1) == payload
    end.client.send(frame(TEXT, b"z" * size))
    assert end.ours.receive(1) == "z" * size
    assert counts(end.ours.wire) == (2, 2 * size, 0, 0, 0)
    assert end.ours.unfinished is None


@pytest.mark.parametrize("text", TEXTS)
def test_text_in_one_read(core: ModuleType, text: str) -> None:
    """Text of any characters comes out as it was; counted are its bytes."""
    with an_end(core, read_bytes=1 << 16) as end:
        end.client.send(frame(TEXT, text.encode()))
        assert end.ours.receive(1) == text
        assert counts(end.ours.wire)[:2] == (1, len(text.encode()))


def test_a_message_that_nobody_waits_for(end: End) -> None:
    """`forward` is `receive` then: messages and all else come out."""
    for opcode, payload, found in (
        (TEXT, b"text", "text"),
        (BINARY, b"binary", b"binary"),
        (PING, b"", (Ping(b""),)),
    ):
        end.client.send(frame(opcode, payload))
        assert end.ours.forward(1) == found
    assert end.ours.forward(1) == ()
    end.client.close()
    assert end.ours.forward(1) == (END,)


def test_control_frames_in_one_read(end: End) -> None:
    """A control frame comes out as a tuple of one event, and is no message."""
    for data, event in (
        (frame(PING, b"p" * 125), Ping(b"p" * 125)),
        (frame(PONG, b""), Pong(b"")),
        (frame(CLOSE, b"\x03\xe8bye"), Close(1000, "bye")),
        (frame(CLOSE, b"\x03"), Violation(1002, "close code 3, which nobody may send")),
    ):
        end.client.send(data)
        found = end.ours.receive(1)
        assert found == (event,)
        assert type(found) is tuple
        assert type(found[0]) is type(event)
    assert counts(end.ours.wire) == (0, 0, 0, 0, 0)


def test_nothing_to_read(end: End) -> None:
    """A socket that has nothing says nothing, and nothing is wrong."""
    assert end.ours.receive(1) == ()


@pytest.mark.parametrize("how", ["closed", "reset", "gone"])
def test_the_peer_is_gone(core: ModuleType, how: str) -> None:
    """After an end of file, a reset, or of a descriptor that is none, `END` comes."""
    with an_end(core) as end:
        if how == "closed":
            end.client.shutdown(socket.SHUT_WR)
        elif how == "reset":
            end.ours.transmit(b"unread")
            end.client.close()
        else:
            end.ours.fd = -1
        assert end.ours.receive(1) == (END,)


def test_several_frames_in_one_read(end: End) -> None:
    """They come out as a list, in their order."""
    end.client.send(
        frame(TEXT, b"one") + frame(PING, b"two") + frame(BINARY, b"three") + frame(TEXT, b"")
    )
    assert end.ours.receive(10) == ["one", Ping(b"two"), b"three", ""]
    assert end.ours.unfinished is None
    assert counts(end.ours.wire)[:2] == (3, 8)


def test_a_budget(end: End) -> None:
    """No more frames are decoded than asked for; the others come in the next calls, which read
    nothing meanwhile.
    """
    end.client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(7)))
    assert end.ours.receive(3) == ["0", "1", "2"]
    assert end.ours.unfinished.more
    end.client.send(frame(TEXT, b"7"))
    assert end.ours.receive(3) == ["3", "4", "5"]
    assert end.ours.receive(3) == ["6"]
    assert end.ours.unfinished is None
    assert end.ours.receive(3) == "7"
    assert counts(end.ours.wire)[:2] == (8, 8)


def test_fragments_and_parts(end: End) -> None:
    """Messages in fragments, frames in several reads, and control frames between them."""
    data = (
        client_frame(TEXT, "é".encode()[:1], b"abcd")
        + frame(PING, b"!")
        + client_frame(0x80, "é".encode()[1:], b"dcba")
        + frame(BINARY, b"whole")
    )
    found: list[Any] = []
    for byte in data:
        end.client.send(bytes((byte,)))
        found += end.ours.receive(5)
    assert found == [Ping(b"!"), "é", b"whole"]
    assert counts(end.ours.wire)[:2] == (2, 7)


def test_whole_frames_before_a_part(end: End) -> None:
    """What is whole comes out; the beginning of the next frame is kept."""
    last = frame(TEXT, b"last")
    end.client.send(frame(TEXT, b"first") + last[:5])
    assert end.ours.receive(9) == ["first"]
    assert not end.ours.unfinished.more
    assert end.ours.unfinished.rest == last[:5]
    end.client.send(last[5:])
    assert end.ours.receive(9) == ["last"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xc3"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(BINARY, b"x" * 1001), 1009),
        (encode(TEXT, b"without a mask"), 1002),
        (client_frame(0xC1, b"compressed", b"mask"), 1002),
        (client_frame(0x83, b"no opcode", b"mask"), 1002),
        (client_frame(0x09, b"half a ping", b"mask"), 1002),
        (client_frame(0x89, b"x" * 126, b"mask"), 1002),
        (b"\x82\xfe\0\x05maskabcde", 1002),
        (b"\x82\xff\x80" + bytes(7) + b"mask", 1002),
        (client_frame(0x80, b"of nothing", b"mask"), 1002),
    ],
)
def test_violations(core: ModuleType, data: bytes, code: int) -> None:
    """What breaks the protocol or a limit is a `Violation`, alone or behind messages, which come
    out before it.
    """
    for before in (b"", frame(TEXT, b"fine")):
        with an_end(core, message_bytes=1000) as end:
            end.client.send(before + data)
            *messages, violation = end.ours.receive(9)
            assert messages == ["fine"] * bool(before)
            assert type(violation) is Violation
            assert violation.code == code


def test_small_limits(core: ModuleType) -> None:
    """The largest message comes out, one byte more is too much; a control frame may be larger than
    any message.
    """
    for limit in (0, 1, 100, 125, 126, 3000):
        with an_end(core, message_bytes=limit) as end:
            end.client.send(frame(BINARY, b"x" * limit))
            found = end.ours.receive(1)
            assert found == b"x" * limit
            end.client.send(frame(PING, b"y" * 125))
            assert list(end.ours.receive(1)) == [Ping(b"y" * 125)]
            end.client.send(frame(BINARY, b"x" * (limit + 1)))
            assert [event.code for event in end.ours.receive(1)] == [1009]


def test_what_another_one_left_in_the_buffer(core: ModuleType) -> None:
    """A frame that announces more than was read gets nothing of what an earlier read left behind
    it.
    """
    wire = a_wire(core)
    with ExitStack() as stack:
        ends = [End(core, wire) for _ in range(2)]
        for end in ends:
            stack.callback(end.close)
        ends[0].client.send(frame(BINARY, b"secret" * 20))
        assert ends[0].ours.receive(1) == b"secret" * 20
        ends[1].client.send(frame(BINARY, b"x" * 100)[:20])
        assert ends[1].ours.receive(1) == []
        assert len(ends[1].ours.unfinished.body) == 14


def test_what_was_read_before(end: End) -> None:
    """Bytes that came by other ways are decoded and counted, and what is left of them is first."""
    assert end.ours.decode(frame(TEXT, "é".encode()) + frame(BINARY, b"b"), 5) == ["é", b"b"]
    assert counts(end.ours.wire)[:2] == (2, 3)
    end.ours.unfinished = Unfinished(frame(TEXT, b"early") + frame(TEXT, b"bird"))
    end.ours.unfinished.more = True
    assert end.ours.receive(1) == ["early"]
    assert end.ours.receive(1) == ["bird"]
    assert end.ours.unfinished is None


def test_a_rest_larger_than_the_buffer(core: ModuleType) -> None:
    """What was left of a larger read elsewhere is decoded, too."""
    with an_end(core, read_bytes=16) as end:
        end.ours.unfinished = Unfinished(b"".join(frame(TEXT, b"%03d" % n) for n in range(50)))
        end.ours.unfinished.more = True
        found: list[Any] = []
        while end.ours.unfinished is not None:
            found += end.ours.receive(7)
        assert found == [f"{number:03}" for number in range(50)]


# Objects.


def test_the_buffer_stays_where_it_is(core: ModuleType) -> None:
    """The kernel writes into it: nobody can resize it while its wire lives."""
    wire = a_wire(core, read_bytes=100)
    with pytest.raises(BufferError):
        wire.buffer.append(1)
    assert len(wire.view) == len(wire.buffers[0]) == 100


def test_counters_can_be_set(core: ModuleType) -> None:
    """The pump sets them to zero when it has written them down."""
    wire = a_wire(core)
    wire.messages_in = wire.messages_out = wire.bytes_in = wire.bytes_out = 1 << 40
    wire.queued += 5
    assert counts(wire) == (1 << 40, 1 << 40, 1 << 40, 1 << 40, 5)


def test_cycles_are_found(core: ModuleType) -> None:
    """Connections and wires that refer to themselves are no leak."""
    wire = a_wire(core)
    with_queue = End(core, wire)
    ours = with_queue.ours
    with_queue.close()
    ours.inbox = ours
    ours.unfinished = ours.outbox = [ours]
    wire.connections = [ours]
    gone = weakref.ref(ours), weakref.ref(wire)
    del ours, with_queue, wire
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ours: ours.send(BINARY, "text"),
        lambda ours: ours.send("1", b""),
        lambda ours: ours.send(BINARY),
        lambda ours: ours.send_text(3),
        lambda ours: ours.post(b""),
        lambda ours: ours.transmit(7),
        lambda ours: ours.decode(3, 1),
        lambda ours: ours.decode(),
        lambda ours: ours.receive(),
    ],
)
def test_wrong_arguments(end: End, wrong: Callable[[Any], object]) -> None:
    """What is not of the kind that is asked for raises, and the connection works as before."""
    with pytest.raises((TypeError, AttributeError)):
        wrong(end.ours)
    end.client.send(frame(TEXT, b"fine"))
    assert end.ours.receive(1) == "fine"


def test_a_connection_without_a_wire(core: ModuleType) -> None:
    """Whoever forgets it gets an exception."""
    ours = cores.subclass(core, "WireConnection")()
    for method in (ours.receive, ours.send_text):
        with pytest.raises(AttributeError):
            method("1")


def test_nothing_is_left_of_messages(core: ModuleType) -> None:
    """Thousands of messages, violations, control frames and errors later no more memory is used."""
    bad = frame(TEXT, b"\xff" * 40)
    several = frame(TEXT, b"a" * 40) + frame(PING, b"b") + frame(BINARY, b"c" * 300) + bad[:9]
    with an_end(core) as end:
        ours = end.ours

        def traffic(rounds: int) -> None:
            for _ in range(rounds):
                for data in (frame(TEXT, "é".encode() * 50), frame(CLOSE, b""), bad, several):
                    end.client.send(data)
                    ours.receive(2)
                    if ours.unfinished is not None:
                        ours.receive(9)
                    ours.unfinished = None
                ours.send(BINARY, b"d" * 300)
                ours.send_text("é" * 300)
                end.said(304 + 604)
                with pytest.raises(UnicodeEncodeError):
                    ours.send_text("\udc00")
                number, ours.fd = ours.fd, -1
                with pytest.raises(OSError, match="descriptor"):
                    ours.transmit(b"e")
                ours.receive(1)
                ours.fd = number

        traffic(20)
        tracemalloc.start()
        try:
            traffic(20)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            traffic(300)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < 3000
        finally:
            tracemalloc.stop()
