"""All that the master knows of an instance and that is no count. Counts stand in the scoreboard.

The master makes these facts and sends them to the observer whenever they differ from the last ones;
both make the status document of them.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "AutoscaleFacts",
    "AutoscaledFacts",
    "BridgeFacts",
    "Facts",
    "ListenerFacts",
    "NofileFacts",
    "ProcessFacts",
    "ReloadFacts",
    "SlotFacts",
    "WorkerFacts",
]


class NofileFacts(msgspec.Struct, frozen=True):
    """RLIMIT_NOFILE (getrlimit(2)): as it is now, and the soft limit as it was found."""

    soft: int
    hard: int
    found: int


class BridgeFacts(msgspec.Struct, frozen=True):
    """The bridge, if there is to be one.

    :ivar url: of the server, without its password.
    :ivar pid: ``None`` while none runs.
    :ivar restarts: how many ended without being told.
    :ivar error: why the last one ended; empty while one runs.
    """

    url: str
    pid: int | None
    restarts: int
    error: str


class AutoscaledFacts(msgspec.Struct, frozen=True):
    """When the number of workers last followed the load.

    :ivar workers: how many there were to be; ``was``: how many there were.
    :ivar reason: ``full``, ``idle``, or ``bounds``: the settings changed.
    :ivar at: seconds since the epoch.
    """

    workers: int
    was: int
    reason: str
    at: float


class AutoscaleFacts(msgspec.Struct, frozen=True):
    """Between which bounds the number of workers follows the load.

    :ivar each: connections that a worker is to carry: ``connections_per_worker``, or what its
        other limits allow if that is less.
    :ivar held: why there is no worker fewer although there could be; empty otherwise.
    """

    min: int
    max: int
    each: int
    held: str = ""
    last: AutoscaledFacts | None = None


class WorkerFacts(msgspec.Struct, frozen=True):
    """A worker.

    :ivar serial: counts all workers of this master from 1; the scoreboard knows it by it.
    :ivar pid: ``None`` until it is known.
    :ivar role: ``current``, ``successor`` or ``retired``.
    :ivar state: a label of the scoreboard's WorkerState.
    :ivar stalled: its loop has not turned for ``stall_after``.
    """

    serial: int
    pid: int | None
    generation: int
    role: str
    state: str
    stalled: bool


class SlotFacts(msgspec.Struct, frozen=True):
    """A slot and its workers, the one to look at first, first.

    :ivar state: as in slots.py.
    :ivar error: why it is in backoff or failed; empty when it serves.
    :ivar lent_to: the slot whose worker accepts from its listeners, if it is not its own.
    """

    slot: int
    state: str
    error: str
    lent_to: int | None
    workers: tuple[WorkerFacts, ...]


class ReloadFacts(msgspec.Struct, frozen=True):
    """How a reload ended.

    :ivar outcome: ``done``, ``rolled_back`` (workers of the new generation had started) or
        ``refused``.
    :ivar reason: why it did not; ``traceback`` the application's. The observer, whom everybody may
        ask, is not told the traceback.
    :ivar moved: connections that moved meanwhile; ``disconnected``: that were closed because of
        the reload, or because a worker died.
    :ivar pause_p99_ms: the pause that 99 % of those that moved did not exceed; milliseconds.
    """

    outcome: str
    generation: int
    seconds: float
    reason: str | None = None
    traceback: str | None = None
    moved: int = 0
    disconnected: int = 0
    pause_p99_ms: float | None = None


class ProcessFacts(msgspec.Struct, frozen=True):
    """A process of the instance.

    :ivar role: ``master``, ``zygote``, ``worker``, ``observer`` or ``bridge``.
    :ivar slot: of a worker; ``generation``: of a worker or a zygote.
    """

    role: str
    pid: int
    slot: int | None = None
    generation: int | None = None


class ListenerFacts(msgspec.Struct, frozen=True):
    """A listening socket.

    :ivar slot: whose it is; ``None`` if all slots share it.
    :ivar address: as the status document's ``bind`` names it.
    :ivar inode: the socket's, as sock_diag(7) knows it.
    """

    slot: int | None
    address: str
    inode: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as its master sees it.

    :ivar pid: the master's.
    :ivar mixed: not all workers of the generation have the same code.
    :ivar started_at: seconds since the epoch.
    :ivar bind: addresses that are served; ``retiring``: those that a reload removed.
    :ivar capacity: connections that fit into the slots in service.
    :ivar max_connections: of the instance, and ``worker_connections``, of each worker, as they are
        set; 0: no limit but descriptors.
    :ivar stall_after: seconds without a heartbeat after which a process is stalled.
    :ivar workers: slots in service.
    :ivar autoscale: ``None`` if the number of workers does not follow the load.
    :ivar restarts: workers that ended without being told; ``restarts_by_reason``: the same, by
        restarts.py's reasons.
    :ivar recycled: workers that were replaced, by reason.
    :ivar handoffs_in_progress: sessions in which connections move.
    :ivar reload: the generation of the reload under way, if any.
    :ivar reloads: how many have ended, by outcome.
    :ivar observer_restarts: observers that ended without being told.
    :ivar status_socket: the path of the status socket; empty without an observer.
    :ivar status_bind: the TCP address that the observer answers to; empty if there is none.
    """

    name: str
    version: str
    pid: int
    generation: int
    mixed: bool
    app: str
    started_at: float
    bind: tuple[str, ...]
    retiring: tuple[str, ...]
    capacity: int
    nofile: NofileFacts
    reserve_fds: int
    backlog: int
    stall_after: float
    workers: int
    restarts: int
    restarts_by_reason: dict[str, int]
    recycled: dict[str, int]
    handoffs_in_progress: int
    bridge: BridgeFacts | None
    slots: tuple[SlotFacts, ...]
    reload: int | None
    last_reload: ReloadFacts | None
    reloads: dict[str, int]
    observer_restarts: int
    max_connections: int = 0
    worker_connections: int = 0
    status_socket: str = ""
    status_bind: str = ""
    processes: tuple[ProcessFacts, ...]
    listeners: tuple[ListenerFacts, ...]
    autoscale: AutoscaleFacts | None = None
