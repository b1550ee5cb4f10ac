"""Tells each worker its part of the instance's limits (``max_connections`` and others)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wssup.config.capacity import capacity, parts
from wssup.config.settings import Settings
from wssup.messages import Admit, Message
from wssup.scoreboard import RowView
from wssup.supervisor.children import Slot, Worker

__all__ = ["Admitting"]

#: More than any worker can have.
_UNBOUNDED = 1 << 30


class Admitting:
    """Knows what each worker was told, and tells it again when that changes.

    :param settings: those in force.
    :param post: sends a message to a worker.
    :param rows: the scoreboard's rows as they are now.
    """

    def __init__(
        self,
        slots: Mapping[int, Slot],
        *,
        settings: Callable[[], Settings],
        post: Callable[[Worker, Message], None],
        rows: Callable[[], Iterable[RowView]],
    ) -> None:
        self._slots = slots
        self._settings = settings
        self._post = post
        self._rows = rows
        #: By serial number: who was told, and what.
        self._told: dict[int, tuple[Worker, Admit]] = {}

    def begin(self, worker: Worker) -> None:
        """A worker was asked for: it is told before it begins to accept."""
        self._tell([worker], self._parts(None))

    def look(self, rows: Iterable[RowView] | None = None) -> None:
        """Slots, settings or counts have changed.

        :param rows: the scoreboard's; ``None``: as they are now.
        """
        self._told = {s: told for s, told in self._told.items() if not told[0].gone.is_set()}
        known = [worker for worker, _ in self._told.values()]
        self._tell(known, self._parts(rows))

    def capacity(self, descriptors: int) -> int:
        """How many connections fit into the slots in service; as of `limits`."""
        settings = self._settings()
        return capacity(
            len(self._in_service()),
            descriptors=descriptors,
            per_worker=settings.worker_connections,
            total=settings.max_connections,
        )

    def limits(self, descriptors: int) -> dict[int, int]:
        """How many connections each slot in service may have by what its workers were told.

        :param descriptors: what RLIMIT_NOFILE leaves for connections in a worker.
        """
        told = {worker.slot: order.connections for worker, order in self._told.values()}
        found = {}
        for index in self._in_service():
            part = told.get(index)
            found[index] = descriptors if part is None else min(part, descriptors)
        return found

    def _in_service(self) -> list[int]:
        return [index for index, slot in self._slots.items() if slot.in_service]

    def _parts(self, rows: Iterable[RowView] | None) -> dict[int, int]:
        settings = self._settings()
        if not settings.max_connections:
            return {}
        taken: dict[int, int] = {}
        held: dict[int, int] = {}
        told: dict[int, int] = {}
        certain = True
        for view in self._rows() if rows is None else rows:
            taken[view.slot] = taken.get(view.slot, 0) + view.counts.open
            held[view.slot] = held.get(view.slot, 0) + view.counts.active
            # What it was told last may be on its way still, and what it went by before in force.
            told[view.slot] = max(told.get(view.slot, 0), view.admits or 0)
            certain = certain and not view.stale
        for worker, order in self._told.values():
            if order.connections is not None and self._slots[worker.slot].in_service:
                told[worker.slot] = max(told.get(worker.slot, 0), order.connections)
        return parts(
            self._in_service(),
            each=settings.worker_connections or _UNBOUNDED,
            total=settings.max_connections,
            taken=taken,
            held=held,
            told=told,
            certain=certain,
        )

    def _tell(self, workers: Iterable[Worker], found: Mapping[int, int]) -> None:
        settings = self._settings()
        rate = settings.max_handshakes_per_second / max(1, len(self._in_service()))
        for worker in workers:
            # One that is scaled away lets nobody in.
            part = found.get(worker.slot, settings.worker_connections or None)
            order = Admit(part, rate)
            before = self._told.get(worker.serial)
            if before is None or before[1] != order:
                self._told[worker.serial] = worker, order
                self._post(worker, order)
