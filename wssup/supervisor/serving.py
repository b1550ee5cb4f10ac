"""The start of an instance: what its master needs, in order, and undone in the opposite one."""

from __future__ import annotations

import os

import setproctitle
import trio

from wssup import logs
from wssup.config.loading import Loaded
from wssup.scoreboard import Scoreboard
from wssup.supervisor import inheriting, limits, status_sockets
from wssup.supervisor.bridging import check
from wssup.supervisor.instance import Instance
from wssup.supervisor.lifecycle import Lifecycle
from wssup.supervisor.listeners import Listeners
from wssup.supervisor.manager import Manager
from wssup.supervisor.master import Master
from wssup.supervisor.process import become_subreaper

__all__ = ["serve"]

#: Rows per slot: a current worker, its successor, and two generations that still drain.
_ROWS_PER_SLOT = 4


def serve(loaded: Loaded) -> int:
    """Run an instance until it is stopped.

    :returns: the exit status: 0 after a stop, 1 if the application cannot be started.
    :raises UserError: if the instance cannot be set up; nothing has been started then.
    """
    settings = loaded.settings
    logs.configure(settings.log_level, settings.log_format)
    manager = Manager.of(os.environ)
    setproctitle.setproctitle(f"wssup: master {settings.name}")
    check(settings)
    status_sockets.check_token_file(settings)
    lifecycle = Lifecycle()
    logs.listen(lifecycle.record)
    with Instance(settings.runtime_dir, settings.name) as instance:
        nofile = limits.raise_nofile()
        become_subreaper()
        scoreboard = Scoreboard.create(
            settings.name,
            settings.runtime_dir,
            _ROWS_PER_SLOT * settings.max_workers,
            settings.max_workers,
        )
        try:
            instance.record_segment(scoreboard.name)
            listeners = Listeners(
                backlog=settings.backlog, mode=int(settings.unix_mode, 8), store=manager.store
            )
            try:
                inheriting.take(listeners, manager, settings.bind)
                with status_sockets.opened(
                    instance.status, settings, patient=instance.succeeded_a_dead_one
                ) as shown:
                    master = Master(
                        loaded,
                        instance,
                        scoreboard,
                        listeners,
                        nofile,
                        manager=manager,
                        lifecycle=lifecycle,
                        shown=shown,
                    )
                    return trio.run(master.run)
            finally:
                listeners.close_all()
        finally:
            scoreboard.close()
            scoreboard.unlink()
