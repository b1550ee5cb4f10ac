"""The accept queues of listeners, asked of the kernel (kernel/sockets.py).

A queue that grows tells that its worker does not accept fast enough, before any client is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from wssup import logs
from wssup.errors import MessageError
from wssup.kernel.sockdiag import Family, Queue
from wssup.kernel.sockets import SockDiag
from wssup.status.facts import ListenerFacts

__all__ = ["Queues", "families"]


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
        self._kernel = SockDiag()
        self._told = False

    def read(self, listeners: Iterable[ListenerFacts]) -> dict[int, Queue]:
        """The queues of listeners, by inode; without those that are gone or cannot be seen."""
        listeners = tuple(listeners)
        wanted = {listener.inode for listener in listeners}
        found: dict[int, Queue] = {}
        try:
            for family in families(listeners):
                queues = self._kernel.listeners(family)
                found |= {queue.inode: queue for queue in queues if queue.inode in wanted}
        except (OSError, MessageError) as error:
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
        self._kernel.close()
