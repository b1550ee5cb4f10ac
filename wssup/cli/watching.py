"""``wssup status --watch``: asks for the status each second, in a thread of its own, so that keys
and another size of the terminal are answered at once.
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from typing import Final

from rich.console import Console

from wssup.cli.client import Target
from wssup.cli.documents import Status, read
from wssup.cli.exits import OK
from wssup.cli.live import Page
from wssup.cli.screen import Screen
from wssup.errors import CommandError

__all__ = ["Watching"]

_REFRESH: Final = 1.0


class Watching:
    """The live view of one instance, also over its stop and start."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._console = Console(markup=False, highlight=False, emoji=False, force_terminal=True)
        self._page = Page(fancy=(sys.stdout.encoding or "").lower().startswith("utf"))
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self, status: Status) -> int:
        """Show it until somebody has seen enough; the exit status of the command.

        :param status: the first one to show.
        """
        self._page.add(status, time.monotonic(), dt.datetime.now(tz=dt.UTC))
        try:
            with Screen() as screen:
                threading.Thread(target=self._ask, args=[screen], daemon=True).start()
                while True:
                    self._show(screen)
                    for key in screen.wait():
                        if key == "quit":
                            return OK
                        with self._lock:
                            self._page.scroll(key)
        except KeyboardInterrupt:
            return OK
        finally:
            self._over.set()

    def _show(self, screen: Screen) -> None:
        with self._lock:
            lines = self._page.lines(self._console, *screen.size)
        screen.show(lines)

    def _ask(self, screen: Screen) -> None:
        """The thread: a status each second, until nobody looks any more."""
        due = time.monotonic()
        while True:
            due = max(due + _REFRESH, time.monotonic())
            if self._over.wait(due - time.monotonic()):
                return
            try:
                status = read(self._target.ask("status"), Status)
            except CommandError as error:
                with self._lock:
                    self._page.error = error.message
            else:
                with self._lock:
                    self._page.add(status, time.monotonic(), dt.datetime.now(tz=dt.UTC))
            screen.wake()
