"""Forwarding headers, case by case."""

from __future__ import annotations

import pytest

from wssup.server.forwarded import Client, TrustedProxies, forwarded_hops
from wssup.server.sockets import packed

PROXY = packed(("10.0.0.1", 5000))
CLIENT = packed(("192.0.2.43", 0))


def client(kind: str, *fields: tuple[str, str], peer: bytes = PROXY) -> Client | None:
    headers = [(name.encode(), value.encode()) for name, value in fields]
    return TrustedProxies(("10.0.0.0/8", "::1", "unix"), kind).client(peer, headers)


@pytest.mark.parametrize(
    ("value", "peer", "secure"),
    [
        ("for=192.0.2.43", CLIENT, False),
        ('For="[2001:db8:cafe::17]:4711"', packed(("2001:db8:cafe::17", 4711, 0, 0)), False),
        ("for=192.0.2.60;proto=https;by=203.0.113.43", packed(("192.0.2.60", 0)), True),
        ("for=192.0.2.43, for=10.9.9.9", CLIENT, False),
        ('for=192.0.2.43;ext="a,b;c=\\"d\\"";proto=wss', CLIENT, True),
        ('for="192.0.2.43:_port"', CLIENT, False),
        ("for=192.0.2.43 ;proto=https , for=10.1.1.1", CLIENT, True),
        # Whom nobody knows: the proxy that says so is as near as one gets.
        ("for=_hidden;proto=https", PROXY, True),
        ("for=unknown, for=10.9.9.9", packed(("10.9.9.9", 0)), False),
        ("proto=https", PROXY, True),
        # What cannot be read says nothing.
        ('for="192.0.2.43', PROXY, False),
        ("for=192.0.2.43;for=192.0.2.44", PROXY, False),
        ("for==192.0.2.43", PROXY, False),
        ("for=192.0.2.43 proto=https", PROXY, False),
        ("for=2001:db8::1", PROXY, False),
        ('for="[192.0.2.43]"', PROXY, False),
        ('for="[::1%eth0]"', PROXY, False),
        ("", PROXY, False),
    ],
)
def test_forwarded(value: str, peer: bytes, secure: bool) -> None:  # noqa: FBT001 - a table
    """RFC 7239's examples, and what is none."""
    assert client("forwarded", ("forwarded", value)) == Client(peer, secure)


@pytest.mark.parametrize(
    ("addresses", "schemes", "peer", "secure"),
    [
        ("192.0.2.43", "https", CLIENT, True),
        ("192.0.2.43, 10.2.2.2", "https, http", CLIENT, True),
        ("192.0.2.43, 10.2.2.2", "http, https", CLIENT, False),
        # The last proxy replaced what those before it had said.
        ("192.0.2.43, 10.2.2.2", "https", CLIENT, True),
        ("1.1.1.1, 192.0.2.43", "x, y, https", CLIENT, True),
        ("192.0.2.43:4711", "", packed(("192.0.2.43", 4711)), False),
        ("::ffff:192.0.2.43", "", CLIENT, False),
        ("2001:db8::1", "", packed(("2001:db8::1", 0, 0, 0)), False),
        ("10.3.3.3, 10.2.2.2", "", packed(("10.3.3.3", 0)), False),
        ("", "https", PROXY, True),
        ("192.0.2.43, garbage", "", PROXY, False),
        ("192.0.2.43:", "", PROXY, False),
        ("192.0.2.43:70000", "", PROXY, False),
    ],
)
def test_x_forwarded(addresses: str, schemes: str, peer: bytes, secure: bool) -> None:  # noqa: FBT001
    """The same of the headers that most proxies write."""
    fields = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)]
    assert client("x-forwarded", *[f for f in fields if f[1]]) == Client(peer, secure)


def test_the_other_kind_is_ignored() -> None:
    """A proxy that writes one kind passes the other kind on, as the client sent it."""
    both = [("x-forwarded-for", "192.0.2.43"), ("forwarded", "for=198.51.100.1;proto=https")]
    assert client("x-forwarded", *both) == Client(CLIENT, secure=False)
    assert client("forwarded", *both) == Client(packed(("198.51.100.1", 0)), secure=True)


def test_an_ipv4_proxy_on_a_listener_for_both() -> None:
    """It is the same proxy when its address comes mapped into IPv6."""
    mapped = packed(("::ffff:10.0.0.1", 5000, 0, 0))
    found = client("x-forwarded", ("x-forwarded-for", "192.0.2.43"), peer=mapped)
    assert found == Client(CLIENT, secure=False)


def test_what_a_broken_field_hides() -> None:
    """A field that cannot be read hides what stands left of it, and no more."""
    fields = [b"for=198.51.100.1", b'for="', b"for=192.0.2.43"]
    hops = forwarded_hops([(b"forwarded", field) for field in fields])
    assert [hop.peer for hop in hops] == [CLIENT]


def test_spaces_alone_end() -> None:
    """A long run of what means nothing is looked through once."""
    assert forwarded_hops([(b"forwarded", b" " * 8000 + b";" * 8000)]) == []
