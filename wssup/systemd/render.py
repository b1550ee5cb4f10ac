"""Fills in the templates of units. Pure functions.

A file that was written begins with a digest of the rest, by which an edited one is known.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.config.scaling import Autoscale
from wssup.config.settings import Settings

__all__ = ["KINDS", "Choices", "derived", "has_low_port", "render", "seal", "seal_of", "word"]

#: What there is to write, in the order in which it is.
KINDS = ("service", "socket", "sysusers", "sysctl", "notify-reload", "low-ports")
#: Seconds that ends take beyond their deadlines: a fleet's and a zygote's grace, and some more.
_GRACE = 15
#: Seconds that a worker which a watchdog ends has beyond its window.
_ABORT_GRACE = 10
#: <linux/fs.h>: what the kernel lets a process have if nobody says otherwise.
_NR_OPEN = 1 << 20
#: The kernel's own net.core.somaxconn (Documentation/admin-guide/sysctl/net.rst).
_SOMAXCONN = 4096
#: net.ipv4.ip_unprivileged_port_start, if nobody says otherwise.
_LOW = 1024
_HOMES = ("/home", "/root", "/run/user")
_SEAL = (
    "# Written by wssup systemd install; an edited file is not overwritten. sha256 of the rest: "
)
_SEALED = re.compile(re.escape(_SEAL) + r"([0-9a-f]{64})\n")
_PLACE = re.compile(r"@([A-Z0-9_]+)@")


@dataclass(frozen=True)
class Choices:
    """What the person who installs decides, and the configuration.

    :ivar program: the command line of wssup: an absolute path, and arguments.
    :ivar paths: what the service must be able to reach: wssup, its Python, the application.
    :ivar nofile: descriptors that each process may have.
    """

    program: tuple[str, ...]
    settings: Settings
    paths: tuple[str, ...] = ()
    user: str = "wssup"
    group: str = "wssup"
    nofile: int = _NR_OPEN


@dataclass(frozen=True)
class Derived:
    """What follows from the configuration, in whole seconds and numbers."""

    start: int
    stop: int
    abort: int
    listeners: int
    store: int
    waves: int


def derived(settings: Settings) -> Derived:
    """Deadlines and sizes.

    A rollout imports, boots its workers (in waves, if ``max_surge`` says so), settles, moves
    connections, and drains what could not move.
    """
    workers = settings.workers
    fixed = workers.max if isinstance(workers, Autoscale) else workers
    most = settings.max_workers if fixed == "auto" else fixed
    waves = 1 if settings.max_surge == "all" else math.ceil(most / int(settings.max_surge))
    rollout = settings.ready_timeout * (1 + waves) + settings.settle + 2 * settings.drain_timeout
    addresses = len(settings.bind)
    return Derived(
        start=math.ceil(rollout) + _GRACE,
        stop=math.ceil(settings.drain_timeout) + _GRACE,
        abort=math.ceil(min(settings.drain_window, settings.drain_timeout)) + _ABORT_GRACE,
        listeners=most if fixed != "auto" else 0,
        # A reload may change every address, and the old ones linger.
        store=2 * addresses * settings.max_workers,
        waves=waves,
    )


def has_low_port(settings: Settings) -> bool:
    """Whether an address needs a privilege."""
    places = [parse_bind(text) for text in settings.bind]
    return any(isinstance(p, TcpAddress) and 0 < p.port < _LOW for p in places)


def word(text: str) -> str:
    """A word of a command line in a unit: specifiers, variables and spaces stand for themselves
    (systemd.service(5), "Command lines"; systemd.syntax(7), "Quoting").
    """
    text = text.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./%$@:+,=-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'


def render(kind: str, template: str, choices: Choices, *, workers: int) -> str:
    """A file's text, without its seal.

    :param workers: how many listeners a socket unit has: the configured workers, or what ``auto``
        comes to.
    """
    values = _VALUES[kind](choices, workers)

    def value(place: re.Match[str]) -> str:
        return values.get(place[1], place[0])

    return _PLACE.sub(value, template).rstrip("\n") + "\n"


def seal(text: str) -> str:
    """The text with its digest before it."""
    return f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def seal_of(text: str) -> bool | None:
    """Whether a file is as it was written; ``None`` if we never wrote it."""
    found = _SEALED.match(text)
    if found is None:
        return None
    return (
        hashlib.sha256(text[found.end() :].encode("utf-8", "surrogateescape")).hexdigest()
        == (found[1])
    )


def _service(choices: Choices, _workers: int) -> Mapping[str, str]:
    settings, found = choices.settings, derived(choices.settings)
    addresses, most = len(settings.bind), settings.max_workers
    waves = "" if found.waves == 1 else f"{found.waves} × "
    in_home = any(map(_is_home, choices.paths))
    return {
        "PROGRAM": " ".join(map(word, choices.program)),
        "USER": choices.user,
        "GROUP": choices.group,
        "START": str(found.start),
        "START_WHY": f"ready_timeout, {waves}ready_timeout, settle, 2 × drain_timeout",
        "STOP": str(found.stop),
        "ABORT": str(found.abort),
        "NOFILE": str(choices.nofile),
        "FDSTORE": str(found.store),
        "FDSTORE_WHY": f"{addresses} × {most} max_workers, twice",
        "PROTECT_HOME": "read-only" if in_home else "yes",
    }


def _socket(choices: Choices, workers: int) -> Mapping[str, str]:
    settings = choices.settings
    places = [parse_bind(text) for text in settings.bind]
    lines: list[str] = []
    for place in places:
        if isinstance(place, UnixAddress):
            # Unix sockets have no groups: one serves all.
            lines.append(f"ListenStream={place.path.replace('%', '%%')}")
        else:
            lines += [f"ListenStream={place}"] * workers
    v4 = {p.port for p in places if isinstance(p, TcpAddress) and ":" not in p.host}
    both = any(isinstance(p, TcpAddress) and ":" in p.host and p.port in v4 for p in places)
    if v4 or any(isinstance(p, TcpAddress) for p in places):
        lines.append("ReusePort=yes")
    return {
        "LISTEN": "\n".join(lines),
        "V6ONLY": "ipv6-only" if both else "both",
        "BACKLOG": str(settings.backlog),
        "USER": choices.user,
        "GROUP": choices.group,
        "MODE": settings.unix_mode,
    }


def _sysusers(choices: Choices, _workers: int) -> Mapping[str, str]:
    lines = [f'u {choices.user} - "wssup WebSocket service"']
    if choices.group != choices.user:
        lines = [f"g {choices.group} -", *lines, f"m {choices.user} {choices.group}"]
    return {"LINES": "\n".join(lines)}


def _sysctl(choices: Choices, _workers: int) -> Mapping[str, str]:
    backlog = choices.settings.backlog
    nofile = "# Descriptors that one process may have: as LimitNOFILE.\n-fs.nr_open = "
    return {
        "BACKLOG": str(backlog),
        "SOMAXCONN": str(max(_SOMAXCONN, backlog)),
        # The kernel's own value, which systemd raises, must not be lowered.
        "NR_OPEN": f"{nofile}{choices.nofile}" if choices.nofile > _NR_OPEN else "",
    }


def _nothing(_choices: Choices, _workers: int) -> Mapping[str, str]:
    return {}


def _is_home(path: str) -> bool:
    return any(PurePosixPath(path).is_relative_to(home) for home in _HOMES)


_VALUES = {
    "service": _service,
    "socket": _socket,
    "sysusers": _sysusers,
    "sysctl": _sysctl,
    "notify-reload": _nothing,
    "low-ports": _nothing,
}
