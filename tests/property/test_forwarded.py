"""What clients and proxies may write into forwarding headers, and what is believed of it."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wssup.server.forwarded import Client, TrustedProxies
from wssup.server.sockets import packed, unpacked

OUTSIDE = [ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_network("2001:db8:1::/64")]
INSIDE = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
PROXIES = ("10.0.0.0/8", "fd00::/8", "unix")

ports = st.integers(0, 65535)
outside = st.one_of(*(st.ip_addresses(network=n) for n in OUTSIDE))
inside = st.one_of(*(st.ip_addresses(network=n) for n in INSIDE))
#: What a client may send of its own.
stories = st.lists(
    st.one_of(
        outside.map(str), inside.map(str), st.sampled_from(["unknown", "", "_x", "é", '"', "%"])
    ),
    max_size=4,
)


def peer_of(address: Any, port: int) -> bytes:
    return packed((str(address), port) if address.version == 4 else (str(address), port, 0, 0))


def written(address: Any, port: int) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def token(address: Any, port: int) -> str:
    """As RFC 7239 section 4 wants it."""
    host = f"[{address}]" if address.version == 6 else str(address)
    text = f"{host}:{port}" if port else host
    return f'"{text}"' if ":" in text else text


@given(
    story=stories,
    client=outside,
    port=ports,
    way=st.lists(inside, max_size=3),
    last=st.one_of(st.just(b""), inside.map(lambda a: peer_of(a, 4711))),
    apart=st.booleans(),
)
def test_the_client_is_whom_the_outermost_trusted_proxy_saw(
    story: list[str], client: Any, port: int, way: list[Any], last: bytes, *, apart: bool
) -> None:
    """Whatever a client tells of itself, and through however many trusted proxies it comes, its
    address is the one that the first of them saw. Each may write a field of its own or extend one.
    """
    told = [*story, written(client, port), *(str(a) for a in way)]
    headers = [(b"x-forwarded-for", t.encode("latin-1", "replace")) for t in told]
    if not apart:
        headers = [(b"x-forwarded-for", b", ".join(value for _, value in headers))]
    found = TrustedProxies(PROXIES).client(last, headers)
    assert found == Client(peer_of(client, port), secure=False)
    assert unpacked(found.peer) == (str(client), port)


@given(
    story=st.lists(st.sampled_from(["for=198.51.100.7", "for=unknown;proto=https", "by=x"])),
    client=outside,
    port=ports,
    proto=st.sampled_from(["http", "https", "HTTPS", "ws", "wss", None]),
    way=st.lists(inside, max_size=3),
)
def test_forwarded_says_the_same(
    story: list[str], client: Any, port: int, proto: str | None, way: list[Any]
) -> None:
    """So it is with Forwarded, whose element for the client says the scheme, too."""
    scheme = f";proto={proto}" if proto else ""
    elements = [
        *story,
        f"For={token(client, port)}{scheme};by=_a",
        *(f"for={token(a, 0)};proto=http" for a in way),
    ]
    headers = [(b"forwarded", ", ".join(elements).encode())]
    found = TrustedProxies(PROXIES, "forwarded").client(b"", headers)
    secure = proto is not None and proto.lower() in {"https", "wss"}
    assert found == Client(peer_of(client, port), secure)


@given(
    peer=outside,
    told=st.lists(st.one_of(outside, inside).map(str), min_size=1),
    kind=st.sampled_from(["x-forwarded", "forwarded"]),
)
def test_nobody_else_is_believed(peer: Any, told: list[str], kind: str) -> None:
    """Who is no trusted proxy is the client, whatever it sends."""
    headers = [(b"x-forwarded-for", t.encode()) for t in told]
    headers += [(b"forwarded", f"for={t}".encode()) for t in told]
    headers += [(b"x-forwarded-proto", b"https")]
    assert TrustedProxies(PROXIES, kind).client(peer_of(peer, 1), headers) is None
    assert TrustedProxies((), kind).client(peer_of(peer, 1), headers) is None


@given(
    values=st.lists(st.binary(max_size=60), max_size=4),
    names=st.sampled_from([b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"]),
    kind=st.sampled_from(["x-forwarded", "forwarded"]),
    peer=inside,
)
def test_no_bytes_are_too_much(values: list[bytes], names: bytes, kind: str, peer: Any) -> None:
    """Any bytes in these headers give an address or none, and no error."""
    found = TrustedProxies(PROXIES, kind).client(peer_of(peer, 1), [(names, v) for v in values])
    assert found is not None
    assert len(found.peer) in {6, 18}
