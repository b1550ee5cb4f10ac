"""Where a client is that comes through proxies: X-Forwarded-For and -Proto, or Forwarded
(RFC 7239).

Anybody can send these headers. So they count only if a trusted proxy is the one that connects, and
only as far as trusted proxies wrote them: each adds what it sees at the right, so that the client
is the right-most address that is no trusted proxy's. What stands left of it is its own story.
Only one of the two kinds of headers is read, the one that the proxies write: of the other kind they
may pass on what the client says.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

__all__ = ["Client", "Hop", "TrustedProxies", "forwarded_hops", "x_forwarded_hops"]

Headers = list[tuple[bytes, bytes]]

#: RFC 9110 section 5.6.2 and 5.6.4.
_PAIR: Final = re.compile(
    rb"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="""
    rb"""(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~])*)")[ \t]*"""
)
_ESCAPED: Final = re.compile(rb"\\(.)")
_PORT: Final = re.compile("[0-9]{1,5}")
_SECURE: Final = frozenset({"https", "wss"})
#: What a listener for IPv6 and IPv4 has of a client with IPv4 (RFC 4291 section 2.5.5.2).
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Hop(NamedTuple):
    """What one proxy says of whom it serves.

    :ivar peer: packed address and port (`sockets.packed`), port 0 if it is not told; empty if the
        address is not told either.
    :ivar secure: whether by TLS; ``None``: not told.
    """

    peer: bytes
    secure: bool | None = None


class Client(NamedTuple):
    """A client, as trusted proxies tell it.

    :ivar peer: packed address and port.
    :ivar secure: whether it uses TLS.
    """

    peer: bytes
    secure: bool


class TrustedProxies:
    """The proxies that are believed.

    :param names: addresses, networks, and ``unix`` (as the setting holds them).
    :param kind: which headers they write, ``x-forwarded`` or ``forwarded``.
    """

    def __init__(self, names: Iterable[str] = (), kind: str = "x-forwarded") -> None:
        networks = [ipaddress.ip_network(name) for name in names if name != "unix"]
        self._unix = "unix" in names
        self._hosts = {
            network.network_address.packed
            for network in networks
            if network.prefixlen == network.max_prefixlen
        }
        self._networks = [
            (len(network.netmask.packed), int(network.netmask), int(network.network_address))
            for network in networks
            if network.prefixlen < network.max_prefixlen
        ]
        self._any = self._unix or bool(networks)
        self._hops = forwarded_hops if kind == "forwarded" else x_forwarded_hops

    def trusts(self, peer: bytes) -> bool:
        """Whether a trusted proxy is there.

        :param peer: packed; empty for a unix socket.
        """
        if not peer:
            return self._unix
        address = _unmapped(peer)[:-2]
        if address in self._hosts:
            return True
        number = int.from_bytes(address, "big")
        return any(
            size == len(address) and number & mask == network
            for size, mask, network in self._networks
        )

    def client(self, peer: bytes, headers: Headers) -> Client | None:
        """The client of a request; ``None``: it is who connected, as far as can be known.

        :param peer: who connected, packed.
        :param headers: of its request, names in lower case.
        """
        if not self._any or not self.trusts(peer):
            return None
        found = Hop(peer)
        for hop in reversed(self._hops(headers)):
            if not hop.peer:
                # Nobody knows who is behind that; TLS can be told nevertheless.
                found = Hop(found.peer, hop.secure if found.secure is None else found.secure)
                break
            found = hop
            if not self.trusts(hop.peer):
                break
        return Client(found.peer, bool(found.secure))


def x_forwarded_hops(headers: Headers) -> list[Hop]:
    """What X-Forwarded-For and X-Forwarded-Proto say, the nearest proxy's word last."""
    addresses = _elements(headers, b"x-forwarded-for")
    schemes = [text.lower() in _SECURE for text in _elements(headers, b"x-forwarded-proto")]
    if not addresses:
        return [Hop(b"", secure) for secure in schemes[-1:]]
    if len(schemes) != len(addresses):
        # A proxy may also replace it, or pass on what the one before it has said.
        schemes = [*schemes[-1:]] * len(addresses)
    return [
        Hop(_packed(text), schemes[place] if schemes else None)
        for place, text in enumerate(addresses)
    ]


def forwarded_hops(headers: Headers) -> list[Hop]:
    """What Forwarded says, the nearest proxy's word last; nothing left of what cannot be read."""
    hops: list[Hop] = []
    for name, value in reversed(headers):
        if name != b"forwarded":
            continue
        try:
            hops = [_hop(element) for element in _forwarded(value)] + hops
        except ValueError:
            # Where one element ends is not certain any more, and so whose it is.
            break
    return hops


def _elements(headers: Headers, name: bytes) -> list[str]:
    """The elements of a list that may stand in several fields (RFC 9110 section 5.6.1)."""
    whole = b",".join(value for found, value in headers if found == name)
    return [part.strip().decode("latin-1") for part in whole.split(b",") if part.strip()]


def _forwarded(value: bytes) -> Iterator[dict[str, str]]:
    """The elements of a Forwarded field, each a map of its pairs (RFC 7239 section 4).

    :raises ValueError: it is none.
    """
    place = 0
    pairs: dict[str, str] = {}
    while place < len(value):
        match = _PAIR.match(value, place)
        if match is not None:
            name, token, quoted = match.groups()
            text = token if quoted is None else _ESCAPED.sub(rb"\1", quoted)
            key = name.decode("ascii").lower()
            if key in pairs:
                raise ValueError("a parameter is given twice")
            pairs[key] = text.decode("latin-1")
            place = match.end()
        separator = value[place : place + 1]
        place += 1
        if separator == b",":
            if pairs:
                yield pairs
            pairs = {}
        elif separator not in {b";", b"", b" ", b"\t"}:
            raise ValueError("neither a pair nor a separator")
        elif separator in {b" ", b"\t"} and match is not None:
            raise ValueError("two pairs without a separator")
    if pairs:
        yield pairs


def _hop(pairs: dict[str, str]) -> Hop:
    secure = pairs["proto"].lower() in _SECURE if "proto" in pairs else None
    return Hop(_packed(pairs.get("for", "unknown")), secure)


def _packed(text: str) -> bytes:
    """An address, perhaps with a port, packed; empty for what is none (``unknown``, ``_x``)."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return b""
        port = rest[1:]
        if rest and not port:
            return b""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            return b""
    if port and (not _PORT.fullmatch(port) or int(port) > 65535):
        # RFC 7239 section 6: a port may be hidden, too.
        if not port.startswith("_"):
            return b""
        port = ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return b""
    if "%" in host or ("[" in text[:1] and address.version == 4):
        return b""
    return _unmapped(address.packed + int(port or 0).to_bytes(2, "big"))


def _unmapped(peer: bytes) -> bytes:
    """A packed peer; an IPv4 address that is written as one of IPv6, as what it is."""
    return peer[12:] if len(peer) == 18 and peer.startswith(_MAPPED) else peer
