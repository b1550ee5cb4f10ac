"""Writes where the main thread stands when it does not go on in time.

A thread that is given the interpreter like any other does it. faulthandler's own
(``dump_traceback_later``) needs no turn of the interpreter, and reads the frames of a thread that
may run again meanwhile: after a process was stopped and continued (SIGSTOP, a machine that slept)
that ends it with a segmentation fault.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback

__all__ = ["Overdue"]


class Overdue:
    """A deadline of the thread that makes it; nobody watches while there is none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seconds = 0.0
        self._at: float | None = None
        self._thread: threading.Thread | None = None
        self._watched = threading.get_ident()

    def expect(self, seconds: float) -> None:
        """Unless it is called again, or :meth:`cancel`, within this time, the stack is written."""
        with self._changed:
            self._seconds, self._at = seconds, time.monotonic() + seconds
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="overdue", daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """Nothing is expected any more."""
        with self._changed:
            self._at = None
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                if self._at is None or now < self._at:
                    self._changed.wait(None if self._at is None else self._at - now)
                    continue
                self._at, seconds = None, self._seconds
            # Not under the lock: standard error may be what everybody waits for.
            self._write(seconds)

    def _write(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - it has no other name
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        text = f"the loop has not turned for {seconds:g} s:\n{stack}"
        try:
            os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError, AttributeError):
            return  # nobody can be told
