"""Names of this machine."""

from __future__ import annotations

import pytest

from wssup.status.hosts import is_loopback, names_this_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback(host: str) -> None:
    """Addresses that only this machine reaches."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost", ""])
def test_not_loopback(host: str) -> None:
    """Other addresses, and what is no address."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "header",
    [
        *("localhost", "localhost:9000", "LOCALHOST", "localhost.", "a.localhost:1", "127.0.0.1"),
        *("127.0.0.1:9000", "[::1]", "[::1]:9000"),
    ],
)
def test_this_machine(header: str) -> None:
    """Host headers that can only mean this machine."""
    assert names_this_machine(header)


@pytest.mark.parametrize(
    "header",
    [
        *("", "evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.org"),
        *("notlocalhost", "10.0.0.1", "[::1", "[::1]x", "[fe80::1]", "::1", "127.0.0.1@evil.org"),
        "2130706433",
    ],
)
def test_another_machine(header: str) -> None:
    """Host headers of names that somebody else gives, and nonsense."""
    assert not names_this_machine(header)
