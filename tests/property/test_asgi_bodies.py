"""Bodies of HTTP requests against h11: what is accepted here, h11 reads the same way."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wssup.server import handshake
from wssup.server.asgi.bodies import Body, Chunked, Sized, body_of
from wssup.server.handshake import BadRequestError, PlainHttpError

_HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_MOST = 1 << 20

pieces = st.lists(st.integers(1, 40), max_size=20)


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """The same bytes in pieces."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


def take_all(body: Body, parts: list[bytes]) -> tuple[bytes, bytes]:
    """What is in a body, and what comes behind it."""
    buffer = bytearray()
    found = b""
    for part in parts:
        buffer += part
        found += body.take(buffer)
    return found, bytes(buffer)


def by_h11(data: bytes) -> tuple[bytes, bytes] | None:
    """The same, of a whole request; ``None``: it is refused or not complete."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    found = b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None
            if isinstance(event, h11.Data):
                found += bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return found, bytes(connection.trailing_data[0])
    except h11.RemoteProtocolError:
        return None


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.binary(max_size=30), pieces)
def test_chunks_that_h11_sends(chunks: list[bytes], behind: bytes, sizes: list[int]) -> None:
    """A body that h11 sends in chunks comes out whole, however it is cut on its way; what is behind
    it stays.
    """
    client = h11.Connection(h11.CLIENT)
    client.send(
        h11.Request(
            method="POST", target="/", headers=[("Host", "x"), ("Transfer-Encoding", "chunked")]
        )
    )
    data = b"".join(client.send(h11.Data(data=chunk)) or b"" for chunk in chunks)
    data += client.send(h11.EndOfMessage()) or b""
    body = Chunked(_MOST)
    assert take_all(body, split(data + behind, sizes)) == (b"".join(chunks), behind)
    assert body.is_complete


@given(st.binary(max_size=60), st.integers(0, 60), pieces)
def test_a_body_of_a_known_size(data: bytes, size: int, sizes: list[int]) -> None:
    """Of a stream so many bytes are the body, and what comes behind them stays."""
    body = Sized(size)
    assert take_all(body, split(data, sizes)) == (data[:size], data[size:])
    assert body.is_complete is (len(data) >= size)


#: What chunked bodies are made of, in order and out of it.
tokens = st.sampled_from(
    [
        *(b"0", b"1", b"2", b"a", b"A", b"0x1", b"+1", b"-1", b"_", b" ", b"\t", b"00"),
        *(b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b";", b";a", b";a=b", b';a="b"', b"x", b"xy"),
        *(b"0\r\n\r\n", b"1\r\nx\r\n", b"A: b\r\n", b": b\r\n", b" b\r\n", b"\x00", b"\x80"),
    ]
)


@given(st.lists(tokens, max_size=12).map(b"".join), pieces)
@example(b"0\r\nA: b\r\n\r\n", [])
@example(b"1\nx\r\n0\r\n\r\n", [])
@example(b"1\r\nx\n0\r\n\r\n", [])
@example(b"1;\nx\r\n0\r\n\r\n", [])
def test_whatever_is_accepted_h11_accepts(data: bytes, sizes: list[int]) -> None:
    """What is taken for a complete body in chunks, h11 takes for the same; how it is cut does not
    matter.
    """
    try:
        body = Chunked(_MOST)
        found = take_all(body, split(data, sizes))
        whole = Chunked(_MOST)
        assert take_all(whole, [data]) == found
    except BadRequestError:
        with pytest.raises(BadRequestError):
            take_all(Chunked(_MOST), [data])
        return
    if body.is_complete:
        assert by_h11(_HEAD + data) == found


lines = st.sampled_from(
    [
        *(b"Host: x", b"Host: x", b"host: y", b"Content-Length: 3", b"content-length: 3"),
        *(b"Content-Length: 4", b"Content-Length: 3, 3", b"Content-Length: +3", b"Content-Length:"),
        *(
            b"Content-Length: 0x3",
            b"Content-Length: 3 ",
            b"Content-Length : 3",
            b" Content-Length: 3",
        ),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: x"),
        *(b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: identity, chunked"),
        *(b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:"),
        *(
            b"Transfer_Encoding: chunked",
            b"X: a\x00b",
            b"X: a\rb",
            b"X: a\nb",
            b"\tfolded",
            b"X: \x80",
        ),
        *(b"Connection: close", b"Expect: 100-continue", b"X", b": x", b"X: a\r\n folded"),
    ]
)
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])


@given(
    st.sampled_from([b"1.1", b"1.1", b"1.0", b"1.2", b"2.0", b"0.9", b"1.1 "]),
    st.lists(st.tuples(lines, ends), max_size=5),
)
def test_heads_are_read_as_h11_reads_them(
    version: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """A head that is accepted, h11 accepts, with the same fields and the same body behind it:
    nobody in front of this server that keeps to the standard sees another request than it does.
    """
    head = b"POST /a?b HTTP/" + version + b"\r\n" + b"".join(a + b for a, b in fields) + b"\r\n"
    end = head.find(b"\r\n\r\n") + 4
    head, behind = head[:end], head[end:] + b"3\r\nabc\r\n0\r\n\r\n"
    found: Any = None
    try:
        handshake.examine(head, 100)
    except PlainHttpError as plain:
        found = plain.head
    except BadRequestError:
        return
    try:
        body = body_of(found, _MOST)
    except BadRequestError:
        return
    if found.version == "1.1" and found.get(b"host") is None:
        return  # refused where the application would be called
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert [(name, value) for name, value in event.headers] == [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in found.headers
    ]
    assert take_all(body, [behind]) == by_h11(head + behind)
