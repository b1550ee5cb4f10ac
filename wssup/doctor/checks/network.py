"""The kernel's queues, tables and counters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from wssup.doctor.checks.common import UNKNOWN_NEED, limit, unknown
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.plan import Plan
from wssup.doctor.words import at_least, number, rounded

__all__ = [
    "COUNTERS",
    "accept_queue",
    "conntrack",
    "counters",
    "migration",
    "queue_length",
    "speed",
    "syn_queue",
    "tcp_memory",
]

#: Seconds that a far client's handshake takes, in which it is in the SYN queue.
_ROUND_TRIP: Final = 1.0
#: The kernel's own value since 5.4 (Documentation/admin-guide/sysctl/net.rst).
_SOMAXCONN: Final = 4096

COUNTERS: Final = {
    "ListenOverflows": "accept queues were full: see the accept queue above, and whether workers "
    "stall (wssup status)",
    "ListenDrops": "connects were dropped at listeners: see the accept queue above",
    "TCPReqQFullDrop": "SYN queues were full and syncookies are off: net.ipv4.tcp_syncookies = 1",
    "TCPMemoryPressures": "TCP ran into its memory's pressure: see TCP memory above",
    "TCPAbortOnMemory": "the kernel ended connections for want of TCP memory: see TCP memory above",
}
"""Counters of TcpExt that should not grow, and what it means when they do."""


def queue_length(facts: Facts, plan: Plan) -> int | None:
    """How many connects may wait at each listener, as it is or as it will be made: min(backlog,
    somaxconn) (listen(2)).
    """
    if plan.queue is not None or not plan.ours:
        return plan.queue
    somaxconn = facts.network.somaxconn
    return None if somaxconn is None else min(plan.backlog, somaxconn)


def accept_queue(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """The queue against what comes while nobody accepts. The kernel lets one more wait than it is
    told.
    """
    name = "accept queue"
    queue = queue_length(facts, plan)
    if queue is None:
        why = "/proc/sys/net/core/somaxconn cannot be read"
        if facts.network.elsewhere or not plan.ours:
            why = "the kernel does not say from here how many may wait"
        yield unknown(name, why)
        return
    somaxconn = facts.network.somaxconn
    waiting = plan.queues * (queue + 1)
    noun = "listener" if plan.queues == 1 else "listeners"
    found = f"{plan.queues} {noun}, {number(queue)} each"
    if queue < plan.backlog:
        found += f" (backlog {number(plan.backlog)} {_cut_by(somaxconn, plan)})"
    rate = plan.reconnects_per_second
    if rate is None:
        cut = queue < plan.backlog
        yield Finding(
            check=name,
            found=f"{found}; enough for {number(int(waiting / plan.stall))} connects/s",
            needed=UNKNOWN_NEED,
            verdict=Verdict.WARN if cut else Verdict.OK,
            remedy=_queue_remedy(somaxconn, plan, plan.backlog) if cut else "",
            predicted=waiting,
            of="waiting",
            changes=_queue_changes(somaxconn, plan.backlog) if cut else (),
        )
        return
    need = math.ceil(rate / plan.queues * plan.stall)
    fits = need <= queue + 1
    yield Finding(
        check=name,
        found=f"{found}; {number(waiting)} may wait",
        needed=f"{at_least(need)} each ({number(math.ceil(rate))}/s for {plan.stall:g} s)",
        verdict=Verdict.OK if fits else Verdict.FAIL,
        remedy="" if fits else _queue_remedy(somaxconn, plan, rounded(need)),
        predicted=waiting,
        of="waiting",
        changes=() if fits else _queue_changes(somaxconn, rounded(need)),
    )


def _cut_by(somaxconn: int | None, plan: Plan) -> str:
    if somaxconn is not None and somaxconn < plan.backlog:
        return "is cut by net.core.somaxconn"
    return "was cut by net.core.somaxconn when they were made"


def _queue_remedy(somaxconn: int | None, plan: Plan, need: int) -> str:
    """What makes each queue as long.

    :param somaxconn: as it is now, which need not be what listeners were made with.
    """
    value = max(_SOMAXCONN, need)
    remedies = []
    if somaxconn is None:
        remedies.append(f"net.core.somaxconn = {value} in its network namespace")
    elif somaxconn < need:
        remedies.append(f"sysctl -w net.core.somaxconn={value}")
    if plan.backlog < need:
        remedies.append(
            f"backlog = {value}" if plan.ours else f"a backlog of {value} in the server"
        )
    if not remedies:
        return "a restart: it makes listeners with net.core.somaxconn as it is now"
    # The kernel cuts a backlog when a listener is made.
    return " and ".join(remedies) + ("" if plan.queue is None else " (a restart applies it)")


def _queue_changes(somaxconn: int | None, need: int) -> tuple[Change, ...]:
    if somaxconn is None or somaxconn >= need:
        return ()
    return (Change("sysctl", "net.core.somaxconn", str(max(_SOMAXCONN, need))),)


def syn_queue(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """With syncookies nothing is refused when the SYN queue is full; without them a quarter of
    tcp_max_syn_backlog is kept for known clients, and no more are in it than may wait to be
    accepted (tcp_conn_request() in tcp_input.c).
    """
    name = "SYN queue"
    cookies, backlog = facts.network.syncookies, facts.network.syn_backlog
    if cookies is None or backlog is None:
        why = "/proc/sys/net/ipv4/tcp_syncookies cannot be read"
        yield unknown(name, "it is in another network" if facts.network.elsewhere else why)
        return
    if cookies:
        yield Finding(
            check=name,
            found=f"net.ipv4.tcp_syncookies {cookies}: no connect is refused",
            needed=UNKNOWN_NEED,
            verdict=Verdict.OK,
        )
        return
    usable = backlog - backlog // 4
    queue = queue_length(facts, plan)
    usable = usable if queue is None else min(usable, queue)
    rate = plan.reconnects_per_second
    need = None if rate is None else math.ceil(rate / plan.queues * _ROUND_TRIP)
    yield Finding(
        check=name,
        found=f"syncookies are off; room for {number(usable)} new clients, by "
        f"net.ipv4.tcp_max_syn_backlog {number(backlog)} and the accept queue",
        needed=UNKNOWN_NEED if need is None else at_least(need),
        verdict=Verdict.FAIL if need is not None and need > usable else Verdict.WARN,
        remedy="sysctl -w net.ipv4.tcp_syncookies=1: a flood of SYNs shuts everybody out",
        changes=(Change("sysctl", "net.ipv4.tcp_syncookies", "1"),),
    )


def tcp_memory(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """net.ipv4.tcp_mem, which is in pages (tcp(7)), against one page for each connection. An idle
    connection has none; one with a byte on the way has one.
    """
    name = "TCP memory"
    bounds, used = facts.network.tcp_mem, facts.network.tcp_pages
    if bounds is None or used is None:
        yield unknown(name, "/proc/sys/net/ipv4/tcp_mem or /proc/net/sockstat cannot be read")
        return
    _, pressure, high = bounds
    missing = max(0, (plan.connections or 0) - facts.present)
    need = used + missing
    # The kernel's own values are to each other as 3, 4 and 6 (tcp_init_mem() in tcp.c).
    wanted = rounded(2 * need)
    values = f"{wanted * 3 // 4} {wanted} {wanted * 3 // 2}"
    found = f"{number(used)} pages in use, pressure from {number(pressure)}, end at {number(high)}"
    verdict = Verdict.OK
    if used >= high:
        verdict = Verdict.FAIL
    elif used >= pressure or (plan.connections is not None and need > pressure):
        verdict = Verdict.WARN
    yield Finding(
        check=name,
        found=found,
        needed=UNKNOWN_NEED
        if plan.connections is None
        else f"{at_least(need)} pages when all have data on the way",
        verdict=verdict,
        remedy=""
        if verdict is Verdict.OK
        else f'sysctl -w net.ipv4.tcp_mem="{values}" (pages of {facts.page} bytes)',
        changes=() if verdict is Verdict.OK else (Change("sysctl", "net.ipv4.tcp_mem", values),),
    )


def conntrack(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """nf_conntrack_max: each connection that a firewall with states sees is an entry."""
    most, used = facts.network.conntrack_max, facts.network.conntrack_count
    if most is None or used is None:
        return
    name = "connection tracking"
    sockets = facts.network.tcp_sockets
    if not used and sockets:
        yield Finding(
            check=name,
            found=f"loaded, and tracks none of {number(sockets)} TCP sockets",
            needed=UNKNOWN_NEED,
            verdict=Verdict.OK,
        )
        return
    # Without a socket nothing tells whether what comes will be tracked: then it is believed to be.
    others = max(0, used - facts.present)
    need = others + (plan.connections or 0)
    value = rounded(need + need // 4)
    yield limit(
        name,
        plan,
        found=f"net.netfilter.nf_conntrack_max {number(most)}, {number(used)} tracked",
        needed=at_least(need),
        connections=most - others,
        remedy=f"sysctl -w net.netfilter.nf_conntrack_max={value}, or do not track this port "
        "(notrack in nftables)",
        changes=(Change("sysctl", "net.netfilter.nf_conntrack_max", str(value)),),
    )


def migration(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """tcp_migrate_req moves what waits at a listener that closes to another one, which it picks by
    hash.
    """
    value = facts.network.migrate_req
    if value is None or not plan.ours:
        # Before Linux 5.14 there is none; and other servers may close their listeners.
        return
    yield Finding(
        check="net.ipv4.tcp_migrate_req",
        found=str(value),
        needed="0",
        verdict=Verdict.WARN if value else Verdict.OK,
        remedy="sysctl -w net.ipv4.tcp_migrate_req=0: listeners are kept open or lent here, and "
        "what the kernel moves by itself goes past the steering, to workers that may be full"
        if value
        else "",
        changes=(Change("sysctl", "net.ipv4.tcp_migrate_req", "0"),) if value else (),
    )


def counters(facts: Facts, _plan: Plan) -> Iterator[Finding]:
    """What the kernel dropped meanwhile."""
    if facts.counters is None:
        yield unknown("dropped by the kernel", "/proc/net/netstat cannot be read")
        return
    seen = facts.counters
    grown = {name: n for name in COUNTERS if (n := seen.fresh.get(name, 0)) > 0}
    shown = ", ".join(
        f"{name} {number(n)}" for name in COUNTERS if (n := seen.since_boot.get(name, 0)) > 0
    )
    found = f"none in {seen.seconds:.1f} s"
    if grown:
        fresh = ", ".join(f"{name} +{number(n)}" for name, n in grown.items())
        found = f"{fresh} in {seen.seconds:.1f} s"
    yield Finding(
        check="dropped by the kernel",
        found=f"{found} (since boot: {shown or 'none'})",
        needed="none",
        verdict=Verdict.WARN if grown else Verdict.OK,
        remedy="; ".join(f"{name}: {COUNTERS[name]}" for name in grown),
    )


def speed(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """The measured rate of accepting, against clients that come back together."""
    if facts.hardware is None:
        return
    measured = facts.hardware
    lanes = max(1, min(plan.workers, measured.cores))
    rate = int(measured.accepts_per_second * lanes)
    wanted = plan.reconnects_per_second
    short = wanted is not None and wanted > rate
    yield Finding(
        check="accept rate",
        found=f"{number(int(measured.accepts_per_second))}/s on one core over loopback; "
        f"{measured.cores} cores",
        needed=UNKNOWN_NEED if wanted is None else f"{at_least(wanted)}/s",
        verdict=Verdict.WARN if short else Verdict.OK,
        remedy="spread reconnects over a longer time (drain_window, jitter in clients), or more "
        "cores"
        if short
        else "",
        predicted=rate,
        of="per_second",
    )
