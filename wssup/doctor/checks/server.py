"""What any server's sockets and descriptors tell. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from wssup.doctor.checks.common import UNKNOWN_NEED
from wssup.doctor.findings import Finding, Verdict
from wssup.doctor.served import Server
from wssup.doctor.words import number

__all__ = ["examine_server"]

#: Sockets in CLOSE_WAIT that are no pile: a server closes them a moment later.
_FEW: Final = 10
#: The part of all connections that is one.
_PILE: Final = 0.1
_SYNS: Final = 128


def examine_server(server: Server) -> list[Finding]:
    """All that is found."""
    return [*_kinds(server), *_close_wait(server), *_queues(server), *_passing(server)]


def _kinds(server: Server) -> Iterator[Finding]:
    total: Counter[str] = Counter()
    for process in server.processes:
        total.update(process.kinds or {})
    shown = ", ".join(f"{kind} {number(count)}" for kind, count in total.most_common())
    hidden = sum(process.kinds is None for process in server.processes)
    noun = "process" if len(server.processes) == 1 else "processes"
    yield Finding(
        check="open descriptors",
        found=f"{shown} in {len(server.processes)} {noun}",
        needed=UNKNOWN_NEED,
        verdict=Verdict.OK if not hidden else Verdict.UNKNOWN,
        remedy="" if not hidden else f"{hidden} of them cannot be seen: run this as root",
    )


def _close_wait(server: Server) -> Iterator[Finding]:
    pile = server.states.get("CLOSE_WAIT", 0)
    whole = server.states.get("ESTABLISHED", 0) + pile
    bad = pile > max(_FEW, whole * _PILE)
    yield Finding(
        check="CLOSE_WAIT",
        found=f"{number(pile)} of {number(whole)} connections",
        needed="few, for a moment",
        verdict=Verdict.WARN if bad else Verdict.OK,
        remedy="the clients have hung up, and the server does not close: each keeps a descriptor. "
        "It is a mistake in the server; no setting of the kernel ends them"
        if bad
        else "",
    )


def _queues(server: Server) -> Iterator[Finding]:
    for address in dict.fromkeys(queue.address for queue in server.queues):
        mine = [queue for queue in server.queues if queue.address == address]
        waiting, limit = sum(q.waiting for q in mine), sum(q.limit for q in mine)
        full = any(queue.limit and 2 * queue.waiting > queue.limit for queue in mine)
        noun = "listener" if len(mine) == 1 else "listeners"
        of = f"of {number(limit)}" if limit else "(how many may, is unknown)"
        yield Finding(
            check=f"accept queue of {address}",
            found=f"{number(waiting)} {of} wait, {len(mine)} {noun}",
            needed="less than half",
            verdict=Verdict.WARN if full else Verdict.OK,
            remedy="the server does not accept as fast as clients come: more processes, or a "
            "larger backlog in the server and net.core.somaxconn"
            if full
            else "",
        )


def _passing(server: Server) -> Iterator[Finding]:
    syns = server.states.get("SYN_RECV", 0)
    yield Finding(
        check="SYN_RECV",
        found=f"{number(syns)} handshakes under way",
        needed=f"≤ {_SYNS}",
        verdict=Verdict.WARN if syns > _SYNS else Verdict.OK,
        remedy="clients that never answer, or an accept queue that is full" if syns > _SYNS else "",
    )
    yield Finding(
        check="TIME_WAIT",
        found=f"{number(server.states.get('TIME_WAIT', 0))}; they take no descriptor, and no port "
        "that a server would need",
        needed=UNKNOWN_NEED,
        verdict=Verdict.OK,
    )
