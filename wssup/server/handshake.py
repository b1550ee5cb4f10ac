"""The opening handshake (RFC 6455 section 4.2): what a request head says, and what is answered.

A head is one ``bytes`` object up to and with its empty line; httptools parses it. Nothing here
knows a socket. A request falls in one of three classes: an upgrade that is in order (`examine`
returns its `Head`), plain HTTP, which may be a health check or a browser gone astray
(`PlainHttpError`), and what is neither (`BadRequestError`).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import httptools

__all__ = [
    "HEAD_END",
    "BadRequestError",
    "Head",
    "Headers",
    "PlainHttpError",
    "accept_response",
    "could_be_head",
    "examine",
    "is_origin_allowed",
    "parse",
    "plain_response",
    "response",
    "text_response",
    "trimmed",
]

Headers = list[tuple[bytes, bytes]]

_LONGEST_METHOD = 20
HEAD_END: Final = b"\r\n\r\n"

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: "
)
#: A field name and value that cannot end the line it stands on (RFC 9110 section 5.5, 5.6.2).
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\r\n\0]*")
#: What stands for the star of an allowed origin: labels of a host.
_LABELS = re.compile("[a-z0-9._-]+")
#: Fields that may stand in a request once (RFC 9110 section 7.2, RFC 6455 section 11.3).
_SINGLE = frozenset({b"host", b"sec-websocket-key", b"sec-websocket-version", b"origin"})
#: Their values are read here, so they must be what ASCII can say.
_ASCII = _SINGLE | {
    b"connection",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
    b"upgrade",
}
_BODY = frozenset({b"content-length", b"transfer-encoding"})
#: What the server says of itself, or the handshake; an application cannot say it otherwise.
_OURS = frozenset(
    {
        b"connection",
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
        b"transfer-encoding",
    }
)


#: Names that nearly every request has: each is there once, not with every connection.
_NAMES: Final = {
    name: name
    for name in (
        b"accept accept-encoding accept-language authorization cache-control connection "
        b"content-length content-type cookie host origin pragma sec-fetch-dest sec-fetch-mode "
        b"sec-fetch-site sec-websocket-extensions sec-websocket-key sec-websocket-protocol "
        b"sec-websocket-version upgrade user-agent x-forwarded-for x-forwarded-host "
        b"x-forwarded-proto x-real-ip"
    ).split()
}


class BadRequestError(Exception):
    """A request that is refused for what it is.

    :ivar status: of the answer.
    :ivar headers: of the answer, besides the usual ones.
    """

    def __init__(self, text: str, status: int = 400, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or []


class PlainHttpError(Exception):
    """A request in order that asks for no WebSocket.

    :ivar head: what was asked.
    """

    def __init__(self, head: Head) -> None:
        super().__init__(head.method, head.target)
        self.head = head


class Head:
    """A request head, parsed.

    :ivar method: ``GET``.
    :ivar target: the request target as it was sent.
    :ivar version: of HTTP: ``1.1``.
    :ivar headers: names in lower case, values without space around them, in their order.
    """

    __slots__ = ("complete", "fields", "headers", "method", "target", "version")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.version = ""
        self.headers: Headers = []
        #: Those that a handshake is made of, once it was examined.
        self.fields: dict[bytes, bytes] = {}
        self.complete = False

    # What httptools calls.

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        name = name.lower()
        self.headers.append((_NAMES.get(name, name), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The empty line."""
        self.complete = True

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field called ``name``."""
        if name in self.fields and name in _SINGLE:
            return self.fields[name]
        for found, value in self.headers:
            if found == name:
                return value
        return None

    def tokens(self, name: bytes) -> list[str]:
        """The comma-separated elements of all fields called ``name`` (RFC 9110 section 5.6.1)."""
        elements = b",".join(value for found, value in self.headers if found == name).split(b",")
        return [element.strip().decode("latin-1") for element in elements if element.strip()]


def could_be_head(beginning: bytes) -> bool:
    """Whether the bytes that came so far may become a request: clients that speak something else
    (TLS, say) are told at once.
    """
    method, space, _ = beginning.lstrip(b"\r\n")[:_LONGEST_METHOD].partition(b" ")
    ends = bool(space) or len(method) < _LONGEST_METHOD
    return not method or (method.isalpha() and method.isupper() and ends)


def parse(head: bytes) -> Head:
    """Parse a head.

    :raises BadRequestError: it is none.
    """
    found = Head()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # so it tells an upgrade, at the end of the head
    except httptools.HttpParserError as error:
        raise BadRequestError(f"not an HTTP request: {error}") from None
    if not found.complete:
        raise BadRequestError("not an HTTP request: empty lines")
    method = parser.get_method()
    found.method = method.decode("latin-1")
    found.version = parser.get_http_version()
    # llhttp is generous with spaces, and knows protocols that look like HTTP.
    line = b"%b %b HTTP/%b\r\n" % (method, found.target, found.version.encode())
    if not head.lstrip(b"\r\n").startswith(line):
        raise BadRequestError("not an HTTP request line")
    return found


def examine(head: bytes, most_headers: int) -> Head:
    """Parse a head and check that it is a WebSocket handshake in order.

    :raises BadRequestError: it is no request, or no handshake as it should be.
    :raises PlainHttpError: it asks for no WebSocket.
    """
    found = parse(head)
    if len(found.headers) > most_headers:
        raise BadRequestError(f"more than {most_headers} header fields", 431)
    if found.version not in {"1.1", "1.0"}:
        raise BadRequestError(f"HTTP/{found.version} is not spoken here")
    fields = found.fields = _fields(found.headers)
    if not _lists(fields.get(b"upgrade"), b"websocket"):
        raise PlainHttpError(found)
    if found.method != "GET" or found.version != "1.1":
        raise BadRequestError("a WebSocket handshake is a GET of HTTP/1.1")
    if fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields:
        raise BadRequestError("a WebSocket handshake has no body")
    if not fields.get(b"host"):
        raise BadRequestError("no Host")
    if not _lists(fields.get(b"connection"), b"upgrade"):
        raise BadRequestError("no Connection: Upgrade")
    if fields.get(b"sec-websocket-version") != _VERSION:
        raise BadRequestError(
            "Sec-WebSocket-Version must be 13", 426, [(b"Sec-WebSocket-Version", _VERSION)]
        )
    _check_key(fields.get(b"sec-websocket-key"))
    return found


def _fields(headers: Headers) -> dict[bytes, bytes]:
    """The fields that a handshake is made of, by name.

    :raises BadRequestError: one is given twice, or cannot be read.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ASCII or name in _BODY:
            if not value.isascii():
                raise BadRequestError(f"{name.decode()} is not ASCII")
            if name in fields:
                if name in _SINGLE:
                    raise BadRequestError(f"{name.decode()} is given twice")
                # RFC 9110 section 5.3: as if they stood in one.
                value = fields[name] + b"," + value  # noqa: PLW2901
            fields[name] = value
    return fields


def _lists(value: bytes | None, token: bytes) -> bool:
    """Whether a list of tokens has this one (RFC 9110 section 5.6.1), in any case of letters."""
    if value is None:
        return False
    value = value.lower()
    return value == token or token in [part.strip() for part in value.split(b",")]


def _check_key(key: bytes | None) -> None:
    """Section 4.2.1: 16 bytes in base64."""
    try:
        size = len(binascii.a2b_base64(key or b"", strict_mode=True))
    except binascii.Error:
        size = 0
    if size != 16 or key is None or len(key) != 24:
        raise BadRequestError("no valid Sec-WebSocket-Key")


def is_origin_allowed(origin: bytes | None, allowed: Iterable[str]) -> bool:
    """Whether a page of ``origin`` may connect (RFC 6454; section 10.2 of RFC 6455).

    :param origin: ``None`` for clients that are no browsers, which are not asked.
    :param allowed: origins; ``*`` for any; ``https://*.example.com`` for all below a domain.
    """
    if origin is None:
        return True
    text = origin.decode("latin-1").lower()
    for pattern in allowed:
        if pattern in {"*", text}:
            return True
        scheme, star, domain = pattern.partition("*")
        if (
            star
            and text.startswith(scheme)
            and text.endswith(domain)
            and _LABELS.fullmatch(text, len(scheme), len(text) - len(domain))
        ):
            return True
    return False


def accept_response(
    head: Head, *, subprotocol: str | None, extra_headers: Iterable[tuple[bytes, bytes]] | None
) -> bytes:
    """The answer that makes a connection a WebSocket (section 4.2.2).

    :raises ValueError: a subprotocol that was not proposed, or a header that cannot be sent.
    """
    key = head.get(b"sec-websocket-key")
    assert key is not None
    token = b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    if subprotocol is None and not extra_headers:
        return _SWITCHING + token + HEAD_END
    lines = [_SWITCHING + token]
    if subprotocol is not None:
        proposed = head.tokens(b"sec-websocket-protocol")
        if subprotocol not in proposed:
            raise ValueError(
                f"subprotocol {subprotocol!r} was not proposed; the client proposed "
                f"{', '.join(proposed) or 'none'}"
            )
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("latin-1"))
    lines += _lines(extra_headers or (), also=b"content-length")
    return b"\r\n".join([*lines, b"", b""])


def response(
    status: int,
    body: bytes = b"",
    extra_headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    upgrade: bool = False,
) -> bytes:
    """An answer after which the connection ends.

    :param upgrade: say what could be spoken here (RFC 9110 section 7.8).
    :raises ValueError: a status that does not end a request, or a header that cannot be sent.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"status {status} cannot end a handshake")
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    lines = _lines(extra_headers)
    given = {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in lines}
    length = given.get(b"content-length")
    if length not in {None, b"%d" % len(body)}:
        raise ValueError(f"Content-Length {length!r} of a body of {len(body)} bytes")
    if length is None:
        lines.append(b"Content-Length: %d" % len(body))
    first = b"HTTP/1.1 %d %b" % (status, phrase)
    options = (
        b"Upgrade: websocket\r\nConnection: Upgrade, close" if upgrade else b"Connection: close"
    )
    return b"\r\n".join([first, options, *lines, b"", body])


def text_response(
    status: int, text: str, extra_headers: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A line of text for whoever reads the answer."""
    body = f"{text}\n".encode("ascii", "replace")
    return response(status, body, (*extra_headers, (b"Content-Type", b"text/plain")))


def plain_response(head: Head, *, accepting: bool) -> bytes:
    """The answer to plain HTTP: ``GET /healthz`` for load balancers, and a line for people."""
    asks = head.method in {"GET", "HEAD"}
    if asks and head.target.partition(b"?")[0] == b"/healthz":
        answer = text_response(200, "ok") if accepting else text_response(503, "draining")
    else:
        body = b"This is a WebSocket service: connect with a WebSocket client.\n"
        answer = response(426, body, [(b"Content-Type", b"text/plain")], upgrade=True)
    # RFC 9110 section 9.3.2: HEAD gets the head of what GET gets.
    return answer.partition(HEAD_END)[0] + HEAD_END if head.method == "HEAD" else answer


def _lines(headers: Iterable[tuple[bytes, bytes]], also: bytes = b"") -> list[bytes]:
    """Header fields as lines.

    :param also: the name of one more that cannot be given.

    :raises ValueError: naming a field that would break the head, or that is not the application's.
    """
    lines = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: {value!r} cannot be sent")
        if name.lower() in _OURS or name.lower() == also:
            raise ValueError(f"header {name.decode()} is set by the handshake itself")
        lines.append(b"%b: %b" % (name, value.strip()))
    return lines


def trimmed(head: bytes, keep: Iterable[str]) -> bytes:
    """A head with its request line and the named fields only.

    :param keep: names in lower case.
    """
    found = parse(head)
    names = {name.encode("latin-1") for name in keep}
    kept = [b"%b: %b" % pair for pair in found.headers if pair[0] in names]
    return b"\r\n".join([head.lstrip(b"\r\n").partition(b"\r\n")[0], *kept, b"", b""])
