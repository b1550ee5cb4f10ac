"""Whether it is the same connection: sockets by their inode, which process has them, and that none
is left over (proc(5): /proc/net/tcp, /proc/PID/fd).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.harness import kernel, processes
from tests.harness.instance import Instance
from wssup.scoreboard import Counts, Scoreboard

__all__ = ["accounts", "counts", "family", "holders", "inodes"]

_ESTABLISHED = "01"


def inodes(server_port: int, ports: Iterable[int]) -> dict[int, str]:
    """The server's sockets, as /proc/PID/fd names them, by the ports of the clients."""
    wanted, found = set(ports), {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        here, there = (int(fields[column].rpartition(":")[2], 16) for column in (1, 2))
        if here == server_port and there in wanted and fields[3] == _ESTABLISHED:
            found[there] = f"socket:[{fields[9]}]"
    return found


def family(instance: Instance) -> set[int]:
    """All processes of an instance that live."""
    found = processes.descendants(instance.pid) | {instance.pid}
    return {pid for pid in found if processes.alive(pid)}


def holders(pids: Iterable[int], sockets: Iterable[str]) -> dict[str, set[int]]:
    """Which of these processes have a descriptor of each of these sockets."""
    found: dict[str, set[int]] = {name: set() for name in sockets}
    for pid in pids:
        try:
            held = kernel.holds(pid)
        except OSError:
            continue  # it has ended
        for name in held & found.keys():
            found[name].add(pid)
    return found


def accounts(instance: Instance) -> dict[int, Counter[str]]:
    """What the master and each current worker have open, counted by kind, without the sockets of
    clients. A worker is named by its slot, the master by -1: so it can be compared with before.
    """
    port = int(instance.address().rpartition(":")[2])
    clients = _accepted(port)
    pids = {-1: instance.pid} | instance.workers()
    return {name: _kinds(pid, clients) for name, pid in pids.items()}


def _accepted(port: int) -> set[str]:
    """All sockets of a TCP port but the listeners, whatever state they are in."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found - kernel.listening(port)


def _kinds(pid: int, clients: set[str]) -> Counter[str]:
    """A socket of a client that the kernel has forgotten already counts as a leak."""
    unix = kernel.unix_sockets()
    found: Counter[str] = Counter()
    for name in kernel.descriptors(pid).values():
        # The master may not have closed yet what asked it for its workers just now.
        if name in clients or unix.get(name, ("", ""))[1].endswith("/control.sock"):
            continue
        kind = unix[name][0] if name in unix else name.partition(":[")[0]
        found[kind] += 1
    return found


def counts(instance: Instance) -> Counts:
    """The totals, read from shared memory: it takes no more than some microseconds."""
    board = Scoreboard.attach(instance.segment().name)
    try:
        return board.snapshot().total
    finally:
        board.close()
