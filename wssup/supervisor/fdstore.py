"""The listeners in the service manager's fd store: they outlive the master, and who connects
meanwhile waits in their queues instead of being refused.

Each is stored under a name of its address and slot (systemd.service(5), FileDescriptorStoreMax=;
sd_pid_notify_with_fds(3)). What is passed back at the next start is matched in activation.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wssup import logs
from wssup.supervisor.notify import Notifier

__all__ = ["Store", "Stored", "parse_name"]

_NAME = re.compile(r"wssup-([0-9a-f]{16})-(\d{1,4})")


@dataclass(frozen=True)
class Stored:
    """A listener's name in the store: of an address, as text or as the digest of it, and a slot.

    A name has no colon and at most 255 characters (sd_pid_notify_with_fds(3)), and an address may
    have both.
    """

    address: str
    slot: int

    @property
    def name(self) -> str:
        """As the service manager knows it."""
        digest = hashlib.sha256(self.address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return f"wssup-{digest}-{self.slot}"

    def is_of(self, address: str) -> bool:
        """Whether this name, as :func:`parse_name` gives it, is of that address."""
        return Stored(address, self.slot).name == f"wssup-{self.address}-{self.slot}"


def parse_name(name: str) -> Stored | None:
    """A name of ours, with the digest as its address; ``None`` if it is none."""
    found = _NAME.fullmatch(name)
    return Stored(found[1], int(found[2])) if found is not None else None


class Store:
    """The fd store of this service.

    :param limit: how many descriptors it takes.
    """

    def __init__(self, notifier: Notifier, limit: int) -> None:
        self._notifier = notifier
        self._limit = limit
        self._names: dict[str, set[int]] = {}
        self._warned = False

    def found(self, address: str, slots: Sequence[int]) -> int:
        """These were passed from the store, in order, and stay there; but those after a gap, which
        get other numbers. Returns how many stay.
        """
        stay = [slot for place, slot in enumerate(slots) if place == slot]
        self._names[address] = set(stay)
        for slot in slots[len(stay) :]:
            self.remove(Stored(address, slot).name)
        return len(stay)

    def keep(self, address: str, slot: int, descriptor: int) -> bool:
        """Store a listener, if it is not there; whether it is now."""
        slots = self._names.setdefault(address, set())
        if slot in slots:
            return True
        if sum(map(len, self._names.values())) >= self._limit or not self._notifier.tell(
            ("FDSTORE", 1),
            ("FDNAME", Stored(address, slot).name),
            # An error on a listener is no reason to lose it.
            ("FDPOLL", 0),
            descriptors=[descriptor],
        ):
            if not self._warned:
                self._warned = True
                logs.get().warning(
                    "fdstore_full",
                    limit=self._limit,
                    hint="a restart will refuse connections; raise FileDescriptorStoreMax=",
                )
            return False
        slots.add(slot)
        return True

    def forget(self, address: str) -> None:
        """An address was closed for good."""
        for slot in sorted(self._names.pop(address, set())):
            self.remove(Stored(address, slot).name)

    def remove(self, name: str) -> None:
        """Have everything of a name closed."""
        self._notifier.tell(("FDSTOREREMOVE", 1), ("FDNAME", name))
