"""What is to be carried, and what a connection costs.

The costs are measured: see the table, which has the source of each.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable
from typing import Final

import msgspec

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.config.bus import EMBEDDED
from wssup.config.scaling import MAX_WORKERS
from wssup.config.settings import Settings
from wssup.doctor.facts import Facts
from wssup.doctor.served import ListenQueue, Server

__all__ = ["COSTS", "Costs", "Plan", "costs", "narrowest", "plan", "plan_of_server"]

#: Connections from which on a running instance tells better than the table what one costs.
_TELLING: Final = 1000


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes.

    :ivar connection: of a worker's own memory, for each connection.
    :ivar kernel_least: of the kernel's memory for an idle one; ``kernel_most``: for one that was
        used.
    :ivar charged_1: what of the kernel's memory counts for a control group of version 1.
    :ivar worker: a worker without connections; of pages that others have too, its part.
    :ivar resident: a worker without connections; pages that others have too count in full.
    :ivar warm: what a worker takes once, with its first connections.
    :ivar virtual: a worker's address space without connections.
    :ivar base: master, zygote and observer together.
    :ivar measured: ``connection`` was measured on the running instance.
    """

    connection: int
    kernel_least: int
    kernel_most: int
    charged_1: int
    worker: int
    resident: int
    warm: int
    virtual: int
    base: int
    measured: bool = False


COSTS: Final = {
    # benchmarks/results/engine.md, "Memory (PSS) of 15000 idle connections": 3073 and 1312 bytes,
    # and 18.7 MiB for a worker (32 MiB resident); benchmarks/results/asgi.md: 7265. The kernel's
    # memory: 3.7 KiB for an idle socket with its file, inode, dentry and epoll item, about 5 KiB
    # with a buffer. A control group of version 1 is charged only for what accept(2) and
    # epoll_ctl(2) allocate (1480 bytes each at 8000 connections), not for the socket itself.
    style: Costs(
        connection=connection,
        kernel_least=3789,
        kernel_most=5120,
        charged_1=1480,
        worker=19 << 20,
        resident=33 << 20,
        warm=64 << 10,
        virtual=46 << 20,
        base=48 << 20,
    )
    for style, connection in (("task", 3073), ("event", 1312), ("asgi", 7265), ("other", 24311))
}
"""By style of application; ``other`` is what uvicorn with websockets takes in the same table."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried, and with what.

    :ivar connections: how many; ``None``: as many as there can be.
    :ivar reserve: descriptors that a worker keeps for other things (``reserve_fds``).
    :ivar per_worker: ``worker_connections``; ``total``: ``max_connections``; 0: no limit.
    :ivar handshakes: ``max_handshakes_per_second``; 0: no limit.
    :ivar even: connections are steered to workers that have fewer, not divided by a hash.
    :ivar reconnects_per_second: connects that may come; ``None``: unknown.
    :ivar stall: seconds for which nobody may accept from a worker's queue (``stall_after``).
    :ivar ours: it is wssup, which raises its soft limits to the hard ones, and has settings.
    :ivar queues: listeners that share the connects; of several addresses, those of the one at which
        least may wait.
    :ivar queue: connects that may wait at each of these; ``None`` if there are none yet, or the
        kernel does not say. What it is was decided when they were made (listen(2)).
    :ivar helpers: processes besides workers.
    :ivar surge: ``max_surge``; 0: all.
    :ivar most: ``max_workers``.
    :ivar families: 4, 6 or both: of the addresses that are listened on; none if names hide them.
    :ivar proxies: ``trusted_proxies``; ``proxy_timeout``: seconds of silence after which a proxy
        ends a connection.
    """

    connections: int | None = None
    workers: int = 1
    reserve: int = 64
    per_worker: int = 0
    total: int = 0
    handshakes: int = 0
    even: bool = True
    reconnects_per_second: float | None = None
    stall: float = 2.0
    backlog: int = 4096
    ours: bool = True
    queues: int = 1
    queue: int | None = None
    unix: bool = False
    helpers: int = 3
    surge: int = 0
    most: int = MAX_WORKERS
    families: tuple[int, ...] = ()
    proxies: tuple[str, ...] = ()
    proxy_timeout: float = 60.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    costs: Costs = COSTS["task"]

    @property
    def at_once(self) -> int:
        """Workers that a reload replaces at the same time."""
        return min(self.surge or self.workers, self.workers)


def plan(
    settings: Settings,
    facts: Facts,
    *,
    workers: int,
    connections: int | None = None,
    reconnects_per_second: float | None = None,
    proxy_timeout: float = 60.0,
) -> Plan:
    """The plan that settings and options make.

    :param workers: how many there are to be.
    """
    unix = any(isinstance(parse_bind(bind), UnixAddress) for bind in settings.bind)
    # Unix sockets have no groups of listeners: one queue serves all.
    listeners, queue = 1 if unix else workers, None
    made = narrowest(facts.queues)
    if made is not None and facts.running is not None:
        # An instance may have been given fewer than it has workers. Its own grow with these.
        listeners = made[0] if unix or made[0] < facts.running.slots else workers
        queue = made[1]
    return Plan(
        connections=connections,
        workers=workers,
        reserve=settings.reserve_fds,
        per_worker=settings.worker_connections,
        total=settings.max_connections,
        handshakes=settings.max_handshakes_per_second,
        even=settings.steering == "least",
        reconnects_per_second=reconnects_per_second,
        stall=settings.stall_after,
        backlog=settings.backlog,
        queues=listeners,
        queue=queue,
        unix=unix,
        # Master and zygote.
        helpers=2 + settings.status + (settings.topics.bus != EMBEDDED),
        surge=0 if settings.max_surge == "all" else settings.max_surge,
        most=settings.max_workers,
        families=_families(settings.bind),
        proxies=settings.trusted_proxies,
        proxy_timeout=proxy_timeout,
        ping_interval=settings.heartbeat.ping_interval,
        ping_timeout=settings.heartbeat.ping_timeout,
        costs=costs(settings.interface, facts),
    )


def plan_of_server(
    server: Server,
    facts: Facts,
    *,
    connections: int | None = None,
    reconnects_per_second: float | None = None,
) -> Plan:
    """The plan for a server that is no wssup: as many processes as it has."""
    workers = facts.running.workers if facts.running is not None else ()
    others = [w.descriptors - w.connections for w in workers if w.descriptors is not None]
    listeners, queue = narrowest(server.queues) or (1, None)
    return Plan(
        connections=connections,
        workers=max(1, len(server.acceptors)),
        reserve=max(others, default=0),
        even=False,
        reconnects_per_second=reconnects_per_second,
        backlog=queue or 0,
        ours=False,
        queues=listeners,
        queue=queue,
        helpers=len(server.processes) - len(server.acceptors),
        costs=COSTS["other"],
    )


def _families(binds: Iterable[str]) -> tuple[int, ...]:
    """The families of addresses; empty if there is a name, which may have addresses of both, or
    one that is for both.
    """
    found = set()
    for bind in binds:
        address = parse_bind(bind)
        if not isinstance(address, TcpAddress):
            continue
        try:
            ip = ipaddress.ip_address(address.host.partition("%")[0])
        except ValueError:
            return ()
        if ip.version == 6 and ip.is_unspecified:
            return ()
        found.add(ip.version)
    return tuple(sorted(found))


def narrowest(queues: Iterable[ListenQueue]) -> tuple[int, int | None] | None:
    """The address at which fewest connects may wait: how many listeners it has, and how many
    connects may wait at each of them, or ``None`` where the kernel does not say. Clients of one
    address find no room in another's queues.
    """
    groups: dict[str, list[int]] = {}
    for queue in queues:
        groups.setdefault(queue.address, []).append(queue.limit)
    found = min(groups.values(), key=lambda limits: len(limits) * (min(limits) + 1), default=None)
    return None if found is None else (len(found), min(found) or None)


def costs(interface: str, facts: Facts) -> Costs:
    """What connections cost: as the running instance shows, or else as measured for the style.

    :param interface: as the setting; of ``auto`` the dearer style that it usually is.
    """
    found = COSTS.get(interface, COSTS["task"])
    running = facts.running
    if running is None:
        return found
    resident = [worker.resident for worker in running.workers if worker.resident is not None]
    if resident and not running.connections:
        found = msgspec.structs.replace(found, resident=max(resident))
    measured = _measured(facts)
    return (
        found
        if measured is None
        else msgspec.structs.replace(found, connection=measured, measured=True)
    )


def _measured(facts: Facts) -> int | None:
    """Bytes that a connection has in workers: what these have beyond the process that they were
    forked from.
    """
    running = facts.running
    if running is None or running.connections < _TELLING or running.zygote_anonymous is None:
        return None
    grown = 0
    for worker in running.workers:
        if worker.anonymous is None:
            return None
        grown += max(0, worker.anonymous - running.zygote_anonymous - COSTS["task"].warm)
    return math.ceil(grown / running.connections) or None
