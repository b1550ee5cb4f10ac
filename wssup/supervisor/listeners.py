"""The listening sockets: one per address and slot, made by the master and kept for its life.

Closing a listener resets the handshakes in flight towards it, even when its accept queue is empty,
so none is closed before the end, but for those of an address that was removed, after a linger. The
kernel numbers the members of a SO_REUSEPORT group in the order of listen(2), so slots get theirs in
order and the number is the slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wssup import logs
from wssup.config.addresses import TcpAddress
from wssup.errors import ListenError
from wssup.supervisor.activation import Matching, check_kept
from wssup.supervisor.address import Address
from wssup.supervisor.arrivals import Arrivals
from wssup.supervisor.fdstore import Store

__all__ = ["Listeners"]


class Listeners:
    """All addresses of the instance, in the order they were configured.

    :param backlog: the accept queue asked for (listen(2)); the kernel cuts it to
        net.core.somaxconn.
    :param mode: permissions of unix sockets.
    :param store: where listeners outlive the master.
    :ivar arrivals: tells when a connection comes to a listener of a slot.
    """

    def __init__(self, *, backlog: int, mode: int, store: Store | None = None) -> None:
        self.addresses: dict[str, Address] = {}
        self.slots = 0
        self.shares: tuple[int, ...] = ()
        self.arrivals = Arrivals()
        self._by_source = False
        self._backlog = backlog
        self._mode = mode
        self._store = store
        self._warned = False

    @property
    def held(self) -> bool:
        """Whether listeners stay open when the master closes its own."""
        return any(a.held for a in self.addresses.values())

    def inherit(self, matching: Matching) -> None:
        """Own the listeners that were passed to this process. A slot more is there for each that
        the configuration has no slot for.

        :raises ListenError: if an address cannot be resolved.
        """
        for texts, activated in ((matching.stored, False), (matching.activated, True)):
            for text, found in texts.items():
                address = self.addresses[text] = Address(text)
                # A slot's number is its listener's place in the group; a gap closes.
                numbers = sorted(found) if isinstance(found, dict) else range(len(found))
                address.take([found[n] for n in numbers], self._backlog, activated=activated)
                self._watch(address)
                self.slots = max(self.slots, 0 if address.shared else address.listening)
                if self._store is not None and not activated:
                    address.kept = self._store.found(text, numbers)

    def check(self, texts: Sequence[str]) -> None:
        """Whether these addresses can be the configured ones.

        :raises ListenError: if a socket unit's is missing.
        """
        check_kept([a.text for a in self.addresses.values() if a.activated], texts)

    def sort(self, texts: Sequence[str]) -> None:
        """Have the addresses in that order."""
        known = {text: self.addresses[text] for text in texts if text in self.addresses}
        self.addresses = known | self.addresses

    def bind(self, texts: Iterable[str]) -> list[Address]:
        """Bind addresses for the slots there are, all or none, without listening yet.

        :raises ListenError: see :meth:`Address.bind`.
        """
        texts = list(texts)
        made: list[Address] = []
        v4 = {
            a.where.port
            for a in [*self.addresses.values(), *map(Address, texts)]
            if isinstance(a.where, TcpAddress) and ":" not in a.where.host and a.where.port
        }
        try:
            for text in texts:
                address = Address(text)
                made.append(address)
                alone = isinstance(address.where, TcpAddress) and address.where.port in v4
                address.bind(self.slots, mode=self._mode, v6_alone=alone)
        except ListenError:
            for address in made:
                address.close()
            raise
        return made

    def add(self, made: Iterable[Address]) -> None:
        """Listen on bound addresses; from now on they take connections.

        :raises ListenError: if one cannot; then none is taken on, and the caller closes them.
        """
        made = list(made)
        for address in made:
            address.extend(self.slots, self._backlog)
        for address in made:
            self.addresses[address.text] = address
            self._watch(address)
            self._keep(address)
        if self.shares:
            self.steer(self.shares, by_source=self._by_source)

    def extend(self, slots: int) -> None:
        """Have listeners for at least ``slots`` slots.

        :raises ListenError: if the kernel has no more.
        """
        slots = max(self.slots, slots)
        for address in self.addresses.values():
            address.extend(slots, self._backlog)
            self._watch(address)
            self._keep(address)
        self.slots = slots

    def of(self, slot: int, *, lent: bool = False) -> tuple[list[str], list[int]]:
        """Names and descriptors of a slot's listeners; when lent, without those that everybody has
        anyway.
        """
        chosen = [a for a in self.addresses.values() if not (lent and a.shared)]
        return [a.text for a in chosen], [a.fileno(slot) for a in chosen]

    def queued(self) -> list[int]:
        """How many connections wait to be accepted from the listeners of each slot."""
        found = [0] * self.slots
        for address in self.addresses.values():
            # An address may have got more before another one could not.
            for slot, count in zip(range(self.slots), address.queued(), strict=False):
                found[slot] += count
        return found

    def steer(self, shares: Sequence[int], *, by_source: bool = False) -> None:
        """Steer every address, by shares or by the client's address (:meth:`Address.steer`); says
        once in the log if the kernel cannot.
        """
        self.shares, self._by_source = tuple(shares), by_source
        try:
            for address in self.addresses.values():
                address.steer(self.shares, by_source=by_source)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logs.get().warning(
                    "steering_unsupported",
                    error=error.strerror,
                    hint="the kernel's hash spreads connections; lending serves what it misses",
                )

    def take_out(self, text: str) -> Address:
        """An address that is to be closed: nobody gets its listeners any more."""
        address = self.addresses.pop(text)
        self.arrivals.leave(address.descriptors())
        return address

    def close(self, text: str) -> None:
        """Close an address for good."""
        self.take_out(text).close()

    def forget(self, text: str) -> None:
        """An address was closed for good."""
        if self._store is not None:
            self._store.forget(text)

    def close_all(self) -> None:
        """Close everything."""
        for text in list(self.addresses):
            self.close(text)

    def _watch(self, address: Address) -> None:
        """Notice what comes to an address. What all slots share is not steered."""
        if not address.shared:
            self.arrivals.watch(address.descriptors())

    def _keep(self, address: Address) -> None:
        """Have the fd store keep what it does not have yet."""
        if self._store is None or address.activated:
            return
        for slot, descriptor in enumerate(address.descriptors()):
            if slot >= address.kept and not self._store.keep(address.text, slot, descriptor):
                return
            address.kept = max(address.kept, slot + 1)
