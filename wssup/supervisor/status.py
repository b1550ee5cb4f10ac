"""The master's own view of the instance, as facts for whoever shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wssup.config.settings import without_password
from wssup.status.document import document as document_of
from wssup.status.facts import (
    BridgeFacts,
    Facts,
    ListenerFacts,
    NofileFacts,
    ProcessFacts,
    SlotFacts,
    WorkerFacts,
)
from wssup.supervisor import limits
from wssup.supervisor.address import Address
from wssup.supervisor.children import Slot, Worker
from wssup.version import __version__

if TYPE_CHECKING:
    from wssup.supervisor.master import Master

__all__ = ["document", "facts"]


def document(master: Master, now_ns: int) -> dict[str, Any]:
    """The status document; ``now_ns`` of CLOCK_MONOTONIC."""
    board = master.scoreboard
    return document_of(facts(master), board.snapshot(), board.bridge(), now_ns)


def facts(master: Master) -> Facts:
    """All that the master knows and that is no count of the scoreboard."""
    fleet, settings = master.fleet, master.settings
    serving = fleet.serving
    addresses = list(master.listeners.addresses.values())
    reloading = master.reloading
    return Facts(
        name=settings.name,
        version=__version__,
        pid=master.scoreboard.master_pid,
        generation=serving.number if serving is not None else 0,
        mixed=serving.mixed if serving is not None else False,
        app=settings.app,
        started_at=master.started_at,
        bind=tuple(str(a) for a in addresses if a.retirement is None),
        retiring=tuple(str(a) for a in addresses if a.retirement is not None),
        capacity=master.capacity(),
        nofile=NofileFacts(master.nofile.soft, master.nofile.hard, master.nofile.found),
        reserve_fds=settings.reserve_fds,
        max_connections=settings.max_connections,
        worker_connections=settings.worker_connections,
        backlog=min(settings.backlog, limits.somaxconn()),
        stall_after=settings.stall_after,
        workers=fleet.count,
        restarts=fleet.restarts,
        restarts_by_reason=dict(fleet.restarts_by_reason),
        recycled=dict(master.recycling.counts),
        handoffs_in_progress=sum(1 for _ in fleet.handoffs.under_way()),
        bridge=_bridge(master),
        slots=tuple(_slot(slot) for slot in fleet.slots.values()),
        reload=reloading.number if reloading is not None else None,
        last_reload=master.last_reload,
        reloads=dict(master.reloads),
        observer_restarts=master.observing.restarts,
        status_socket=master.observing.path,
        status_bind=master.observing.bind,
        processes=tuple(_processes(master)),
        listeners=tuple(_listeners(addresses)),
        autoscale=master.scaling.facts,
    )


def _bridge(master: Master) -> BridgeFacts | None:
    bridging = master.bridging
    if not bridging.wanted:
        return None
    url = without_password(master.settings).topics.bus
    return BridgeFacts(url, bridging.pid, bridging.restarts, bridging.error)


def _slot(slot: Slot) -> SlotFacts:
    return SlotFacts(
        slot.index,
        slot.state.value,
        slot.error,
        slot.borrower.slot if slot.borrower is not None else None,
        tuple(_worker(worker) for worker in slot.workers),
    )


def _worker(worker: Worker) -> WorkerFacts:
    return WorkerFacts(
        worker.serial,
        worker.pid,
        worker.generation.number,
        worker.role.value,
        worker.state.name.lower(),
        worker.stalled,
    )


def _processes(master: Master) -> Iterator[ProcessFacts]:
    fleet = master.fleet
    yield ProcessFacts("master", master.scoreboard.master_pid)
    for generation in (fleet.serving, fleet.next):
        if generation is not None and generation.pid is not None:
            yield ProcessFacts("zygote", generation.pid, generation=generation.number)
    for slot in fleet.slots.values():
        for worker in slot.workers:
            if worker.pid is not None:
                yield ProcessFacts("worker", worker.pid, slot.index, worker.generation.number)
    if master.bridging.pid is not None:
        yield ProcessFacts("bridge", master.bridging.pid)
    if master.observing.pid is not None:
        yield ProcessFacts("observer", master.observing.pid)


def _listeners(addresses: list[Address]) -> Iterator[ListenerFacts]:
    for address in addresses:
        text, shared = str(address), address.shared or address.activated
        for slot, descriptor in enumerate(address.descriptors()):
            if descriptor >= 0:
                inode = os.fstat(descriptor).st_ino
                yield ListenerFacts(None if shared else slot, text, inode)
