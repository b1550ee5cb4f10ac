"""What the service manager is told: sd_notify(3), a datagram of ``NAME=value`` lines.

The texts are pure functions; :class:`Notifier` sends them. When to say what is in reporting.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable, Sequence

from wssup.scoreboard import InstanceState
from wssup.supervisor.slots import State

__all__ = ["ENDING", "Notifier", "address_of", "lines", "progresses", "status_line", "wants_time"]

#: Seconds that the service manager gets to make room for what must not be lost.
_PATIENCE = 1.0
#: Slots that will do nothing more by themselves.
_LOST = frozenset({State.FAILED, State.EMPTY, State.PARKED})
#: The instance is on its way out.
ENDING = frozenset({InstanceState.STOPPING, InstanceState.DRAINING})
_DOING = {
    InstanceState.STARTING: "starting, ",
    InstanceState.RELOADING: "reloading, ",
    InstanceState.DRAINING: "draining, ",
    InstanceState.STOPPING: "stopping, ",
}


def address_of(text: str) -> str | None:
    """The socket's address in ``$NOTIFY_SOCKET``: a path, or a name in the abstract namespace after
    an ``@``; ``None`` for what this version does not know (a vsock of a virtual machine's host).
    """
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def lines(fields: Iterable[tuple[str, object]]) -> bytes:
    """The datagram. A value is one line: what would begin another is shown as a space."""
    return "\n".join(f"{name}={' '.join(str(v).split())}" for name, v in fields).encode()


def status_line(
    state: InstanceState, *, generation: int, ready: int, count: int, connections: int
) -> str:
    """What ``systemctl status`` shows: ``gen 7: 4/4 ready, 81203 connections``."""
    doing = _DOING.get(state, "")
    return f"{doing}gen {generation}: {ready}/{count} ready, {connections} connections"


def progresses(
    state: InstanceState, slots: Collection[State], *, looked_ago: float, patience: float
) -> bool:
    """Whether the master does its work: while it serves it looks at its workers, and there are
    some, or some are on their way.

    How long a start or an end may take is the service manager's to judge, by other deadlines.

    :param slots: the states of the slots in service.
    :param looked_ago: seconds since the workers were last looked at; more than ``patience`` is too
        long.
    """
    if state is InstanceState.STARTING or state in ENDING:
        return True
    replaced = state is InstanceState.RELOADING
    return looked_ago <= patience and (replaced or any(slot not in _LOST for slot in slots))


def wants_time(state: InstanceState, *, progress: bool, left: float) -> bool:
    """Whether to ask for more time: a reload takes as long as connections move; an end has a
    deadline of its own, which is ``left`` seconds away.
    """
    if state in ENDING:
        return left > 0
    return state is InstanceState.RELOADING and progress


class Notifier:
    """Sends to the service manager's socket; without one it does nothing.

    :param address: as :func:`address_of` gives it.
    """

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if address is None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(address)
        except OSError:
            # The manager that started us is not there any more: nobody to tell.
            sock.close()
            return
        self._socket = sock

    def __bool__(self) -> bool:
        return self._socket is not None

    def tell(
        self, *fields: tuple[str, object], descriptors: Sequence[int] = (), lossy: bool = False
    ) -> bool:
        """Send one datagram.

        :param descriptors: sent along.
        :param lossy: it will be said again, so it is not waited for room.
        :returns: whether it was sent.
        """
        if self._socket is None:
            return False
        self._socket.settimeout(0.0 if lossy else _PATIENCE)
        with contextlib.suppress(OSError):
            if descriptors:
                socket.send_fds(self._socket, [lines(fields)], list(descriptors))
            else:
                self._socket.send(lines(fields))
            return True
        return False

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
