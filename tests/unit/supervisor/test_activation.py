"""Descriptors that are passed: whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.errors import ListenError
from wssup.supervisor.activation import Found, Passed, check_kept, match, passed
from wssup.supervisor.fdstore import Store, Stored, parse_name
from wssup.supervisor.notify import Notifier
from wssup.supervisor.steering import folded

A, B = "127.0.0.1:8000", "unix:/run/app.sock"
WANTED = {A: A, B: B}


def stored(descriptor: int, address: str, slot: int, where: str | None = None) -> Found:
    return Found(descriptor, Stored(address, slot).name, address if where is None else where)


def test_what_is_passed() -> None:
    """Descriptors count from 3 and have names, or none; the variables are taken away."""
    environ = {"LISTEN_PID": "42", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web::x", "HOME": "/"}
    assert passed(environ, 42) == [Passed(3, "web"), Passed(4, "unknown"), Passed(5, "x")]
    assert environ == {"HOME": "/"}
    assert passed({"LISTEN_PID": "42", "LISTEN_FDS": "1"}, 42) == [Passed(3, "unknown")]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_PID": "41", "LISTEN_FDS": "2"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "two"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "99999999999"},
    ],
)
def test_nothing_is_passed(environ: dict[str, str]) -> None:
    """What is another process's, or makes no sense, is nothing."""
    assert passed(environ, 42) == []


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(0, 1999))
def test_names(address: str, slot: int) -> None:
    """A name tells its address and slot apart from others, and is one that systemd takes."""
    name = Stored(address, slot).name
    assert len(name) <= 255
    assert ":" not in name
    known = parse_name(name)
    assert known is not None
    assert known.slot == slot
    assert known.is_of(address)
    assert not known.is_of(address + "x")


@pytest.mark.parametrize("name", ["", "wssup", "wssup-shop", "wssup-0123456789abcdef-x", "stored"])
def test_other_names(name: str) -> None:
    """What a socket unit is named is no name of ours."""
    assert parse_name(name) is None


def test_matching() -> None:
    """Stored listeners go to their slots, in whatever order they come; those of a socket unit to
    their address, in its order.
    """
    found = [
        stored(5, A, 1),
        stored(4, A, 0),
        Found(3, "wssup", B),
    ]
    result = match(found, WANTED)
    assert result.stored == {A: {0: 4, 1: 5}}
    assert result.activated == {B: [3]}
    assert not result.foreign
    several = match([Found(n, "any", A) for n in (7, 6)], WANTED)
    assert several.activated == {A: [7, 6]}


def test_what_is_foreign() -> None:
    """No listener, an address that is not configured or is another by now, a slot twice, and what a
    socket unit has too, is dropped, each for its reason.
    """
    found = [
        Found(3, "memory"),
        Found(4, "wssup", B, "its file is gone"),
        stored(5, "127.0.0.1:9000", 0),
        stored(6, A, 0, "127.0.0.1:8001"),
        stored(7, A, 1),
        stored(8, A, 1),
        stored(9, B, 0),
        Found(10, "wssup", B),
    ]
    result = match(found, WANTED)
    assert result.stored == {A: {1: 7}}
    assert result.activated == {B: [10]}
    assert [(f.found.descriptor, f.why) for f in result.foreign] == [
        (3, "it is no listening stream socket"),
        (4, "its file is gone"),
        (5, "bind does not name its address any more"),
        (6, f"{A} is another address by now"),
        (8, "its slot has a listener already"),
        (9, "a socket unit has its address"),
    ]


def test_a_port_that_the_kernel_chose() -> None:
    """A stored listener of port 0 has the port that the kernel chose, and is the same address."""
    text = "127.0.0.1:0"
    assert match([stored(3, text, 0, "127.0.0.1:40123")], {text: text}).stored == {text: {0: 3}}
    assert match([stored(3, text, 0, "127.0.0.2:40123")], {text: text}).foreign


def test_a_mismatch() -> None:
    """A socket unit's listener that no bind names is an error that names both and the remedy."""
    with pytest.raises(ListenError) as caught:
        match([Found(3, "wssup", "[::]:8000")], WANTED)
    assert "passes a listener on [::]:8000 (named 'wssup')" in caught.value.message
    assert f"({A}, {B})" in caught.value.message
    assert "wssup systemd install --socket" in caught.value.remedy


def test_a_reload_keeps_what_a_socket_unit_has() -> None:
    """The addresses of a socket unit must stay configured."""
    check_kept([A], [B, A])
    with pytest.raises(ListenError, match="bind no longer names"):
        check_kept([A], [B])


def test_gaps_close() -> None:
    """Listeners after a gap get other numbers, so their old names are removed from the store; those
    before it stay.
    """
    store = Store(Notifier(None), 64)
    assert store.found(A, [0, 1, 3, 4]) == 2
    assert store.keep(A, 1, 0)
    # Nobody is told: nothing can be kept.
    assert not store.keep(A, 2, 0)


def test_folded_shares() -> None:
    """A listener of several slots has what they have together."""
    assert folded([1, 1, 1, 1], 2) == (2, 2)
    assert folded([0, 1, 1], 2) == (1, 1)
    assert folded([1, 0, 0], 2) == (1, 0)
    assert folded([1], 3) == (1, 0, 0)
