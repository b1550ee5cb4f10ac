"""Looks at the machine and at processes, and makes facts of it. What cannot be read is ``None``."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from wssup.doctor.checks.network import COUNTERS
from wssup.doctor.facts import (
    Counters,
    Descriptors,
    Facts,
    Hardware,
    Holder,
    Memory,
    Network,
    Running,
    Tasks,
    WorkerProcess,
)
from wssup.doctor.groups import memory_group, tasks_group
from wssup.doctor.parsing import fields, integers, ports, sockstat
from wssup.doctor.served import ListenQueue
from wssup.kernel import procfs
from wssup.kernel.sockets import same_network

__all__ = ["counters", "facts", "family", "memory_total", "running"]

T = TypeVar("T")

_SYS: Final = Path("/proc/sys")
_OPEN_FILES: Final = "Max open files"
_ADDRESS_SPACE: Final = "Max address space"
_PROCESSES: Final = "Max processes"
#: How often processes are counted, and the seconds between.
_LOOKS: Final = 5
_BETWEEN: Final = 0.02


def facts(
    *,
    cores: int,
    running: Running | None = None,
    counted: Counters | None = None,
    holders: Sequence[Holder] = (),
    queues: Sequence[ListenQueue] = (),
    hardware: Hardware | None = None,
) -> Facts:
    """All facts now.

    :param cores: that the service may use.
    :param running: the instance, if there is one: limits are its own then, and otherwise those of
        this process.
    """
    return Facts(
        cores=cores,
        page=resource.getpagesize(),
        descriptors=_descriptors(running),
        memory=_memory(running),
        tasks=_tasks(running),
        network=_network(elsewhere=running is not None and not same_network(running.pid)),
        counters=counted,
        holders=tuple(holders),
        queues=tuple(queues),
        running=running,
        hardware=hardware,
    )


def running(name: str, pid: int, slots: int, workers: Iterable[tuple[int, int]]) -> Running:
    """An instance that runs.

    :param pid: its master's; ``slots``: workers that there should be.
    :param workers: process ids, and the sockets that each counts as open.
    """
    members = family(pid)
    zygotes = [
        child
        for child in members
        if (_quietly(procfs.command_line, child) or "").startswith("wssup: zygote")
    ]
    return Running(
        name=name,
        pid=pid,
        slots=slots,
        workers=tuple(_worker(worker, count) for worker, count in workers),
        zygote_anonymous=_sizes(max(zygotes)).get("RssAnon") if zygotes else None,
    )


def family(pid: int) -> list[int]:
    """A process, and all that descend from it."""
    return _quietly(procfs.family, pid) or [pid]


def counters(seconds: float, pid: int | None = None) -> Counters | None:
    """The kernel's counters, and how much they grow in so many seconds."""
    before = _counters(pid)
    began = time.monotonic()
    time.sleep(seconds)
    after = _counters(pid)
    if before is None or after is None:
        return None
    fresh = {name: value - before.get(name, 0) for name, value in after.items()}
    return Counters(time.monotonic() - began, after, fresh)


def _counters(pid: int | None) -> dict[str, int] | None:
    try:
        found = procfs.counters(pid)
    except (OSError, ValueError):
        return None
    return {name: found[f"TcpExt.{name}"] for name in COUNTERS if f"TcpExt.{name}" in found}


def memory_total() -> int | None:
    """Bytes of memory that the machine has."""
    return fields(_text(Path("/proc/meminfo"))).get("MemTotal")


def _worker(pid: int, connections: int) -> WorkerProcess:
    limits = _quietly(procfs.limits, pid) or {}
    nofile = limits.get(_OPEN_FILES)
    sizes = _sizes(pid)
    return WorkerProcess(
        pid=pid,
        connections=connections,
        descriptors=procfs.open_descriptors(pid),
        soft=nofile.soft if nofile is not None else None,
        hard=nofile.hard if nofile is not None else None,
        resident=sizes.get("VmRSS"),
        anonymous=sizes.get("RssAnon"),
        virtual=sizes.get("VmSize"),
    )


def _sizes(pid: int) -> dict[str, int]:
    return fields(_text(Path(f"/proc/{pid}/status")))


def _descriptors(running: Running | None) -> Descriptors:
    soft: int | None
    hard: int | None
    if running is not None:
        # A worker has the master's limits.
        workers = running.workers or (_worker(running.pid, 0),)
        softs = [worker.soft for worker in workers if worker.soft is not None]
        hards = [worker.hard for worker in workers if worker.hard is not None]
        soft, hard = min(softs, default=None), min(hards, default=None)
    else:
        soft, hard = (_bounded(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
        soft = soft if soft is not None else hard
    used = integers(_text(_SYS / "fs/file-nr"))
    nr_open = _sysctl("fs/nr_open")
    return Descriptors(
        soft=soft,
        hard=hard if hard is not None else nr_open,
        nr_open=nr_open,
        file_max=_sysctl("fs/file-max"),
        file_used=used[0] if used else None,
    )


def _bounded(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _memory(running: Running | None) -> Memory:
    info = fields(_text(Path("/proc/meminfo")))
    if running is not None and running.workers:
        limits = _quietly(procfs.limits, running.workers[0].pid) or {}
        space = limits.get(_ADDRESS_SPACE)
        address_space = space.soft if space is not None else None
    else:
        address_space = _bounded(resource.getrlimit(resource.RLIMIT_AS)[0])
    return Memory(
        total=info.get("MemTotal"),
        available=info.get("MemAvailable"),
        group=memory_group(running.pid if running is not None else None),
        address_space=address_space,
    )


def _tasks(running: Running | None) -> Tasks:
    pid = running.pid if running is not None else None
    group = tasks_group(pid)
    others: list[int] = []
    while group is not None and len(others) < _LOOKS:
        own = 0
        if pid is not None:
            seen = [_quietly(procfs.status, member) for member in family(pid)]
            own = sum(status.threads for status in seen if status is not None)
        others.append(max(0, group.used - own))
        group = tasks_group(pid)
        time.sleep(_BETWEEN)
    nproc = _nproc(running)
    users = _users(pid) if nproc is not None else 0
    # Threads and processes that come and go between the two counts are nobody's: the least counts.
    return Tasks(group=group, others=min(others, default=0), nproc=nproc, users=users)


def _users(pid: int | None) -> int:
    """Threads of the user of an instance (of this process) that are not the instance's."""
    own = family(pid) if pid is not None else [os.getpid()]
    own_status = _quietly(procfs.status, own[0])
    uid = own_status.uid if own_status is not None else os.geteuid()
    found = 0
    for other in procfs.everybody():
        if other in own:
            continue
        status = _quietly(procfs.status, other)
        if status is not None and status.uid == uid:
            found += status.threads
    return found


def _nproc(running: Running | None) -> int | None:
    if running is None:
        return None if os.geteuid() == 0 else _bounded(resource.getrlimit(resource.RLIMIT_NPROC)[0])
    status, limits = _quietly(procfs.status, running.pid), _quietly(procfs.limits, running.pid)
    if status is None or limits is None or status.uid == 0 or _PROCESSES not in limits:
        return None
    return limits[_PROCESSES].soft


def _network(*, elsewhere: bool) -> Network:
    sockets = sockstat(_text(Path("/proc/net/sockstat"))) | sockstat(
        _text(Path("/proc/net/sockstat6"))
    )
    bounds = integers(_text(_SYS / "net/ipv4/tcp_mem"))
    # TCP's memory is the whole machine's (tcp_init_mem() in tcp.c).
    everywhere = Network(
        tcp_mem=(bounds[0], bounds[1], bounds[2]) if bounds and len(bounds) == 3 else None,
        tcp_pages=sockets.get("TCP.mem"),
        elsewhere=elsewhere,
    )
    if elsewhere:
        return everywhere
    inuse = [sockets[name] for name in ("TCP.inuse", "TCP6.inuse") if name in sockets]
    return msgspec.structs.replace(
        everywhere,
        somaxconn=_sysctl("net/core/somaxconn"),
        syn_backlog=_sysctl("net/ipv4/tcp_max_syn_backlog"),
        syncookies=_sysctl("net/ipv4/tcp_syncookies"),
        tcp_sockets=sum(inuse) if inuse else None,
        conntrack_max=_sysctl("net/netfilter/nf_conntrack_max"),
        conntrack_count=_sysctl("net/netfilter/nf_conntrack_count"),
        ports=ports(
            _text(_SYS / "net/ipv4/ip_local_port_range"),
            _text(_SYS / "net/ipv4/ip_local_reserved_ports"),
        ),
        migrate_req=_sysctl("net/ipv4/tcp_migrate_req"),
    )


def _sysctl(name: str) -> int | None:
    found = integers(_text(_SYS / name))
    return found[0] if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _quietly(read: Callable[[int], T | None], pid: int) -> T | None:
    """What is read of a process; ``None`` if it is gone, too."""
    try:
        return read(pid)
    except OSError:
        return None
