"""An audit's judgement, against a model in which every connection's life is known."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.auditing.holding import (
    Dead,
    Held,
    held,
    kernel,
    sorted_dead,
    strays,
    traffic,
    unlisted,
)
from wssup.auditing.judging import Counted, Look, Pile, ages, findings, leak, pile, stayed
from wssup.auditing.places import Places, listened, named, served
from wssup.kernel.borrowing import End
from wssup.kernel.procfs import Descriptor
from wssup.kernel.tcp import TcpSocket, TcpState
from wssup.kernel.unix import UnixSocket

few = settings(max_examples=50)
LONG = 400
"""The model's clock runs from 0 to here."""


class Life(NamedTuple):
    """A connection, from when it is counted and open to when it is neither."""

    begins: int
    ends: int


lives = st.lists(
    st.tuples(st.integers(-LONG, LONG), st.integers(1, LONG)).map(
        lambda pair: Life(pair[0], pair[0] + pair[1])
    ),
    max_size=30,
)
#: When a look reads the counters, each connection's descriptor, the kernel, the counters again.
times = st.lists(st.integers(0, LONG // 4), min_size=4, max_size=4)


def a_look(there: list[Life], at: list[int], began: int, leaked: int, lost: int) -> Look:
    """A look at a worker that keeps `leaked` descriptors uncounted and counts `lost` too many."""
    first, second, third, fourth = sorted(began + offset for offset in at)
    have = sum(
        # Descriptors are looked at one after the other.
        life.begins <= first + (second - first) * n // max(1, len(there)) and life.ends > third
        for n, life in enumerate(there)
    )

    def counted(now: int) -> Counted:
        return Counted(
            sum(life.begins <= now < life.ends for life in there) + lost,
            sum(life.begins <= now for life in there) + lost,
        )

    what = Held({}, have + leaked, 0, 0, {}, {}, frozenset())
    return Look(float(third), what, counted(first), counted(fourth))


@few
@given(lives, st.lists(st.tuples(times, st.integers(0, LONG // 2)), min_size=1, max_size=4))
def test_a_server_without_a_leak_is_never_accused(
    there: list[Life], when: list[tuple[list[int], int]]
) -> None:
    """Whatever comes and goes while one looks, in one look or several, is no leak."""
    found = leak([a_look(there, at, began, 0, 0) for at, began in when])
    assert found[:3] == (0, 0, 0)


@few
@given(lives, times, *[st.integers(0, 9)] * 2)
def test_a_leak_is_found(there: list[Life], at: list[int], leaked: int, lost: int) -> None:
    """A leak is never made larger than it is, and all of it is found but what came and went
    meanwhile; in a quiet look it is exact.
    """
    for size, kind in ((leaked, "uncounted"), (lost, "gone")):
        one = {"leaked": size, "lost": 0} if kind == "uncounted" else {"leaked": 0, "lost": size}
        found = leak([a_look(there, at, 0, **one)])._asdict()
        assert max(0, size - found["unsure"]) <= found[kind] <= size
        assert found["uncounted"] + found["gone"] == found[kind]


def test_what_does_not_stay_is_no_leak() -> None:
    """What one look shows and the next one does not was chance, for each kind."""
    nothing = Held({}, 5, 0, 0, {}, {}, frozenset())
    one_more = nothing._replace(connections=6)
    reset = nothing._replace(dead=frozenset({7}))
    another = nothing._replace(dead=frozenset({8}))
    counted = Counted(5, 5)
    looks = [Look(n, seen, counted, counted) for n, seen in enumerate((one_more, nothing))]
    assert leak(looks[:1]) == (1, 0, 0, 0)
    assert leak(looks) == (0, 0, 0, 0)
    looks = [Look(n, seen, counted, counted) for n, seen in enumerate((reset, another))]
    assert leak(looks[:1]) == (0, 0, 1, 0)
    assert leak(looks) == (0, 0, 0, 0)
    assert leak([Look(0, reset)]) == (0, 0, 1, 0)


def test_a_reset_connection_that_is_still_counted_is_neither() -> None:
    """Until the worker has noticed a reset it counts a connection that the kernel has forgotten."""
    counted = Counted(5, 5)
    four = Held({}, 4, 0, 0, {}, {}, frozenset({7}))
    assert leak([Look(0, four, counted, counted)]) == (0, 0, 0, 0)


def test_a_dead_socket_of_the_application_is_no_leak() -> None:
    """A pooled connection to a database that was reset, or a socket that was never connected, is
    no leak of a client's connection; nor is one of which nobody may know.
    """
    places = Places(filter(None, [named("127.0.0.1:80")]))
    ends = {1: End(b"\x7f\0\0\1", 80), 2: End(b"\x7f\0\0\1", 40000), 3: End(bytes(4), 0), 4: None}
    dead = sorted_dead(ends, places)
    assert dead == Dead(frozenset({1}), frozenset({2, 3, 4}), 1)
    counted = Counted(5, 5)
    five = Held({}, 5, 0, 0, {}, {}, frozenset(), dead.elsewhere, dead.untold)
    assert leak([Look(0, five, counted, counted)]) == (0, 0, 0, 0)
    assert leak([Look(0, five._replace(dead=dead.here), counted, counted)]) == (0, 0, 1, 0)
    # They may be of clients all the same, whose worker has not noticed the reset yet.
    assert leak([Look(0, five._replace(connections=2), counted, counted)]) == (0, 0, 0, 0)
    assert leak([Look(0, five._replace(connections=1), counted, counted)]) == (0, 1, 0, 0)


@few
@given(*[st.integers(0, 20)] * 4)
def test_a_removed_address(now: int, before: int, outgoing: int, lost: int) -> None:
    """Connections that came to an address which a reload has removed live on and are counted, and
    look like outgoing ones. They are never called gone; what is gone beyond them is.
    """
    counted = Counted(now + before + lost, 99)
    seen = Held({}, now, 0, 0, {}, {}, frozenset(), elsewhere=before + outgoing)
    look = Look(0, seen, counted, counted, former=True)
    assert leak([look]) == (0, max(0, lost - outgoing), 0, 0)
    without = look._replace(held=seen._replace(elsewhere=outgoing), former=False)
    assert leak([without]).gone == before + lost


@few
@given(
    st.dictionaries(st.integers(1, 20), st.floats(0, 100), max_size=9),
    st.floats(0, 100),
    st.integers(0, 9),
)
def test_piles(there: dict[int, float], older_than: float, tolerated: int) -> None:
    """A pile is what is older than the bound, and a finding if it is larger than tolerated."""
    what = Held({}, 0, 0, 0, dict(there), {}, frozenset())
    found = pile([Look(0, what)], older_than)
    old = [age for age in there.values() if age >= older_than]
    assert found == (len(old), max(old, default=None))
    accused = findings(1, 2, leak([Look(0, what)]), found, most_kept=tolerated)
    assert len(accused) == (len(old) > tolerated)


def test_ages_that_nobody_tells() -> None:
    """Where the kernel tells no ages, what stays in CLOSE_WAIT from look to look gets old; what
    left it meanwhile begins anew.
    """

    def look(at: float, *inodes: int) -> Look:
        return Look(at, Held({}, 0, 0, 0, dict.fromkeys(inodes), {}, frozenset()))

    looks = [look(0, 1, 2), look(1, 1), look(2, 1, 2)]
    assert ages(looks) == {1: 2, 2: 0}
    assert pile(looks, 30, known=False) == Pile(1, 2)
    assert pile(looks[:1], 30, known=False) == Pile(0, None)


def test_strays_stay() -> None:
    """A stray is one that the same process has in every look."""
    looks = [{7: frozenset({1, 2}), 8: frozenset({3})}, {7: frozenset({2, 4})}]
    assert [finding[:4] for finding in stayed(looks)] == [("stray", 7, None, 1)]
    assert stayed([{}]) == []


def tcp(state: int, inode: int, local: bytes, port: int, heard: float | None = None) -> TcpSocket:
    """A socket at an address of its own."""
    return TcpSocket(state, local, port, b"\x0a\0\0\1", 50000, inode, 0, 3, 9, heard)


def test_what_a_process_holds() -> None:
    """Connections are told apart by the address they came to: those to another address of the
    port, or elsewhere, are outgoing ones. Duplicates count twice.
    """
    here, there = b"\x7f\0\0\1", b"\x7f\0\0\2"
    mapped = bytes(10) + b"\xff\xff" + here
    given = ("127.0.0.1:80", "unix:/a b", "nonsense")
    places = Places(filter(None, map(named, given)))
    seen = kernel(
        [
            tcp(TcpState.LISTEN, 1, here, 80),
            tcp(TcpState.ESTABLISHED, 2, mapped, 80),
            tcp(TcpState.CLOSE_WAIT, 3, here, 80, 2.5),
            tcp(TcpState.ESTABLISHED, 4, there, 80),
            tcp(TcpState.CLOSE_WAIT, 5, here, 81, 1.5),
            tcp(TcpState.ESTABLISHED, 0, here, 80),
            tcp(TcpState.CLOSE_WAIT, 0, here, 80),
            tcp(TcpState.TIME_WAIT, 0, here, 80),
            tcp(TcpState.LAST_ACK, 0, here, 80),
            tcp(TcpState.ESTABLISHED, 9, here, 80),
        ],
        [
            UnixSocket(11, "/a b", "listening"),
            UnixSocket(12, "/a b", "connected"),
            UnixSocket(13, "/b", "connected"),
            UnixSocket(0, "/a b", "waiting"),
        ],
    )
    descriptors = {
        n: Descriptor("socket", inode) for n, inode in enumerate((1, 2, 2, 3, 4, 5, 11, 12, 13, 99))
    } | {50: Descriptor("file", 0), 51: Descriptor("pipe", 2)}
    assert list(unlisted(descriptors, seen)) == [(9, 99)]
    found = held(descriptors, seen, places, sorted_dead({99: End(here, 80), 98: None}, places))
    assert found == Held(
        kinds={"socket": 10, "file": 1, "pipe": 1},
        connections=4,
        outgoing=2,
        listeners=2,
        close_wait={3: 2.5},
        outgoing_close_wait={5: 1.5},
        dead=frozenset({99}),
        dead_elsewhere=frozenset({98}),
        untold=1,
        elsewhere=3,
    )
    assert strays(seen, places, {inode for _, inode in descriptors.values()}) == {9}
    assert [place[:] for place in traffic(seen, places)] == [
        ("127.0.0.1:80", 3, 2, 1, 1, 0, 3, 9, 1),
        ("unix:/a b", 2, 0, 0, 0, 0, 1, 0, 0),
    ]


def test_a_host_name() -> None:
    """An address that is a host's name is where its listeners are; those in numbers are taken
    once, as they are named.
    """
    listeners = [
        tcp(TcpState.LISTEN, 1, b"\x7f\0\0\1", 80),
        tcp(TcpState.LISTEN, 2, bytes(15) + b"\1", 80),
        tcp(TcpState.LISTEN, 3, bytes(16), 81),
    ]
    names = ("localhost:80", "0.0.0.0:81", "unix:/x")
    places = served(names, listened(listeners, [], {1, 2, 3}))
    assert [place.text for place in places.all] == [
        *("0.0.0.0:81", "unix:/x", "127.0.0.1:80", "[::1]:80"),
    ]
    assert places.tcp(tcp(TcpState.ESTABLISHED, 5, b"\x7f\0\0\1", 80)) is not None
    assert served(["localhost:80"], Places(())).all == ()


def test_addresses_of_listeners() -> None:
    """A server's addresses are those of its listeners; a wildcard is any of this machine."""
    wild = tcp(TcpState.LISTEN, 1, bytes(16), 80)
    other = tcp(TcpState.LISTEN, 2, bytes(4), 81)
    local = UnixSocket(3, "/x", "listening")
    places = listened([wild, other], [local], {1, 3})
    assert [place.text for place in places.all] == ["[::]:80", "unix:/x"]
    assert places.tcp(tcp(TcpState.ESTABLISHED, 5, b"\x7f\0\0\1", 80)) is not None
    assert places.tcp(tcp(TcpState.ESTABLISHED, 5, b"\x7f\0\0\1", 81)) is None
    assert places.path(UnixSocket(9, "/x", "connected")) is not None


@few
@given(st.text(max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """Whatever stands in a document, it is an address or none."""
    found = named(text)
    assert found is None or found.text == text
