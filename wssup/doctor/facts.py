"""What a machine, a process and an instance are, as far as connections depend on it.

Pure data. ``None`` is what cannot be known here: another user's process, a container without that
file, a module that is not loaded. Sizes are bytes unless a name says pages.
"""

from __future__ import annotations

import msgspec

from wssup.doctor.served import ListenQueue

__all__ = [
    "Counters",
    "Descriptors",
    "Facts",
    "Group",
    "Hardware",
    "Holder",
    "Memory",
    "Network",
    "Running",
    "Tasks",
    "WorkerProcess",
]


class Descriptors(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors (getrlimit(2), proc_sys_fs(5)).

    :ivar soft: RLIMIT_NOFILE of a process that holds connections, the least of several.
    :ivar nr_open: the most that RLIMIT_NOFILE can be.
    :ivar file_max: open files of the whole machine; ``file_used``: how many are.
    """

    soft: int | None = None
    hard: int | None = None
    nr_open: int | None = None
    file_max: int | None = None
    file_used: int | None = None


class Group(msgspec.Struct, frozen=True):
    """The control group that leaves least room, of all that the process is in.

    :ivar path: its directory.
    :ivar version: 1 or 2.
    """

    path: str
    version: int
    limit: int
    used: int

    @property
    def room(self) -> int:
        """What is left."""
        return max(0, self.limit - self.used)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory (proc_meminfo(5), getrlimit(2), cgroup-v2.rst).

    :ivar available: what can be had without swapping.
    :ivar group: memory.max, with what is in use and cannot be reclaimed at once.
    :ivar address_space: RLIMIT_AS of a worker; ``None`` too if it is unlimited.
    """

    total: int | None = None
    available: int | None = None
    group: Group | None = None
    address_space: int | None = None


class Tasks(msgspec.Struct, frozen=True, kw_only=True):
    """Processes and threads (getrlimit(2), cgroup-v2.rst).

    :ivar group: pids.max; ``others``: what of it is not the instance's.
    :ivar nproc: RLIMIT_NPROC; ``None`` too if it is unlimited, or root's, which nothing limits.
    :ivar users: what of it is the user's and not the instance's.
    """

    group: Group | None = None
    others: int = 0
    nproc: int | None = None
    users: int = 0


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The network's settings (tcp(7), listen(2), nf_conntrack-sysctl.rst).

    :ivar tcp_mem: low, pressure and high, in pages; ``tcp_pages``: in use.
    :ivar conntrack_max: ``None`` if the module is not loaded.
    :ivar ports: what connect(2) may choose from, reserved ones deducted.
    :ivar tcp_sockets: in use on the whole machine.
    :ivar elsewhere: the process is in another network namespace (network_namespaces(7)): what is
        that one's own cannot be read from here.
    """

    somaxconn: int | None = None
    syn_backlog: int | None = None
    syncookies: int | None = None
    tcp_mem: tuple[int, int, int] | None = None
    tcp_pages: int | None = None
    tcp_sockets: int | None = None
    conntrack_max: int | None = None
    conntrack_count: int | None = None
    ports: int | None = None
    migrate_req: int | None = None
    elsewhere: bool = False


class Counters(msgspec.Struct, frozen=True):
    """Counters of the kernel (/proc/net/netstat, TcpExt).

    :ivar since_boot: what each is; ``fresh``: by how much it grew in ``seconds``.
    """

    seconds: float
    since_boot: dict[str, int]
    fresh: dict[str, int]


class Holder(msgspec.Struct, frozen=True):
    """A process that is not of the instance and listens where it does, or is to.

    :ivar address: the instance's; ``who`` names the process, or its user.
    :ivar unit: it is systemd, for a socket unit (systemd.socket(5)).
    """

    address: str
    who: str
    unit: bool = False


class WorkerProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that runs.

    :ivar connections: sockets that it counts as open.
    :ivar descriptors: that it has open in all.
    :ivar resident: memory; ``anonymous``: what of it is no file's; ``virtual``: address space.
    """

    pid: int
    connections: int
    descriptors: int | None = None
    soft: int | None = None
    hard: int | None = None
    resident: int | None = None
    anonymous: int | None = None
    virtual: int | None = None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The instance, if it runs.

    :ivar slots: workers that there should be.
    :ivar zygote_anonymous: memory of the process that workers are forked from.
    """

    name: str
    pid: int
    slots: int
    workers: tuple[WorkerProcess, ...] = ()
    zygote_anonymous: int | None = None

    @property
    def connections(self) -> int:
        """Sockets open now."""
        return sum(worker.connections for worker in self.workers)


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's speed, measured.

    :ivar accepts_per_second: connections over loopback that one process accepted, while another
        connected.
    """

    cores: int
    memory: int | None
    accepts_per_second: float
    seconds: float


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    :ivar cores: processors that the service may use.
    :ivar page: bytes of a page of memory.
    :ivar queues: accept queues that there are, of what runs.
    """

    cores: int = 1
    page: int = 4096
    descriptors: Descriptors = Descriptors()
    memory: Memory = Memory()
    tasks: Tasks = Tasks()
    network: Network = Network()
    counters: Counters | None = None
    holders: tuple[Holder, ...] = ()
    queues: tuple[ListenQueue, ...] = ()
    running: Running | None = None
    hardware: Hardware | None = None

    @property
    def present(self) -> int:
        """Connections of the instance that are part of what is in use."""
        return self.running.connections if self.running is not None else 0
