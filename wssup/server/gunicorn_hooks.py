"""Hooks of a gunicorn.conf.py that have a counterpart here: what belongs to a worker's life.

``post_fork(server, worker)`` and ``post_worker_init(worker)`` are called when a worker starts up,
before the application's lifespan; ``worker_exit(server, worker)`` when it has ended. They are given
stand-ins that have what hooks mostly use.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from wssup.errors import ApplicationError
from wssup.tracebacks import own_traceback, summary

__all__ = ["called"]


def _log() -> logging.Logger:
    return logging.getLogger("gunicorn.error")


@dataclass(frozen=True, slots=True)
class _Server:
    """What hooks take for gunicorn's arbiter: the master."""

    pid: int = field(default_factory=os.getppid)
    log: logging.Logger = field(default_factory=_log)


@dataclass(slots=True)
class _Worker:
    """What they take for a worker.

    :ivar age: its number in the instance.
    """

    age: int
    pid: int = field(default_factory=os.getpid)
    ppid: int = field(default_factory=os.getppid)
    log: logging.Logger = field(default_factory=_log)
    alive: bool = True
    nr: int = 0


@contextmanager
def called(file: str, serial: int, app_dir: str) -> Iterator[None]:
    """Call the hooks in a file around a worker's life; none if no file is named.

    :param serial: the worker's number in its instance.
    :param app_dir: where the file may import from, as the application does.
    :raises ApplicationError: the file fails, or one of them.
    """
    if not file:
        yield
        return
    # Few have one, and every worker would wait for it.
    import runpy  # noqa: PLC0415

    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    found: dict[str, Any] = {}
    _try(file, "it", lambda: found.update(runpy.run_path(file, run_name="__config__")))
    server, worker = _Server(), _Worker(serial)

    def call(name: str, *arguments: object) -> None:
        if callable(hook := found.get(name)):
            _try(file, name, lambda: hook(*arguments))

    call("post_fork", server, worker)
    call("post_worker_init", worker)
    try:
        yield
    finally:
        worker.alive = False
        call("worker_exit", server, worker)


def _try(file: str, what: str, function: Callable[[], object]) -> None:
    try:
        function()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is told
        raise ApplicationError(
            f"{PurePath(file).name}: {what} raised {summary(error)}",
            "see the traceback",
            own_traceback(error),
        ) from None
