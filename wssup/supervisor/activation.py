"""Descriptors that the service manager passes: which are whose (sd_listen_fds(3)). Pure functions.

Listening sockets come from a socket unit (*activated*), and from the service's own fd store
(*stored*, under the names of fdstore.py). Both are matched with the configured addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.config.values import BadValueError
from wssup.errors import ListenError
from wssup.supervisor.fdstore import Stored, parse_name

__all__ = ["FIRST", "Foreign", "Found", "Matching", "Passed", "check_kept", "match", "passed"]

#: SD_LISTEN_FDS_START (sd_listen_fds(3)).
FIRST = 3
#: More than a service manager would ever pass (its own limit of files): a broken environment.
_MOST = 1 << 20


class Passed(NamedTuple):
    """A descriptor that was passed, and the name it came under."""

    descriptor: int
    name: str


class Found(NamedTuple):
    """What a passed descriptor turned out to be.

    :ivar where: the address it listens on as ``bind`` would name it; empty if it is no listening
        stream socket.
    :ivar problem: why it cannot be used, if that is known.
    """

    descriptor: int
    name: str
    where: str = ""
    problem: str = ""


class Foreign(NamedTuple):
    """A descriptor that is of no use, and why."""

    found: Found
    why: str


@dataclass
class Matching:
    """Which descriptors serve which configured address.

    :ivar stored: by address, then by slot.
    :ivar activated: by address, in the order of the socket unit.
    :ivar foreign: what is to be closed.
    """

    stored: dict[str, dict[int, int]] = field(default_factory=dict)
    activated: dict[str, list[int]] = field(default_factory=dict)
    foreign: list[Foreign] = field(default_factory=list)


def passed(environ: MutableMapping[str, str], pid: int) -> list[Passed]:
    """The descriptors passed to this process; takes the variables out of its environment, which
    its children must not mistake for theirs.
    """
    whom = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if whom != str(pid) or not count.isascii() or not count.isdigit() or int(count) > _MOST:
        return []
    return [
        Passed(FIRST + i, names[i] if i < len(names) and names[i] else "unknown")
        for i in range(int(count))
    ]


def match(found: Sequence[Found], wanted: Mapping[str, str]) -> Matching:
    """Which of the descriptors serve which address.

    :param wanted: for each configured ``bind`` the address it means once its name is resolved.
    :raises ListenError: if a socket unit has a listener that no ``bind`` names.
    """
    result = Matching()
    for one in found:
        name = parse_name(one.name)
        if one.problem or not one.where:
            why = one.problem or "it is no listening stream socket"
            result.foreign.append(Foreign(one, why))
        elif name is not None:
            _take_stored(result, one, name, wanted)
        else:
            _take_activated(result, one, wanted)
    for text in result.activated.keys() & result.stored.keys():
        for slot, descriptor in result.stored.pop(text).items():
            name_ = Stored(text, slot).name
            result.foreign.append(
                Foreign(Found(descriptor, name_), "a socket unit has its address")
            )
    return result


def check_kept(activated: Sequence[str], wanted: Sequence[str]) -> None:
    """A configuration must go on naming the addresses of the socket unit.

    :raises ListenError: naming the one that is missing.
    """
    for text in activated:
        if text not in wanted:
            raise ListenError(
                f"bind no longer names {text}, which the service's socket unit listens on",
                "name it again; or stop the service and its socket unit, and write the unit anew"
                " with wssup systemd install --socket",
            )


def _take_stored(result: Matching, one: Found, name: Stored, wanted: Mapping[str, str]) -> None:
    text = next((text for text in wanted if name.is_of(text)), None)
    if text is None:
        result.foreign.append(Foreign(one, "bind does not name its address any more"))
    elif not _same(one.where, wanted[text]):
        result.foreign.append(Foreign(one, f"{text} is another address by now"))
    elif name.slot in result.stored.get(text, {}):
        result.foreign.append(Foreign(one, "its slot has a listener already"))
    else:
        result.stored.setdefault(text, {})[name.slot] = one.descriptor


def _take_activated(result: Matching, one: Found, wanted: Mapping[str, str]) -> None:
    for text, where in wanted.items():
        if one.where == where:
            result.activated.setdefault(text, []).append(one.descriptor)
            return
    raise ListenError(
        f"the service's socket unit passes a listener on {one.where} (named {one.name!r}),"
        f" which bind does not name ({', '.join(wanted)})",
        "name it in bind, or write the unit anew with wssup systemd install --socket",
    )


def _same(found: str, wanted: str) -> bool:
    """Whether an address is the wanted one; port 0 stood for the one that the kernel chose."""
    if found == wanted:
        return True
    try:
        one, other = parse_bind(found), parse_bind(wanted)
    except BadValueError:
        return False
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return False
    return isinstance(other, TcpAddress) and other.port == 0 and one.host == other.host
