"""The accept queues of listeners, asked of the kernel: sockdiag.py over a netlink socket.

A queue that grows tells that its worker does not accept fast enough, before any client is refused.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable

from wssup import logs
from wssup.errors import MessageError
from wssup.observer.sockdiag import Family, Queue, answers, request
from wssup.status.facts import ListenerFacts

__all__ = ["Queues", "families"]

#: <linux/netlink.h>; the socket module lacks it.
_NETLINK_SOCK_DIAG = 4
#: Bytes of a datagram at most: the kernel fills what is offered.
_RECEIVED = 65536
#: Seconds. The answer is there when the request was taken.
_PATIENCE = 1.0


def families(listeners: Iterable[ListenerFacts]) -> list[Family]:
    """The families to ask for. Among unix sockets the kernel looks at every connection, too, so it
    is asked only if there is a listener of that kind.
    """
    unix = {listener.address.startswith("unix:") for listener in listeners}
    return ([Family.IPV4, Family.IPV6] if False in unix else []) + (
        [Family.UNIX] if True in unix else []
    )


class Queues:
    """Reads accept queues. Where the kernel does not tell, there are none; the log says so once."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequences = itertools.count(1)
        self._told = False

    def read(self, listeners: Iterable[ListenerFacts]) -> dict[int, Queue]:
        """The queues of listeners, by inode; without those that are gone or cannot be seen."""
        listeners = tuple(listeners)
        wanted = {listener.inode for listener in listeners}
        found: dict[int, Queue] = {}
        try:
            for family in families(listeners):
                found |= {q.inode: q for q in self._ask(family) if q.inode in wanted}
        except (OSError, MessageError) as error:
            # The next request begins anew: what is left of this answer must not be taken for its.
            self.close()
            if not self._told:
                self._told = True
                logs.get().warning(
                    "listen_queues_unknown",
                    error=str(error),
                    hint="the observer needs AF_NETLINK (RestrictAddressFamilies, seccomp)",
                )
        return found

    def close(self) -> None:
        """Let go of the netlink socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, family: Family) -> list[Queue]:
        sock = self._socket
        if sock is None:
            sock = self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
            )
            sock.settimeout(_PATIENCE)
        sequence = next(self._sequences) & 0xFFFFFFFF
        sock.sendto(request(family, sequence), (0, 0))
        found: list[Queue] = []
        last = False
        while not last:
            part, last = answers(sock.recv(_RECEIVED), family, sequence)
            found += part
        return found
