"""The master: owns everything long-lived, starts it, and takes signals until it is told to stop.

It never imports application code, and nothing in it waits for a worker without a deadline.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence

import trio

from wssup import logs
from wssup.config.capacity import arithmetic
from wssup.config.loading import Loaded
from wssup.config.plan import workers_meant
from wssup.config.settings import Settings
from wssup.errors import ApplicationError, CommandError, ListenError
from wssup.scoreboard import InstanceState, Scoreboard, Snapshot
from wssup.status.facts import ReloadFacts
from wssup.supervisor import limits
from wssup.supervisor.address import Address
from wssup.supervisor.banner import started
from wssup.supervisor.bridging import Bridging
from wssup.supervisor.control import Control
from wssup.supervisor.ending import CLOSING, Ending
from wssup.supervisor.events import Events
from wssup.supervisor.fleet import Fleet
from wssup.supervisor.instance import Instance
from wssup.supervisor.lifecycle import Lifecycle
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.manager import Manager
from wssup.supervisor.observing import Observing
from wssup.supervisor.process import Processes
from wssup.supervisor.rebalancing import Rebalance, Rebalancing
from wssup.supervisor.recycling import Recycling
from wssup.supervisor.reload import OUTCOMES, Reload
from wssup.supervisor.reporting import Reporting
from wssup.supervisor.scaling import Scaling
from wssup.supervisor.slots import State
from wssup.supervisor.watch import Watch
from wssup.version import __version__

__all__ = ["Master"]

#: Seconds that the workers of a dead predecessor get to let go of its addresses.
_PREDECESSOR_GRACE = 3.0

_SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Master:
    """One running instance.

    :ivar loaded: the configuration in force.
    :ivar node: the instance's name among all there are, from its start to its end.
    :ivar last_reload: how the last reload ended.
    :ivar reloading: the reload under way, if any; ``reloads`` how many have ended, by outcome.
    :ivar lifecycle: what has happened in the life of the instance.
    :param shown: the status sockets.
    """

    fleet: Fleet
    watch: Watch
    nursery: trio.Nursery
    control: Control
    ending: Ending
    recycling: Recycling
    scaling: Scaling
    bridging: Bridging
    observing: Observing
    _rebalancing: Rebalancing

    def __init__(
        self,
        loaded: Loaded,
        instance: Instance,
        scoreboard: Scoreboard,
        listeners: Listeners,
        nofile: limits.Nofile,
        *,
        manager: Manager,
        lifecycle: Lifecycle,
        shown: Sequence[socket.socket],
    ) -> None:
        self.loaded = loaded
        self.instance = instance
        self.scoreboard = scoreboard
        self.listeners = listeners
        self.nofile = nofile
        self.events = Events()
        self.started_at = time.time()
        self.node = secrets.token_hex(4)
        self.reloading: Reload | None = None
        self.last_reload: ReloadFacts | None = None
        self.reloads = dict.fromkeys(OUTCOMES, 0)
        self.lifecycle = lifecycle
        self._shown = shown
        self._processes = Processes()
        self._reload_scope = trio.CancelScope()
        self._generations = 0
        self.reporting = Reporting(self, manager)
        self._log = logs.get()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def state(self) -> InstanceState:
        """What the instance is doing."""
        return self.scoreboard.state

    @state.setter
    def state(self, state: InstanceState) -> None:
        self.scoreboard.state = state

    async def run(self) -> int:
        """Serve until stopped; returns the exit status."""
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            await self._listen()
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                nursery.start_soon(self._processes.reap)
                self.fleet = Fleet(
                    nursery,
                    self.settings,
                    processes=self._processes,
                    scoreboard=self.scoreboard,
                    listeners=self.listeners,
                    node=self.node,
                )
                self.bridging = Bridging(
                    lambda: self.settings,
                    processes=self._processes,
                    scoreboard=self.scoreboard,
                    mesh=self.fleet.mesh,
                    next_serial=self.fleet.next_serial,
                    node=self.node,
                )
                self.observing = Observing(self, self._shown, processes=self._processes)
                self.watch = Watch(self.fleet, self.scoreboard)
                self.ending = Ending(self)
                self.recycling = Recycling(self)
                self.scaling = Scaling(self)
                self.watch.on_look = self._look
                self._rebalancing = Rebalancing(self)
                self.fleet.on_fresh = self._rebalancing.wish
                nursery.start_soon(self._rebalancing.run)
                nursery.start_soon(self.bridging.run)
                nursery.start_soon(self.observing.run)
                nursery.start_soon(self._take_signals, signals)
                self.control = Control(self)
                await nursery.start(self.control.run)
                nursery.start_soon(self.reporting.run)
                nursery.start_soon(self._boot)
                await self.ending.finished.wait()
                nursery.cancel_scope.cancel()
        self._log.info("stopped", status=self.ending.status)
        return self.ending.status

    # What commands and signals ask for.

    def worker_count(self, settings: Settings, now: int = 0) -> int:
        """How many workers a configuration means, if there are so many now.

        :raises UserError: if its ``connections`` do not fit into as many as there may be.
        """
        cpus = limits.available_cpus()
        return workers_meant(settings, cpus=cpus, nofile=self.nofile.soft, now=now)

    def capacity(self) -> int:
        """How many connections fit into the workers in service."""
        return self.fleet.admitting.capacity(self.nofile.soft - self.settings.reserve_fds)

    def reload(self) -> Reload:
        """Start a reload; its progress goes to :attr:`events`, its end to :attr:`last_reload`.

        :raises CommandError: if there is a reason not to.
        """
        self._check_free("reload")
        self.recycling.stand_down("a reload replaces all workers")
        self._rebalancing.stand_down()
        self._generations += 1
        self.reloading = Reload(self, self._generations)
        self.state = InstanceState.RELOADING
        self._reload_scope = trio.CancelScope()
        self.reporting.reloading()
        self.nursery.start_soon(self._reload, self.reloading)
        return self.reloading

    def scale(self, workers: int) -> None:
        """Have another number of workers.

        :raises CommandError: if there is a reason not to.
        """
        self._check_free("scale")
        self.scaling.to(workers)

    def rebalance(self) -> Rebalance:
        """Have connections move until all slots have equally many.

        :raises CommandError: if there is a reason not to.
        """
        self._check_free("rebalance")
        return self._rebalancing.begin()

    def give_up(self) -> None:
        """Leave everything that is under way as it is: the instance ends."""
        self._reload_scope.cancel()
        self.recycling.end()
        self.events.end()

    def retire_address(self, address: Address) -> None:
        """Serve an address on for its linger, then close it."""
        self._log.info("address_retiring", bind=str(address), seconds=self.settings.address_linger)
        address.retirement = trio.CancelScope()
        self.nursery.start_soon(self._retire, address, address.retirement)

    def keep_address(self, address: Address) -> None:
        """A removed address is wanted again."""
        if address.retirement is not None:
            address.retirement.cancel()
            address.retirement = None

    def _look(self, snapshot: Snapshot) -> None:
        self.scaling.look(snapshot)
        self.recycling.look(snapshot)

    # Tasks.

    async def _listen(self) -> None:
        """Listen on the addresses; connections wait in the kernel until there are workers."""
        listeners, wanted = self.listeners, self.settings.bind
        # Those that were passed to us may be for more slots; they are parked.
        listeners.slots = max(listeners.slots, self.worker_count(self.settings))
        patience = trio.current_time() + (
            _PREDECESSOR_GRACE if self.instance.succeeded_a_dead_one else 0.0
        )
        while True:
            try:
                listeners.extend(listeners.slots)
                made = listeners.bind(t for t in wanted if t not in listeners.addresses)
                break
            except ListenError:
                # A master that was killed leaves workers that close their listeners as soon as they
                # notice.
                if trio.current_time() >= patience:
                    raise
                await trio.sleep(0.05)
        listeners.add(made)
        listeners.sort(wanted)

    async def _boot(self) -> None:
        fleet, settings = self.fleet, self.settings
        self._generations += 1
        count = self.worker_count(settings)
        generation = fleet.generation(self._generations, settings)
        self._log.info(
            "starting",
            version=__version__,
            app=settings.app,
            app_dir=settings.app_dir,
            workers=count,
            connections=settings.connections or None,
            bind=[str(a) for a in self.listeners.addresses.values()],
            pid=os.getpid(),
        )
        self._log.info(
            "limits",
            nofile_was=self.nofile.found,
            nofile=self.nofile.soft,
            backlog=min(settings.backlog, limits.somaxconn()),
        )
        if "*" in settings.limits.origins:
            self._log.info(
                "any_origin",
                hint="pages of any web site may connect; limits.origins names those that may",
            )
        try:
            await generation.load()
        except ApplicationError as error:
            if not fleet.stopping:
                self.ending.fail(str(error), error.traceback)
            return
        self.nursery.start_soon(generation.attend)
        fleet.serving = generation
        self.scoreboard.generation = generation.number
        fleet.scale(count)
        self.nursery.start_soon(self.watch.run)
        while not fleet.settled:
            if fleet.stopping:
                return
            await fleet.wait_changed()
        failed = [s for s in fleet.slots.values() if s.state is State.FAILED]
        if len(failed) == fleet.count:
            self.ending.fail(f"no worker could be started: {failed[0].error}", "")
            return
        if self.state is InstanceState.STARTING:
            self.state = InstanceState.RUNNING
            fleet.changed()
        self.reporting.ready()
        self._log.info(
            "running",
            workers=fleet.count - len(failed),
            capacity=self.capacity(),
            formula=arithmetic(settings, fleet.count, self.nofile.soft),
        )
        if logs.is_pretty(settings.log_format):
            logs.show(started(self))

    async def _reload(self, reload: Reload) -> None:
        try:
            with self._reload_scope:
                self.last_reload = await reload.run()
                self.reloads[self.last_reload.outcome] += 1
        finally:
            self.reloading = None
        if self._reload_scope.cancelled_caught:
            return
        if self.state is InstanceState.RELOADING:
            self.state = InstanceState.RUNNING
            self.fleet.changed()
        # Before the command that asked for it ends, which may be the service manager's.
        self.reporting.ready()
        self.events.tell(
            "result", **{f: getattr(self.last_reload, f) for f in ReloadFacts.__struct_fields__}
        )

    async def _take_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._log.info("signal", name=signal.Signals(number).name)
            try:
                self._obey(number)
            except CommandError as error:
                self._log.warning("signal_refused", reason=error.message)
                if number == signal.SIGHUP:
                    self.reporting.not_reloading()

    def _obey(self, number: int) -> None:
        match number:
            case signal.SIGHUP:
                self.reload()
            case signal.SIGTTIN:
                self.scale(self.fleet.count + 1)
            case signal.SIGTTOU:
                self.scale(self.fleet.count - 1)
            case signal.SIGTERM:
                # Who says it a second time is in a hurry.
                self.ending.stop(fast=self.state is InstanceState.STOPPING)
            case _:
                self.ending.stop(fast=True)

    async def _retire(self, address: Address, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self.settings.address_linger)
        # Also when it comes in the very turn in which the linger was over.
        if scope.cancel_called:
            return
        # From here on there is no way back: a reload that wants the address again binds it anew.
        address.retirement = None
        bind = str(address)
        self.listeners.take_out(address.text)
        self.fleet.sharing.closing(address.text)
        address.refuse_new()
        await trio.sleep(CLOSING)
        self.fleet.sharing.removed(address.text)
        address.close()
        self.listeners.forget(address.text)
        self._log.info("address_closed", bind=bind)

    def _check_free(self, what: str) -> None:
        if self.fleet.stopping:
            raise CommandError("busy", f"no {what} now: the instance is stopping")
        if self.reloading is not None:
            raise CommandError(
                "busy",
                f"no {what} now: a reload is under way (generation {self.reloading.number})",
                "wait for it; 'wssup status' shows how far it is",
            )
        if self.fleet.serving is None:
            raise CommandError("busy", f"no {what} now: the application is still being imported")
