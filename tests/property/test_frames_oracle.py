"""The decoder, the encoder and the handshake beside wsproto's, on what is in order and on what is
not.

Where they differ on purpose is named here, and nowhere else:

- Close code 1014 (bad gateway) is taken: it is in the registry of RFC 6455 section 11.7; wsproto
  1.x does not know it; `Knowing` does.
- A header that breaks the protocol is told when it can be seen; wsproto waits for the rest of the
  header, the mask, and for data frames for some payload. `_PADDING` is what it waits for.
- Limits: wsproto has none, so there are none here.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed, XorMaskerSimple

from tests.property.test_frames_streams import (
    Stream,
    budgets,
    client_frame,
    codes,
    cuttings,
    decoded,
    garbage,
    masks,
    messages,
    mutated,
    pieces_of,
    streams,
)
from wssup.server import frames, handshake
from wssup.server.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Close,
    Decoder,
    Event,
    Ping,
    Pong,
    Violation,
    apply_mask,
    close_payload,
    encode,
)

_ONLY_OURS = 1014
_PADDING = bytes(16)
_DECODER = Decoder(message_bytes=1 << 64, fragments=1 << 40)


class Knowing(FrameProtocol):
    """wsproto's server, which takes 1014 for what it takes 1013 for."""

    def __init__(self) -> None:
        super().__init__(client=False, extensions=[])

    def _process_close(self, frame: Frame) -> Frame:
        payload = frame.payload
        assert isinstance(payload, bytes)
        if int.from_bytes(payload[:2], "big") != _ONLY_OURS:
            return super()._process_close(frame)
        found = super()._process_close(frame._replace(payload=b"\x03\xf5" + payload[2:]))
        return found._replace(payload=(_ONLY_OURS, str(found.payload[1])))


class Peer:
    """One side of wsproto: bytes in, our events out."""

    def __init__(self, protocol: FrameProtocol) -> None:
        self.protocol = protocol
        self.events: list[Event] = []
        #: The code of the error that ended it.
        self.error: int | None = None
        self._parts: list[str | bytes] = []

    def read(self, data: bytes) -> None:
        """Take bytes, up to an error."""
        if self.error is not None:
            return
        self.protocol.receive_bytes(data)
        try:
            for frame in self.protocol.received_frames():
                self._take(frame.opcode, frame.payload, ended=frame.message_finished)
        except ParseFailed as error:
            self.error = int(error.code)

    def _take(self, opcode: Opcode, payload: object, *, ended: bool) -> None:
        if isinstance(payload, tuple):
            self.events.append(Close(int(payload[0]), payload[1]))
            return
        assert isinstance(payload, str | bytes)
        if opcode in {Opcode.PING, Opcode.PONG}:
            assert isinstance(payload, bytes)
            self.events.append(Ping(payload) if opcode is Opcode.PING else Pong(payload))
            return
        self._parts.append(payload)
        if ended:
            text = "".join(part for part in self._parts if isinstance(part, str))
            binary = b"".join(part for part in self._parts if isinstance(part, bytes))
            self.events.append(text if opcode is Opcode.TEXT else binary)
            self._parts = []


def _compare(pieces: Sequence[bytes], most: Sequence[int]) -> None:
    """The same events, and the same close code of what is wrong."""
    ours = decoded(pieces, itertools.cycle(most), _DECODER)
    peer = Peer(Knowing())
    for piece in pieces:
        peer.read(piece)
    broken = None
    last = ours[-1] if ours else None
    if isinstance(last, Violation):
        ours.pop()
        broken = last.code
        if peer.error is None:
            peer.read(_PADDING)
    assert ours == peer.events
    assert list(map(type, ours)) == list(map(type, peer.events))
    assert broken == peer.error


#: Parts of texts, some of which are none.
_parts = st.one_of(
    st.text(max_size=5).map(str.encode),
    st.sampled_from([b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\xed\xa0", b"\xff", b"\xc0\x80"]),
    st.binary(max_size=5),
)
_closing = st.one_of(
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.sampled_from([999, 1000, 1004, 1005, 1006, 1012, 1014, 1015, 2999, 3000, 5000])
        | st.integers(0, 65535),
        _parts,
    ),
    st.binary(max_size=2),
)


@st.composite
def loose_frames(draw: st.DrawFn) -> bytes:
    """A frame that breaks a rule now and then."""
    kind = draw(st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 10, 0, 1, 3, 11]))
    final = draw(st.sampled_from([0x80, 0x80, 0]))
    reserved = draw(st.sampled_from([0] * 20 + [0x10, 0x20, 0x40]))
    payload = draw(_closing if kind == CLOSE else _parts)
    frame = client_frame(final | reserved | kind, payload, draw(masks))
    size = len(payload)
    match draw(st.sampled_from(["in order"] * 20 + ["not masked", "two bytes", "eight bytes"])):
        case "not masked":
            return frame[:1] + bytes((size,)) + payload
        case "two bytes":
            return frame[:1] + b"\xfe" + size.to_bytes(2, "big") + frame[2:]
        case "eight bytes":
            return frame[:1] + b"\xff" + size.to_bytes(8, "big") + frame[2:]
        case _:
            return frame


@settings(max_examples=100, deadline=None)
@given(streams(), cuttings, budgets)
def test_streams_in_order(stream: Stream, cutting: list[int], most: list[int]) -> None:
    """What we find in a stream, wsproto finds."""
    _compare(pieces_of(stream.data, cutting), most)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(loose_frames() | messages().map(lambda message: message.data), max_size=6),
    cuttings,
    budgets,
)
@example([b"\x01\x81\0\0\0\0\xe2", b"\x80\x81\0\0\0\0\xff"], [], [1])
@example([b"\x88\x83\0\0\0\0\x03\xf6\xe2"], [], [1])
def test_frames_that_break_rules(data: list[bytes], cutting: list[int], most: list[int]) -> None:
    """We and wsproto find the same messages before what is wrong, and close with the same code."""
    _compare(pieces_of(b"".join(data), cutting), most)


@settings(max_examples=150, deadline=None)
@given(mutated | garbage, cuttings, budgets)
def test_damaged_streams_and_garbage(data: bytes, cutting: list[int], most: list[int]) -> None:
    """So we do for whatever bytes come."""
    _compare(pieces_of(data, cutting), most)


def test_each_close_code() -> None:
    """We and wsproto take the same close codes, but for the one that is named above."""
    differ = set()
    for code in [*range(5100), *range(5100, 65536, 97)]:
        data = client_frame(0x80 | CLOSE, code.to_bytes(2, "big"), b"mask")
        (ours,) = _DECODER.decode(data, None, 10)[0]
        peer = Peer(FrameProtocol(client=False, extensions=[]))
        peer.read(data)
        if isinstance(ours, Violation):
            assert (peer.events, peer.error) == ([], ours.code)
        elif peer.events != [ours]:
            differ.add(code)
    assert differ == {_ONLY_OURS}


# From wsproto's client, and to it.


@settings(max_examples=75, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=9) | st.binary(max_size=9), st.integers(0, 9), st.integers(0, 9))
    ),
    st.lists(st.binary(max_size=125), max_size=5),
    codes,
    st.text(max_size=50),
)
def test_what_its_client_sends(
    bodies: list[tuple[str | bytes, int, int]], controls: list[bytes], code: int, reason: str
) -> None:
    """What wsproto's client sends, in parts and with pings and pongs among them, arrives."""
    client = FrameProtocol(client=True, extensions=[])
    data, events = bytearray(), list[Event]()
    payloads = iter(controls)
    for message, *cuts in bodies:
        places = sorted(min(cut, len(message)) for cut in cuts)
        for start, end in itertools.pairwise([0, *places, len(message)]):
            for payload in itertools.islice(payloads, 1):
                data += client.ping(payload) + client.pong(payload)
                events += [Ping(payload), Pong(payload)]
            data += client.send_data(message[start:end], fin=False)
        data += client.send_data(message[:0], fin=True)
        events.append(message)
    data += client.close(code, reason)
    found, state = _DECODER.decode(bytes(data), None, 1 << 20)
    assert state is None
    close = found.pop()
    assert isinstance(close, Close)
    assert close.code == code
    assert reason.startswith(close.reason)
    assert found == events


@settings(max_examples=75, deadline=None)
@given(
    st.lists(
        st.text(max_size=10)
        | st.binary(max_size=10)
        | st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes)
        | st.builds(Ping, st.binary(max_size=125))
        | st.builds(Pong, st.binary(max_size=125)),
        max_size=6,
    ),
    codes | st.none(),
    st.text(max_size=200),
)
def test_what_its_client_receives(events: list[Event], code: int | None, reason: str) -> None:
    """What is encoded arrives at wsproto's client; a close frame is as its server sends it."""
    peer = Peer(FrameProtocol(client=True, extensions=[]))
    opcodes: dict[type, int] = {str: TEXT, bytes: BINARY, Ping: PING, Pong: PONG}
    for event in events:
        payload = event.encode() if isinstance(event, str) else event
        if isinstance(payload, Ping | Pong):
            payload = payload.payload
        assert isinstance(payload, bytes)
        peer.read(encode(opcodes[type(event)], payload))
    last = encode(CLOSE, close_payload(code, reason))
    peer.read(last)
    assert peer.error is None
    close = peer.events.pop()
    assert isinstance(close, Close)
    assert close.code == (1005 if code is None else code)
    assert reason.startswith(close.reason)
    assert peer.events == events
    # wsproto refuses a reason without a code.
    theirs = FrameProtocol(client=False, extensions=[])
    assert last == theirs.close(code, None if code is None else reason)


_fields = st.lists(
    st.tuples(
        st.text("XYZxyz", min_size=1, max_size=5).map(lambda name: f"X-{name}".encode()),
        st.text('aZ09 ;=,"/', max_size=10).map(lambda value: value.strip().encode()),
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcd"), unique=True), st.integers(0, 3), _fields, _fields)
def test_its_client_and_our_handshake(
    proposed: list[str],
    chosen: int,
    asked: list[tuple[bytes, bytes]],
    answered: list[tuple[bytes, bytes]],
) -> None:
    """A request of wsproto's client is taken with all that it says, and what accepts it is what
    the client waits for.
    """
    client = WSConnection(ConnectionType.CLIENT)
    sent = client.send(Request("example.com", "/a?b", subprotocols=proposed, extra_headers=asked))
    head = handshake.examine(sent, 100)
    assert head.target == b"/a?b"
    assert head.tokens(b"sec-websocket-protocol") == proposed
    assert head.headers[len(head.headers) - len(asked) :] == [(n.lower(), v) for n, v in asked]
    subprotocol = proposed[chosen] if chosen < len(proposed) else None
    client.receive_data(
        handshake.accept_response(head, subprotocol=subprotocol, extra_headers=answered)
    )
    (event,) = client.events()
    assert isinstance(event, AcceptConnection)
    assert event.subprotocol == subprotocol
    assert [(n.lower(), v) for n, v in event.extra_headers if n.lower().startswith(b"x-")] == [
        (name.lower(), value) for name, value in answered
    ]


# Masks.


def _without_speedups() -> ModuleType:
    """The module as it is where websockets has no compiled part."""
    spec = importlib.util.spec_from_file_location("frames_without_speedups", frames.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "websockets.speedups", None)
        spec.loader.exec_module(module)
    return module


_FALLBACK = _without_speedups()


def test_there_are_two_ways_to_mask() -> None:
    """The fallback is another function than the compiled one, where that exists."""
    compiled = importlib.util.find_spec("websockets.speedups") is not None
    assert compiled == (apply_mask.__module__ != frames.__name__)
    assert _FALLBACK.apply_mask.__module__ == "frames_without_speedups"


@settings(max_examples=75, deadline=None)
@given(
    st.binary(max_size=70) | st.integers(0, 5000).map(lambda size: (b"\0\x80\xff" * size)[:size]),
    masks,
    st.sampled_from([bytes, bytearray, memoryview]),
    st.sampled_from([bytes, bytearray]),
)
def test_masks(
    data: bytes, mask: bytes, kind: Callable[[bytes], bytes], mask_kind: Callable[[bytes], bytes]
) -> None:
    """The compiled function, the fallback and wsproto's do what section 5.3 says, with each kind of
    bytes; twice is not at all.
    """
    expected = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    for function in (apply_mask, _FALLBACK.apply_mask):
        found = function(kind(data), mask_kind(mask))
        assert type(found) is bytes
        assert found == expected
        assert function(found, mask) == data
    assert XorMaskerSimple(mask).process(bytearray(data)) == expected


@settings(max_examples=50, deadline=None)
@given(streams(), cuttings)
def test_streams_without_the_compiled_mask(stream: Stream, cutting: list[int]) -> None:
    """The decoder with the fallback finds the same."""
    decoder = _FALLBACK.Decoder(message_bytes=1 << 40, fragments=1 << 40)
    state, found = None, []
    for piece in pieces_of(stream.data, cutting):
        events, state = decoder.decode(piece, state, 1 << 20)
        found += events
    assert state is None
    assert found == stream.events
    assert [type(event).__name__ for event in found] == [
        type(event).__name__ for event in stream.events
    ]
