"""Applies who accepts for whom: loans of listeners (lending.py), and on them the kernel's steering
(aiming.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wssup import logs
from wssup.messages import Listen, Unlisten
from wssup.scoreboard import RowView
from wssup.supervisor.address import Address
from wssup.supervisor.aiming import Aiming
from wssup.supervisor.children import Slot, Worker
from wssup.supervisor.lending import lend
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.slots import SERVED, State

__all__ = ["Sharing"]

_AS_IT_SHOULD_BE = frozenset({State.STARTING, State.EMPTY, State.PARKED})

Post = Callable[..., None]


class Sharing:
    """Keeps loans and steering as the slots' states ask for.

    :param post: sends a message with descriptors to a worker.
    :param read: reads the rows of all workers.
    :param aiming: told when somebody else accepts.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        listeners: Listeners,
        *,
        post: Post,
        read: Callable[[], Iterable[RowView]],
        aiming: Aiming,
    ) -> None:
        self._slots = slots
        self._listeners = listeners
        self._post = post
        self._read = read
        self._aiming = aiming
        self._booting = aiming.booting
        self._closing: set[str] = set()
        self._log = logs.get()

    def update(self) -> None:
        """The slots changed: lend, take back, steer."""
        acceptors = {i: w for i, s in self._slots.items() if (w := s.acceptor) is not None}
        if acceptors:
            self._booting.one_serves()
        needy = [
            i for i, s in self._slots.items() if i not in acceptors and not self._booting.awaits(s)
        ]
        standing = {
            i: s.borrower.slot
            for i, s in self._slots.items()
            if s.borrower is not None and acceptors.get(s.borrower.slot) is s.borrower
        }
        load = dict.fromkeys(acceptors, 0)
        for view in self._read() if needy else ():
            if view.slot in load:
                load[view.slot] += view.counts.open
        loans = lend(needy, load, standing)
        for index, slot in self._slots.items():
            borrower = acceptors[loans[index]] if index in loans else None
            if borrower is not slot.borrower:
                self._change(slot, borrower)
        self._aiming.update()

    async def run(self) -> None:
        """Do what has to wait for a moment."""
        await self._booting.wait_over()
        self.update()

    def added(self, addresses: list[Address]) -> None:
        """Give new addresses to the workers that accept, for their own slots and for those they
        borrowed.
        """
        texts = [a.text for a in addresses]
        for slot in self._slots.values():
            for worker in {slot.current, slot.successor, slot.borrower} - {None}:
                assert worker is not None
                if worker.ready or worker is not slot.borrower:
                    chosen = [a for a in addresses if not (worker is slot.borrower and a.shared)]
                    if chosen:
                        self._post(
                            worker,
                            Listen(slot.index, [a.text for a in chosen]),
                            [a.fileno(slot.index) for a in chosen],
                        )
        self._log.info("addresses_added", bind=texts)

    def closing(self, text: str) -> None:
        """An address is to be removed: it is not lent any more, only taken back."""
        self._closing.add(text)

    def removed(self, text: str) -> None:
        """Have every worker close its copies of an address's listeners."""
        self._closing.discard(text)
        for slot in self._slots.values():
            for worker in {*slot.workers, slot.borrower} - {None}:
                assert worker is not None
                self._post(worker, Unlisten(slot.index, [text]))

    def _change(self, slot: Slot, borrower: Worker | None) -> None:
        texts, descriptors = self._listeners.of(slot.index, lent=True)
        back = [*texts, *self._closing]
        if slot.borrower is not None and not slot.borrower.gone.is_set() and back:
            self._post(slot.borrower, Unlisten(slot.index, back))
        if borrower is not None and texts:
            self._post(borrower, Listen(slot.index, texts), descriptors)
        if borrower is not None:
            # Only a slot that should have a worker and has none has a story to tell.
            tell = self._log.debug if slot.state in _AS_IT_SHOULD_BE else self._log.info
            why = "stalled" if slot.state in SERVED else slot.state.value
            tell("listeners_lent", slot=slot.index, to=borrower.slot, because=why)
        else:
            self._log.debug("listeners_returned", slot=slot.index)
        slot.borrower = borrower
