"""A machine on which nothing is short, to make one thing short in a test."""

from __future__ import annotations

from typing import Any

import msgspec

from wssup.doctor.facts import (
    Counters,
    Descriptors,
    Facts,
    Group,
    Memory,
    Network,
    Running,
    Tasks,
    WorkerProcess,
)
from wssup.doctor.findings import Finding, Verdict
from wssup.doctor.plan import Plan

GIB = 1 << 30
MIB = 1 << 20

PLENTY = Facts(
    cores=8,
    descriptors=Descriptors(
        soft=1 << 20, hard=1 << 20, nr_open=1 << 21, file_max=1 << 40, file_used=10_000
    ),
    memory=Memory(total=1024 * GIB, available=1000 * GIB),
    network=Network(
        somaxconn=65_535,
        syn_backlog=65_536,
        syncookies=1,
        tcp_mem=(10_000_000, 20_000_000, 30_000_000),
        tcp_pages=100,
        tcp_sockets=50,
        conntrack_max=100_000_000,
        conntrack_count=1000,
        ports=28_232,
        migrate_req=0,
    ),
    counters=Counters(1.0, {}, {}),
)


def facts(base: Facts = PLENTY, **parts: dict[str, Any]) -> Facts:
    """The machine with some fields of its parts changed: ``network={"somaxconn": 16}``."""
    changed = {name: replaced(getattr(base, name), **values) for name, values in parts.items()}
    return msgspec.structs.replace(base, **changed)


def replaced(part: Any, **values: Any) -> Any:
    return msgspec.structs.replace(part, **values)


def group(limit: int, used: int, version: int = 2) -> Group:
    return Group("/sys/fs/cgroup/wssup", version, limit, used)


def running(*workers: WorkerProcess, **values: Any) -> Running:
    return Running(name="shop", pid=4711, slots=len(workers), workers=workers, **values)


def worker(connections: int, **values: Any) -> WorkerProcess:
    return WorkerProcess(pid=4712, connections=connections, **values)


def by_name(findings: list[Finding], check: str) -> Finding:
    """The one finding of a check."""
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def failing(findings: list[Finding]) -> list[str]:
    return [f.check for f in findings if f.verdict in (Verdict.WARN, Verdict.FAIL)]


WANTED = Plan(connections=100_000, workers=4, backlog=65_535, queues=4)

__all__ = [
    "GIB",
    "MIB",
    "PLENTY",
    "WANTED",
    "Tasks",
    "by_name",
    "facts",
    "failing",
    "group",
    "replaced",
    "running",
    "worker",
]
