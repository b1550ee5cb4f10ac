"""The opening handshake: which heads are taken, how others are refused, and what is answered."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.harness import raw
from wssup.server.handshake import (
    BadRequestError,
    Head,
    PlainHttpError,
    accept_response,
    could_be_head,
    examine,
    parse,
    plain_response,
    response,
    text_response,
    trimmed,
)

_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def head(*fields: bytes, line: bytes = b"GET /a HTTP/1.1") -> bytes:
    """A handshake in order with these fields besides; none replaces another."""
    usual = raw.request().split(b"\r\n")[1:-2]
    return b"\r\n".join([line, *usual, *fields, b"", b""])


def refused(data: bytes, most_headers: int = 100) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        examine(data, most_headers)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return caught.value


def target_of(data: bytes) -> bytes:
    """The request target by the letter of RFC 9112 section 3."""
    return data.lstrip(b"\r\n").split(b" ")[1]


def plain(data: bytes) -> Head:
    with pytest.raises(PlainHttpError) as caught:
        examine(data, 100)
    return caught.value.head


# Heads of real clients; a bar stands for a line's end.

_CHROME = (
    b"GET /chat?room=1 HTTP/1.1|Host: example.com:8000|Connection: Upgrade|Pragma: no-cache"
    b"|Cache-Control: no-cache|User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
    b" (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36|Upgrade: websocket"
    b"|Origin: https://example.com|Sec-WebSocket-Version: 13|Accept-Encoding: gzip, deflate, br"
    b'|Accept-Language: en-GB,en;q=0.9|Cookie: a=1; b="2"|Sec-WebSocket-Key: '
    + _KEY + b"|Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits||"
)  # fmt: skip
_FIREFOX = (
    b"GET /chat HTTP/1.1|Host: example.com|User-Agent: Mozilla/5.0 (X11; rv:127.0) Gecko/20100101"
    b"|Accept: */*|Accept-Language: de,en-US;q=0.7,en;q=0.3|Sec-WebSocket-Version: 13"
    b"|Origin: https://example.com|Sec-WebSocket-Protocol: chat.v2, chat.v1"
    b"|Sec-WebSocket-Extensions: permessage-deflate|Sec-WebSocket-Key: "
    + _KEY + b"|DNT: 1|Connection: keep-alive, Upgrade|Sec-Fetch-Dest: empty|Upgrade: websocket||"
)  # fmt: skip
_CURL = (
    b"GET / HTTP/1.1|Host: 127.0.0.1:8000|User-Agent: curl/8.8.0|Accept: */*|Upgrade: websocket"
    b"|Connection: Upgrade|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: " + _KEY + b"||"
)
_PYTHON = (
    b"GET / HTTP/1.1|Host: [::1]:8000|Upgrade: WebSocket|Connection: Upgrade|Sec-WebSocket-Key: "
    + _KEY + b"|Sec-WebSocket-Version: 13|User-Agent: Python/3.13 websockets/13.1||"
)  # fmt: skip
#: A proxy that speaks HTTP/2 to the client knows names in lower case, and adds its own.
_PROXIED = (
    b"GET / HTTP/1.1|host: example.com|x-forwarded-for: 192.0.2.1, 198.51.100.2"
    b"|x-forwarded-for: 203.0.113.3|upgrade: websocket|connection: upgrade|sec-websocket-key:"
    + _KEY + b"|sec-websocket-version:   13  |content-length: 0||"
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "count"), [(_CHROME, 13), (_FIREFOX, 13), (_CURL, 7), (_PYTHON, 6), (_PROXIED, 8)]
)
def test_heads_of_real_clients(data: bytes, count: int) -> None:
    """What browsers, curl, Python clients and proxies send is in order, and all of it is there."""
    data = data.replace(b"|", b"\r\n")
    found = examine(data, 100)
    assert (found.method, found.target, found.version) == ("GET", target_of(data), "1.1")
    assert len(found.headers) == count
    assert found.get(b"sec-websocket-key") == _KEY
    assert found.get(b"sec-websocket-version") == b"13"
    assert all(name == name.lower() for name, _ in found.headers)
    answer = accept_response(found, subprotocol=None, extra_headers=None)
    assert b"Sec-WebSocket-Accept: " + _ACCEPT + b"\r\n" in answer


def test_what_a_head_says() -> None:
    """Fields keep their order and their bytes; elements of lists are those of all fields."""
    found = examine(_PROXIED.replace(b"|", b"\r\n"), 100)
    forwarded = [value for name, value in found.headers if name == b"x-forwarded-for"]
    assert forwarded == [b"192.0.2.1, 198.51.100.2", b"203.0.113.3"]
    assert found.get(b"x-forwarded-for") == forwarded[0]
    assert found.get(b"cookie") is None
    assert found.tokens(b"x-forwarded-for") == ["192.0.2.1", "198.51.100.2", "203.0.113.3"]
    assert found.tokens(b"cookie") == []
    found = parse(head(b"X: ,a,, b c ,\t", b"X:", b"x: \xe9"))
    assert found.tokens(b"x") == ["a", "b c", "é"]


@pytest.mark.parametrize(
    "data",
    [
        *(head(b"X:", b"X: \t ", b"X: caf\xc3\xa9 \xff"), head(b"Cookie: " + b"x" * 4000)),
        *map(head, (b"Upgrade: h2c, foo/2", b"Connection: keep-alive", b"Content-Length: 0")),
        *(head(b"!#$%&'*+-.^_`|~09Az: \x21\x7e"), b"\r\n" + head(), head(line=b"GET * HTTP/1.1")),
        head(line=b"GET http://example.com/a?b HTTP/1.1"),
        head(line=b"GET /%20?a=b&c='\"<>[]{}|\\^` HTTP/1.1"),
        raw.request("/", b"Connection: foo ,\tUPGRADE, bar", b"Upgrade: WEBSOCKET"),
        raw.request("/", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        raw.request("/", b"Sec-WebSocket-Key: +/+/+/+/+/+/+/+/+/+/+w=="),
    ],
)
def test_heads_in_order(data: bytes) -> None:
    """What RFC 6455 section 4.2.1 and RFC 9112 allow is taken."""
    found = examine(data, 100)
    assert found.target == target_of(data)


# Heads that are refused.

_LINES = [
    *(b"GET  HTTP/1.1", b"get / HTTP/1.1", b" GET / HTTP/1.1", b"GET\t/\tHTTP/1.1", b"GET / "),
    *(b"GET a HTTP/1.1", b"GET / http/1.1", b"GET /caf\xc3\xa9 HTTP/1.1", b"GET /\x7f HTTP/1.1"),
    *(b"GET /\0 HTTP/1.1", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\rX: y", b"GET / HTTP/1.1 "),
    *(b"GET / HTTP/" + version for version in (b"0.9", b"1.0", b"1.2", b"2.0", b"3.0", b"1.1.1")),
    *(method + b" / HTTP/1.1" for method in (b"POST", b"HEAD", b"OPTIONS", b"PUT", b"NONE")),
    b"CONNECT a:1 HTTP/1.1",
]  # fmt: skip
_FIELDS = [
    # Space and line ends that parsers disagree about (RFC 9112 section 11.2).
    *(b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n b", b" X: a", b"\tX: a", b"X : a", b"X\t: a"),
    *(b"X Y: a", b": a", b"X", b"X\r\nY", b"\xe9: a"),
    *(b"X: a\nY: b", b"X: a\rY: b", b"X: a\r\rY: b", b"X\n: a"),
    *(b"X: a" + char + b"b" for char in (b"\0", b"\1", b"\x0b", b"\x1b", b"\x7f")),
    # A body.
    *(b"Content-Length: " + value for value in (b"1", b"-1", b"+0", b"a", b"", b"0, 5", b"9" * 30)),
    *(b"Transfer-Encoding: " + value for value in (b"chunked", b"identity", b"", b"gzip")),
    b"Content-Length: 0\r\nContent-Length: 5",
    b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 0",
    # Twice; not ASCII.
    *(b"Host: test", b"hOST: other", b"Origin: a\r\nOrigin: a", b"Sec-WebSocket-Version: 13"),
    *(b"Sec-WebSocket-Key: " + _KEY, b"Origin: \xe9", b"Upgrade: \xe9", b"Connection: \xe9"),
    *(b"Sec-WebSocket-Protocol: caf\xe9", b"Sec-WebSocket-Extensions: \xe9"),
]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        *(b"\r\n\r\n", b"\r\n" * 4, b"GET /\r\n\r\n", b"GET\r\n\r\n", b"nonsense\r\n\r\n"),
        *(bytes(50), b"\x16\x03\x01\x02\x00" + bytes(20), b"PRI * HTTP/2.0\r\n\r\n", b""),
        *(head(line=line) for line in _LINES),
        *map(head, _FIELDS),
        *(raw.request("/", host=host) for host in (b"caf\xe9", b"", b"  ")),
        *(raw.request("/", b"Connection:" + x) for x in (b"", b"close", b"Upgraded", b"a Upgrade")),
        *(b"GET / HTTP/2.0\r\n\r\n", raw.request().replace(b"Host:", b"Hast:")),
        raw.request().replace(b"Connection:", b"Proxy-Connection:"),
    ],
)  # fmt: skip
def test_heads_that_are_refused(data: bytes) -> None:
    """Each of these is answered with 400, and nothing else is raised."""
    assert refused(data).status == 400


@pytest.mark.parametrize("line", [b"GET  /a HTTP/1.1", b"GET /a  HTTP/1.1", b"GET /a RTSP/1.1"])
def test_request_lines_that_are_refused(line: bytes) -> None:
    """A request line has two single spaces and names HTTP (RFC 9112 section 3): what the parser
    forgives is refused, or path and head would be read in two ways.
    """
    assert refused(head(line=line)).status == 400


@pytest.mark.parametrize(
    "key",
    [
        *(b"", b"x", b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZQ=", _KEY + b"=", _KEY * 2),
        *(b"dGhlIHNhbXBsZSBub25j", b"dGhlIHNhbXBsZSBub25jZXM=", b"dGhlIHNhbXBsZSBub25jZXNz"),
        *(b"dGhlIHNhbXBsZSBub25j Q==", b"=GhlIHNhbXBsZSBub25jZQ=", b"dGhlIHNhbXBsZS_ub25jZQ=="),
        *(b"dGhlIHNhbXBsZSBub25jZ===", b"\xe9GhlIHNhbXBsZSBub25jZQ==", b'"dGhlIHNhbXBsZSBub25jZQ"'),
    ],
)
def test_keys_that_are_none(key: bytes) -> None:
    """A key is 16 bytes in base64 (section 4.2.1); another one, or none, is answered with 400."""
    assert refused(raw.request("/", b"Sec-WebSocket-Key: " + key)).status == 400
    assert refused(raw.request().replace(b"Sec-WebSocket-Key", b"Key")).status == 400


@pytest.mark.parametrize("version", [b"", b"8", b"12", b"14", b"013", b"13, 8", b"13.0"])
def test_versions_that_are_not_spoken(version: bytes) -> None:
    """Another version is answered with 426 and the one that is spoken (section 4.4)."""
    error = refused(raw.request("/", b"Sec-WebSocket-Version: " + version))
    assert error.status == 426
    assert error.headers == [(b"Sec-WebSocket-Version", b"13")]
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in response(426, b"", error.headers)
    assert refused(raw.request().replace(b"Sec-WebSocket-Version", b"V")).status == 426


def test_the_limit_of_fields() -> None:
    """So many fields are taken, one more is answered with 431."""
    data = head(*[b"X: y"] * 5)
    assert len(examine(data, 10).headers) == 10
    assert refused(data, 9).status == 431
    assert refused(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10 + b"\r\n", 9).status == 431


# Plain HTTP.


@pytest.mark.parametrize(
    ("data", "method", "target"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", b"/"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", "GET", b"/healthz"),
        (b"GET /healthz?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET", b"/healthz?x"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", b"/"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "POST", b"/x"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", b"*"),
        (raw.request("/", b"Upgrade: h2c"), "GET", b"/"),
        (raw.request("/", b"Upgrade: websocketx, xwebsocket"), "GET", b"/"),
        (raw.request("/", b"Upgrade:"), "GET", b"/"),
    ],
)
def test_plain_http(data: bytes, method: str, target: bytes) -> None:
    """A request in order that asks for no WebSocket is told apart from one that is wrong; it gets
    426 and what is spoken here, and at /healthz whether connections are taken.
    """
    found = plain(data)
    assert (found.method, found.target) == (method, target)
    up, down = (plain_response(found, accepting=on) for on in (True, False))
    if method == "GET" and target.startswith(b"/healthz"):
        assert up.startswith(b"HTTP/1.1 200 OK\r\n")
        assert up.endswith(b"\r\n\r\nok\n")
        assert down.startswith(b"HTTP/1.1 503 ")
    else:
        assert up == down
        assert up.startswith(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n")
        assert b"\r\nConnection: Upgrade, close\r\n" in up


# Answers.


def _fields(answer: bytes) -> list[tuple[bytes, bytes]]:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = [line.partition(b": ") for line in lines]
    return [(name, value) for name, _, value in pairs]


def test_the_answer_that_accepts() -> None:
    """It is that of RFC 6455 section 1.3, with the subprotocol, and the application's fields."""
    found = parse(head(b"Sec-WebSocket-Protocol: a, chat", b'Sec-WebSocket-Protocol: "b"'))
    usual = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    usual.append((b"Sec-WebSocket-Accept", _ACCEPT))
    answer = accept_response(found, subprotocol=None, extra_headers=None)
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert _fields(answer) == usual
    more = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"caf\xe9"), (b"X-!", b"")]
    answer = accept_response(found, subprotocol="chat", extra_headers=more)
    assert _fields(answer) == [*usual, (b"Sec-WebSocket-Protocol", b"chat"), *more]
    assert b'Protocol: "b"\r' in accept_response(found, subprotocol='"b"', extra_headers=())
    for wrong in ("", "CHAT", "b", "a, chat", "chat\r\nX: y", "€"):
        with pytest.raises(ValueError, match=r"not proposed.*a, chat"):
            accept_response(found, subprotocol=wrong, extra_headers=None)
    with pytest.raises(ValueError, match="proposed none"):
        accept_response(parse(head()), subprotocol="chat", extra_headers=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((b"X", b"a\r\nY: b"), (b"X", b"a\nb"), (b"X", b"a\rb"), (b"X", b"\0"), (b"X", b"\n")),
        *((b"X\r\nY", b""), (b"X:", b""), (b"X ", b""), (b" X", b""), (b"", b"a"), (b"\xe9", b"")),
        *((b"Connection", b"close"), (b"UPGRADE", b"x"), (b"Transfer-Encoding", b"chunked")),
        *((b"Sec-WebSocket-Accept", b"x"), (b"sec-websocket-extensions", b"permessage-deflate")),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_sent(name: bytes, value: bytes) -> None:
    """A field that would end its line, or that the handshake itself sets, is a ValueError: nobody
    can put a head or a body into ours.
    """
    with pytest.raises(ValueError, match="header"):
        accept_response(parse(head()), subprotocol=None, extra_headers=[(name, value)])
    with pytest.raises(ValueError, match="header"):
        response(403, b"", [(b"X", b"y"), (name, value)])


def test_other_answers() -> None:
    """An answer has its body's length, and says that the connection ends; a status that cannot end
    a handshake is a ValueError.
    """
    answer = response(403, b"no\r\n\r\n", [(b"X", b"y")])
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"\r\n\r\nno\r\n\r\n")
    assert _fields(answer) == [(b"Connection", b"close"), (b"X", b"y"), (b"Content-Length", b"6")]
    assert response(499).startswith(b"HTTP/1.1 499 \r\n")
    answer = text_response(431, "caf\xe9: too long", [(b"X", b"y")])
    assert answer.endswith(b"\r\n\r\ncaf?: too long\n")
    fields = [(b"X", b"y"), (b"Content-Type", b"text/plain"), (b"Content-Length", b"15")]
    assert _fields(answer) == [(b"Connection", b"close"), *fields]
    for wrong in (-1, 0, 100, 101, 199, 600, 1000):
        with pytest.raises(ValueError, match="cannot end a handshake"):
            response(wrong)


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        *(b"\0", bytes(20), b"SSH-2.0-OpenSSH_9.6\r\n", b"\xff\xfd\x18", b"*1\r\n$4\r\nPING\r\n"),
        *(b"get / HTTP/1.1\r\n", b"G\0", b"\r\n\x16", b"A" * 20, b"A" * 30 + b" ", b"1", b"GET\t/"),
    ],
)
def test_what_can_be_no_head(beginning: bytes) -> None:
    """Who speaks something else is told from the first bytes, before a head's end comes."""
    assert not could_be_head(beginning)


# Any bytes, and any head.

_tokens = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=12).map(str.encode)
_special = {b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"proxy-connection"}
_names = _tokens.filter(lambda name: name.lower() not in _special)
_values = st.text([*'\t !"(),/:;<=>?@[]{}~azAZ09', *map(chr, range(0x80, 0x100))], max_size=20)
_spaces = st.text(" \t", max_size=2).map(str.encode)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_names, _spaces, _values, _spaces), max_size=12), st.lists(_names))
def test_a_head_is_read_back(
    fields: list[tuple[bytes, bytes, str, bytes]], keep: list[bytes]
) -> None:
    """The fields of any valid head are found as they were sent, without the space around them; so
    are those that a trimmed one keeps.
    """
    stripped = [(name, value.strip(" \t").encode("latin-1")) for name, _, value, _ in fields]
    lines = [
        name + b":" + before + value + after
        for (name, value), (_, before, _, after) in zip(stripped, fields, strict=True)
    ]
    data = b"\r\n".join([b"GET /a?b HTTP/1.1", *lines, b"", b""])
    found = parse(data)
    expected = [(name.lower(), value) for name, value in stripped]
    assert found.headers == expected
    names = {name.lower() for name in [*keep, *(name for name, _ in stripped[::2])]}
    less = trimmed(b"\r\n" + data, {name.decode() for name in names})
    again = parse(less)
    assert again.headers == [pair for pair in expected if pair[0] in names]
    assert (again.method, again.target, again.version) == ("GET", b"/a?b", "1.1")


_damage = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([_CHROME, _FIREFOX, _CURL, _PROXIED, b""]), _damage, st.binary(max_size=20))
@example(b"GET / HTTP/1.1||", [], b"GET / HTTP/1.1|Content-Length: 5||12345")
def test_any_bytes(good: bytes, damage: list[tuple[int, bytes, int]], rest: bytes) -> None:
    """Whatever bytes come are a handshake, plain HTTP or a bad request, and nothing else is raised;
    and of what is a handshake any beginning could be one.
    """
    data = good + rest
    for place, new, gone in damage:
        data = data[:place] + new + data[place + gone :]
    data = data.replace(b"|", b"\r\n")
    found, answer = _answered(data)
    assert answer.startswith(b"HTTP/1.1 ")
    assert answer.partition(b"\r\n\r\n")[1]
    if found is not None:
        assert all(could_be_head(data[:end]) for end in range(data.index(b"\r\n\r\n")))


def _answered(data: bytes) -> tuple[Head | None, bytes]:
    """The head if it is taken, and what is answered."""
    try:
        found = examine(data, 100)
    except BadRequestError as error:
        return None, text_response(error.status, str(error), error.headers)
    except PlainHttpError as http:
        return None, plain_response(http.head, accepting=True)
    return found, accept_response(found, subprotocol=None, extra_headers=None)
