"""What a process holds of the kernel's sockets, and what there is at an address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from wssup.auditing.places import Place, Places
from wssup.kernel.borrowing import End
from wssup.kernel.procfs import Descriptor
from wssup.kernel.tcp import TcpSocket, TcpState
from wssup.kernel.unix import UnixSocket

__all__ = [
    "Dead",
    "Held",
    "Kernel",
    "Traffic",
    "held",
    "kernel",
    "sorted_dead",
    "strays",
    "traffic",
    "unlisted",
]

_ENDING = (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.CLOSING, TcpState.LAST_ACK)


class Kernel(NamedTuple):
    """The sockets of a network namespace at one moment.

    :ivar tcp: those that a process has, by inode; ``unowned`` the others.
    :ivar unix: by inode; those that wait to be accepted are all in ``waiting``.
    """

    tcp: Mapping[int, TcpSocket]
    unowned: list[TcpSocket]
    unix: Mapping[int, UnixSocket]
    waiting: list[UnixSocket]


class Held(NamedTuple):
    """What a process holds.

    :ivar kinds: how many descriptors of each kind.
    :ivar connections: descriptors of connections that came to the places.
    :ivar outgoing: descriptors of other TCP connections: those it made itself.
    :ivar listeners: descriptors that listen.
    :ivar close_wait: the connections whose peer has closed and that it keeps (TCP's CLOSE_WAIT):
        inodes, and seconds since the peer was heard, ``None`` if that is unknown.
    :ivar outgoing_close_wait: the same among those it made itself.
    :ivar dead: TCP sockets (inodes) of the places that are connected to nobody: they were reset.
    :ivar dead_elsewhere: other TCP sockets that are connected to nobody, and those of which nobody
        may know where: they were made for connections to others and reset, or never connected.
    :ivar untold: how many of these may be of the places.
    :ivar elsewhere: connections that are at no place: those it made itself, and those that came to
        a place that is not known any more.
    """

    kinds: dict[str, int]
    connections: int
    outgoing: int
    listeners: int
    close_wait: dict[int, float | None]
    outgoing_close_wait: dict[int, float | None]
    dead: frozenset[int]
    dead_elsewhere: frozenset[int] = frozenset()
    untold: int = 0
    elsewhere: int = 0


class Dead(NamedTuple):
    """The TCP sockets of a process that are in no table of the kernel: inodes, as `Held` sorts
    them.
    """

    here: frozenset[int]
    elsewhere: frozenset[int] = frozenset()
    untold: int = 0


class Traffic(NamedTuple):
    """What there is at an address, whoever holds it.

    :ivar established: connections that are open, those in accept queues with them.
    :ivar close_wait: whose peer has closed.
    :ivar ending: whose end the process has closed and that the kernel ends.
    :ivar syn: that are being made.
    :ivar waiting: that wait in accept queues; ``limit``: how many may wait; 0 if unknown.
    :ivar gave_up: of those that wait, how many clients have closed meanwhile.
    """

    address: str
    established: int
    close_wait: int
    ending: int
    time_wait: int
    syn: int
    waiting: int
    limit: int
    gave_up: int


def kernel(tcp: Iterable[TcpSocket], unix: Iterable[UnixSocket] = ()) -> Kernel:
    """Sort the sockets of the kernel's tables."""
    owned: dict[int, TcpSocket] = {}
    unowned = []
    for sock in tcp:
        if sock.inode:
            owned[sock.inode] = sock
        else:
            unowned.append(sock)
    unix = list(unix)
    return Kernel(
        owned,
        unowned,
        {sock.inode: sock for sock in unix if sock.inode},
        [sock for sock in unix if sock.state == "waiting"],
    )


def unlisted(descriptors: Mapping[int, Descriptor], there: Kernel) -> Iterator[tuple[int, int]]:
    """Sockets that are in no table: number and inode. Another kind, or dead, or closed since."""
    for number, (kind, inode) in descriptors.items():
        if kind == "socket" and inode not in there.tcp and inode not in there.unix:
            yield number, inode


def sorted_dead(ends: Mapping[int, End | None], places: Places) -> Dead:
    """Sort the `unlisted` sockets that are of TCP.

    :param ends: their own addresses by inode, ``None`` where nobody may know it.
    """
    here = frozenset(inode for inode, end in ends.items() if end and places.at(*end))
    return Dead(here, frozenset(ends) - here, sum(end is None for end in ends.values()))


def held(descriptors: Mapping[int, Descriptor], there: Kernel, places: Places, dead: Dead) -> Held:
    """What a process holds."""
    connections = outgoing = listeners = elsewhere = 0
    close_wait: dict[int, float | None] = {}
    outgoing_close_wait: dict[int, float | None] = {}
    for kind, inode in descriptors.values():
        if kind != "socket":
            continue
        sock = there.tcp.get(inode)
        if sock is None:
            local = there.unix.get(inode)
            if local is None:
                continue
            listeners += local.state == "listening"
            here = places.path(local) is not None
            connections += local.state == "connected" and here
            # The ends of those who connect have no path.
            elsewhere += local.state == "connected" and bool(local.path) and not here
        elif sock.state == TcpState.LISTEN:
            listeners += 1
        elif places.tcp(sock) is not None:
            connections += 1
            if sock.state == TcpState.CLOSE_WAIT:
                close_wait[inode] = sock.heard
        else:
            outgoing += 1
            elsewhere += 1
            if sock.state == TcpState.CLOSE_WAIT:
                outgoing_close_wait[inode] = sock.heard
    return Held(
        kinds=dict(Counter(kind for kind, _ in descriptors.values()).most_common()),
        connections=connections,
        outgoing=outgoing,
        listeners=listeners,
        close_wait=close_wait,
        outgoing_close_wait=outgoing_close_wait,
        dead=dead.here,
        dead_elsewhere=dead.elsewhere,
        untold=dead.untold,
        elsewhere=elsewhere,
    )


def strays(there: Kernel, places: Places, workers: Collection[int]) -> frozenset[int]:
    """TCP connections at the places that some process has, and none of the workers: inodes. Where
    another server has the port on another address, they may be its.

    :param workers: the inodes that the workers have.
    """
    return frozenset(
        inode
        for inode, sock in there.tcp.items()
        if inode not in workers and sock.state != TcpState.LISTEN and places.tcp(sock) is not None
    )


def traffic(there: Kernel, places: Places) -> list[Traffic]:
    """What there is at each place."""
    states: dict[Place, Counter[int]] = {place: Counter() for place in places.all}
    waiting: Counter[Place] = Counter()
    limits: Counter[Place] = Counter()
    gave_up: Counter[Place] = Counter()
    for sock in (*there.tcp.values(), *there.unowned):
        place = places.tcp(sock)
        if place is None:
            continue
        states[place][sock.state] += 1
        if sock.state == TcpState.LISTEN:
            waiting[place] += sock.rqueue
            limits[place] += sock.wqueue
        elif sock.state == TcpState.CLOSE_WAIT and not sock.inode:
            # A process that closes one of these takes it out of this state: nobody has had it yet.
            gave_up[place] += 1
    for local in (*there.unix.values(), *there.waiting):
        place = places.path(local)
        if place is not None and local.state in ("connected", "waiting"):
            states[place][TcpState.ESTABLISHED] += 1
            waiting[place] += local.state == "waiting"
    return [
        Traffic(
            address=place.text,
            established=seen[TcpState.ESTABLISHED],
            close_wait=seen[TcpState.CLOSE_WAIT],
            ending=sum(seen[state] for state in _ENDING),
            time_wait=seen[TcpState.TIME_WAIT],
            syn=seen[TcpState.SYN_RECV],
            waiting=waiting[place],
            limit=limits[place],
            gave_up=gave_up[place],
        )
        for place, seen in states.items()
    ]
