from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.config.addresses import MAX_UNIX_PATH, TcpAddress, UnixAddress, parse_bind
from wssup.config.values import BadValueError

ports = st.integers(0, 65535)
hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.from_regex(r"[a-z0-9]{1,10}(\.[a-z]{1,10}){1,3}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        ("LocalHost:0", TcpAddress("localhost", 0)),
        ("my_host.internal:1", TcpAddress("my_host.internal", 1)),
        ("[::]:8000", TcpAddress("::", 8000)),
        ("[0:0::1]:80", TcpAddress("::1", 80)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:///run//./app,1.sock", UnixAddress("/run/app,1.sock")),
    ],
)
def test_right_addresses_are_read(text: str, address: TcpAddress | UnixAddress) -> None:
    """IPv4, IPv6 in brackets, hostnames and unix paths are read, in canonical form."""
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (":8765", "0.0.0.0:8765 or [::]:8765"),
        ("*:8765", "0.0.0.0:8765"),
        ("8765", "127.0.0.1:8765"),
        ("", "127.0.0.1:8000"),
        ("localhost", "localhost:8000"),
        ("localhost:", "localhost:8000"),
        ("localhost:http", "localhost:8000"),
        ("localhost:65536", "localhost:8000"),
        ("localhost:-1", "localhost:8000"),
        ("localhost:٣", "localhost:8000"),
        ("::1:8765", "[::1]:8765"),
        ("2001:db8::1", "[2001:db8::1]:8000"),
        ("a:b:c", "[::1]:8000"),
        ("[::1]", "[::1]:8000"),
        ("[::1", "[::1]:8000"),
        ("[::1]8000", "[::1]:8000"),
        ("[localhost]:80", "[::1]:8000"),
        ("[fe80::1%a b]:80", "[fe80::1%eth0]:8000"),
        ("256.0.0.1:80", "127.0.0.1:8000"),
        ("127.1:80", "127.0.0.1:8000"),
        ("bad host:80", "localhost:8000"),
        ("bücher.example:80", "localhost:8000"),
        ("-x:80", "localhost:8000"),
        ("a" * 64 + ":80", "localhost:8000"),
        ("ws://0.0.0.0:80/", "0.0.0.0:80"),
        ("/run/app.sock", "unix:/run/app.sock"),
        ("unix:app.sock", "unix:/run/app.sock"),
        ("unix:", "unix:/run/app.sock"),
        ("unix:/", "unix:/run/app.sock"),
        ("unix:/run/..", "unix:/run/app.sock"),
        ("unix:/run/\n", "unix:/run/app.sock"),
        ("unix:/" + "x" * MAX_UNIX_PATH, "unix:/run/app.sock"),
        ("unix:/run/" + "é" * 60, "unix:/run/app.sock"),
    ],
)
def test_wrong_addresses_are_refused_with_a_right_one(text: str, remedy: str) -> None:
    """A wrong address is refused, and the remedy shows a right one, made from it where possible."""
    with pytest.raises(BadValueError) as caught:
        parse_bind(text)
    assert remedy in caught.value.remedy
    assert caught.value.problem


@given(hosts, ports)
def test_tcp_addresses_are_read_back(host: str, port: int) -> None:
    """The text of a TCP address is read back to the same address."""
    address = parse_bind(f"{host}:{port}")
    assert address == TcpAddress(host, port)
    assert parse_bind(str(address)) == address


@given(st.ip_addresses(v=6), ports)
def test_ipv6_addresses_are_read_back_and_need_brackets(host: object, port: int) -> None:
    """An IPv6 address is read in brackets, however it is written, and refused without."""
    address = parse_bind(f"[{host}]:{port}")
    assert isinstance(address, TcpAddress)
    assert address.port == port
    assert socket.inet_pton(socket.AF_INET6, address.host) == host.packed  # type: ignore[attr-defined]
    assert parse_bind(str(address)) == address
    with pytest.raises(BadValueError):
        parse_bind(f"{host}:{port}")


@given(st.text(max_size=40) | st.text("[]:.%/*1aunix", max_size=20))
def test_any_text_is_an_address_in_canonical_form_or_refused(text: str) -> None:
    """Whatever is given, the outcome is an address whose text is canonical, or BadValueError."""
    try:
        address = parse_bind(text)
    except BadValueError:
        return
    assert parse_bind(str(address)) == address
    assert str(parse_bind(str(address))) == str(address)


def test_the_longest_unix_path_can_be_bound() -> None:
    """A path of the greatest length that is accepted is one that the kernel accepts."""
    directory = Path("/tmp") / f"wssup-{os.getpid()}"
    directory.mkdir()
    path = directory / ("x" * (MAX_UNIX_PATH - len(str(directory)) - 1))
    try:
        address = parse_bind(f"unix:{path}")
        assert isinstance(address, UnixAddress)
        assert len(address.path) == MAX_UNIX_PATH
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address.path)
    finally:
        path.unlink(missing_ok=True)
        directory.rmdir()
