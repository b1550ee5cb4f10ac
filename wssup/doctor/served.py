"""A server of any kind: its processes, listeners and connections. Pure data."""

from __future__ import annotations

import msgspec

__all__ = ["ListenQueue", "Process", "Server"]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the server.

    :ivar kinds: open descriptors by kind; ``None``: this user may not know.
    :ivar states: its sockets on the server's ports, by TCP state.
    :ivar accepts: whether it takes connections: it has a listener that none of its children has.
    """

    pid: int
    command: str
    kinds: dict[str, int] | None
    states: dict[str, int]
    accepts: bool

    @property
    def connections(self) -> int:
        """Sockets on the server's ports."""
        return sum(self.states.values())


class ListenQueue(msgspec.Struct, frozen=True):
    """A listener: how many connections wait, and how many may (0: unknown)."""

    address: str
    waiting: int
    limit: int


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server.

    :ivar states: all sockets of its ports, also those that no process has any more, by state.
    """

    pid: int
    processes: tuple[Process, ...]
    queues: tuple[ListenQueue, ...]
    states: dict[str, int]

    @property
    def acceptors(self) -> tuple[Process, ...]:
        """The processes that take connections."""
        return tuple(process for process in self.processes if process.accepts)
