"""Connections of workers that go: who may take them, and who takes the rest when a receiver goes
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wssup.messages import LEFT, Drain
from wssup.supervisor.children import Worker
from wssup.supervisor.handoffs import Session, obstacle
from wssup.supervisor.planning import UNLIMITED, budget

if TYPE_CHECKING:
    from wssup.supervisor.fleet import Fleet

__all__ = ["SERVICE_RESTART", "Onward"]

#: RFC 6455's registry of close codes: "service restart".
SERVICE_RESTART = 1012


class Onward:
    """Looks after workers that are retired and have connections that are to move."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        fleet.handoffs.on_ended = self._ended

    def order(self, worker: Worker, *, may_wait: bool, unmoved: str = "") -> Drain:
        """The order to end for a worker that others replace.

        :param unmoved: why its connections cannot move, if they should.
        """
        settings = self._fleet.settings
        return Drain(
            code=SERVICE_RESTART,
            reason="service restart",
            window=settings.drain_window,
            timeout=settings.drain_timeout,
            wait=may_wait and settings.on_reload == "wait",
            unmoved=unmoved,
            moves=worker.moves and worker.resumable and not unmoved,
        )

    def hosts(self, worker: Worker) -> list[Worker]:
        """Who can take a retired worker's connections; those that turn, if there are any. While a
        rollout is committed slot by slot those of the generation before go, too.
        """
        serving = self._fleet.serving
        there = [w for w in self._fleet.current if w.able and w.generation is serving]
        hosts = [w for w in there if not obstacle(worker, w)]
        return [w for w in hosts if not w.stalled] or hosts

    def failures(self, old: Worker, new: Worker) -> int:
        """How many connections may fail to resume in a worker; where they come from, any number."""
        if old.generation is new.generation or old.returns:
            return UNLIMITED
        return budget(self._fleet.settings.resume_failure_limit, self._fleet.active(old))

    def is_ready(self, worker: Worker) -> None:
        """A worker was told to go before it was known that it was ready, and has let clients in."""
        worker.moves = True
        self.look()

    def look(self) -> None:
        """Have connections move on that have nobody to go to: their receiver has ended, or there
        was none, or their worker was not known to be ready.
        """
        fleet = self._fleet
        if fleet.stopping:
            return
        for worker in [w for slot in fleet.slots.values() for w in slot.retired]:
            if not (worker.moves and worker.ready) or worker.gone.is_set():
                continue
            if self._gives_all(worker):
                continue
            hosts = [w for w in self.hosts(worker) if self._may_follow(worker, w)]
            if hosts:
                host = min(hosts, key=fleet.active)
                failures = self.failures(worker, host)
                fleet.handoffs.open(worker, host, quota=0, failures=failures)

    def _ended(self, session: Session) -> None:
        """A session is over for its sender. Only who was left by its receiver is moved on: where
        that was full, or its code fails, the next one may be no better.
        """
        sender = session.sender
        if session.quota or self._gives_all(sender):
            return
        if session.error in LEFT:
            # Though it may live, and not have said why.
            sender.left.add(session.receiver.serial)
            self.look()
        else:
            sender.moves = False

    def _gives_all(self, worker: Worker) -> bool:
        return any(not session.quota for session in self._fleet.handoffs.of(worker))

    def _may_follow(self, worker: Worker, host: Worker) -> bool:
        known = host.generation is worker.generation or worker.returns
        allowed = known or self._fleet.settings.on_reload == "handoff"
        return allowed and host.serial not in worker.left
