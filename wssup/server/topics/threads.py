"""What other threads of a worker publish, until its loop takes it."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from wssup.server.chores import Chores

__all__ = ["FromThreads"]

#: Seconds of a turn that they may take.
_TURN: Final = 0.01
#: Messages that may wait for the loop; who publishes more has to wait.
_MOST: Final = 1000

Publish = Callable[[str, bool, bytes, int], None]


class FromThreads:
    """A queue from other threads to the one that it was made in.

    :param publish: takes a message, in that thread.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._thread = threading.get_ident()
        #: Messages, and whether each takes room.
        self._waiting: deque[tuple[tuple[str, bool, bytes, int], bool]] = deque()
        self._room = threading.Semaphore(_MOST)
        self._wakeup = -1

    def begin(self, chores: Chores) -> None:
        """There is a loop now."""
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        chores.attend(self._wakeup, select.EPOLLIN, self._take)
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Give back the descriptor; what waits is not taken any more."""
        wakeup, self._wakeup = self._wakeup, -1
        if wakeup >= 0:
            os.close(wakeup)

    def put(self, topic: str, text: bool, data: bytes, exclude: int) -> None:  # noqa: FBT001 - as it is published
        """Publish a message: at once in our own thread, behind what others have published by now;
        in another one as soon as the loop gets to it. Before there is one nobody waits for room:
        it would be for ever if the application is waited for.
        """
        if threading.get_ident() == self._thread:
            self.drain()
            self._publish(topic, text, data, exclude)
            return
        begun = self._wakeup >= 0
        if begun:
            self._room.acquire()
        self._waiting.append(((topic, text, data, exclude), begun))
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)

    def drain(self, until: float = math.inf) -> None:
        """Publish what other threads have published by now.

        :param until: by ``time.monotonic()``; what is left then stays.
        """
        for _ in range(len(self._waiting)):
            # A message's own subscribers may have published the next one meanwhile.
            if not self._waiting or time.monotonic() > until:
                break
            message, takes_room = self._waiting.popleft()
            self._publish(*message)
            if takes_room:
                self._room.release()

    def _take(self, _: int) -> None:
        # Read first: what is appended later writes again (eventfd(2)).
        os.eventfd_read(self._wakeup)
        self.drain(time.monotonic() + _TURN)
        if self._waiting:
            os.eventfd_write(self._wakeup, 1)
