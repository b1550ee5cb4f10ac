"""Any server, as /proc and the kernel's tables show it: processes, listeners and connections."""

from __future__ import annotations

from collections import Counter

from wssup.doctor.collect import family
from wssup.doctor.collect import running as running_of
from wssup.doctor.facts import Running
from wssup.doctor.served import ListenQueue, Process, Server
from wssup.errors import UserError
from wssup.kernel import procfs
from wssup.kernel.sockets import tcp_table
from wssup.kernel.tcp import TcpSocket, TcpState, shown

__all__ = ["look", "running"]


def look(pid: int) -> Server:
    """A process and its descendants.

    :raises UserError: there is no such process, it may not be looked at, or it is no TCP server.
    """
    tables = {member: _table(member) for member in family(pid)}
    own = tables[pid]
    if own is None and not _exists(pid):
        raise UserError(f"there is no process {pid}", "see ps, or ss -ltnp")
    if own is None:
        raise UserError(
            f"process {pid} is another user's: its descriptors may not be seen",
            "run this as its user, or as root",
        )
    inodes = {
        member: {d.inode for d in table.values() if d.kind == "socket"}
        for member, table in tables.items()
        if table is not None
    }
    mine = set().union(*inodes.values())
    try:
        sockets = tcp_table(pid).sockets
    except OSError as error:
        raise UserError(
            f"the kernel does not tell its sockets: {error.strerror}", "run this as root"
        ) from None
    listeners = [s for s in sockets if s.state == TcpState.LISTEN and s.inode in mine]
    if not listeners:
        raise UserError(
            f"process {pid} listens on no TCP port, and neither do its children",
            "ss -ltnp shows who does",
        )
    places = {sock.local_port for sock in listeners}
    held = [s for s in sockets if s.local_port in places and s.state != TcpState.LISTEN]
    entrances = {sock.inode for sock in listeners}
    connected = {sock.inode for sock in held}
    return Server(
        pid=pid,
        processes=tuple(
            Process(
                pid=member,
                command=_command(member),
                kinds=_kinds(table),
                states=_states([s for s in held if s.inode in inodes.get(member, ())]),
                accepts=_accepts(member, entrances, connected, inodes),
            )
            for member, table in tables.items()
        ),
        queues=tuple(
            ListenQueue(shown(s.local, s.local_port), s.rqueue, s.wqueue) for s in listeners
        ),
        states=_states(held),
    )


def running(server: Server) -> Running:
    """The server as an instance: those who accept are its workers."""
    acceptors = server.acceptors
    return running_of(
        server.processes[0].command,
        server.pid,
        len(acceptors),
        [(process.pid, process.connections) for process in acceptors],
    )


def _table(pid: int) -> dict[int, procfs.Descriptor] | None:
    try:
        return procfs.descriptors(pid)
    except OSError:
        return None


def _exists(pid: int) -> bool:
    """Whether there is a process."""
    try:
        procfs.status(pid)
    except OSError:
        return False
    return True


def _command(pid: int) -> str:
    try:
        return procfs.command_line(pid) or ""
    except OSError:
        return ""


def _kinds(table: dict[int, procfs.Descriptor] | None) -> dict[str, int] | None:
    if table is None:
        return None
    return dict(Counter(descriptor.kind for descriptor in table.values()).most_common())


def _states(sockets: list[TcpSocket]) -> dict[str, int]:
    names = {state.value: state.name for state in TcpState}
    found = Counter(names.get(sock.state, str(sock.state)) for sock in sockets)
    return dict(found.most_common())


def _accepts(
    pid: int, entrances: set[int], connected: set[int], inodes: dict[int, set[int]]
) -> bool:
    """Whether a process accepts. A parent that made a listener for its children has it too, and
    does not; children for other work have it from a parent that does.

    :param entrances: the listeners; ``connected``: the connections that came through them.
    :param inodes: the sockets of each process that may be looked at.
    """
    mine = inodes.get(pid, set())
    if not mine & entrances:
        return False
    related = [other for other in inodes if other != pid and inodes[other] & mine & entrances]
    forebears = [other for other in related if pid in family(other)]
    theirs = set().union(*(inodes[other] for other in forebears))
    if mine & connected - theirs:
        return True
    below = set(family(pid))
    return not theirs & connected and not below.intersection(related)
