"""Applies who accepts for whom: loans of listeners (lending.py) and the kernel's steering
(steering.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from wssup import logs
from wssup.messages import Listen, Unlisten
from wssup.supervisor.address import Address
from wssup.supervisor.children import Slot, Worker
from wssup.supervisor.lending import lend
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.slots import SERVED, State
from wssup.supervisor.steering import weights

__all__ = ["Sharing"]

#: Seconds between two programs on a group. Kernels before mid-2026 free the replaced one without a
#: grace period (CVE-2026-52910); whoever is steered to an unserved slot meanwhile meets its
#: borrower.
_STEER_EVERY = 1.0
_AS_IT_SHOULD_BE = frozenset({State.STARTING, State.EMPTY, State.PARKED})

Post = Callable[..., None]


class Sharing:
    """Keeps loans and steering as the slots' states ask for.

    :param post: sends a message with descriptors to a worker.
    :param active: how many connections the workers of each slot have open.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        listeners: Listeners,
        *,
        post: Post,
        active: Callable[[], Mapping[int, int]],
    ) -> None:
        self._slots = slots
        self._listeners = listeners
        self._post = post
        self._active = active
        self._log = logs.get()
        self._steered: tuple[int, ...] | None = None
        self._steered_at = float("-inf")
        self._wanted: tuple[int, ...] = ()
        self._due = trio.Event()

    def update(self) -> None:
        """The slots changed: lend, take back, steer."""
        acceptors = {i: w for i, s in self._slots.items() if (w := s.acceptor) is not None}
        needy = [i for i in self._slots if i not in acceptors]
        standing = {
            i: s.borrower.slot
            for i, s in self._slots.items()
            if s.borrower is not None and acceptors.get(s.borrower.slot) is s.borrower
        }
        load: Mapping[int, int] = self._active() if needy and acceptors else {}
        loans = lend(needy, {i: load.get(i, 0) for i in acceptors}, standing)
        for index, slot in self._slots.items():
            borrower = acceptors[loans[index]] if index in loans else None
            if borrower is not slot.borrower:
                self._change(slot, borrower)
        self._wanted = weights([i in acceptors for i in range(self._listeners.slots)])
        if self._wanted != self._steered:
            if trio.current_time() - self._steered_at >= _STEER_EVERY:
                self._steer()
            else:
                self._due.set()

    async def steer_when_due(self) -> None:
        """Attach the programs that :meth:`update` had to put off; runs for ever."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            await trio.sleep_until(self._steered_at + _STEER_EVERY)
            if self._wanted != self._steered:
                self._steer()

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

    def removed(self, text: str) -> None:
        """Have every worker close its copies of an address's listeners."""
        for slot in self._slots.values():
            for worker in {*slot.workers, slot.borrower} - {None}:
                assert worker is not None
                self._post(worker, Unlisten(slot.index, [text]))

    def _change(self, slot: Slot, borrower: Worker | None) -> None:
        texts, descriptors = self._listeners.of(slot.index, lent=True)
        if slot.borrower is not None and not slot.borrower.gone.is_set() and texts:
            self._post(slot.borrower, Unlisten(slot.index, texts))
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

    def _steer(self) -> None:
        self._steered = self._wanted
        self._steered_at = trio.current_time()
        self._listeners.steer(self._wanted)
