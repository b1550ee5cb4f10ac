"""The listeners of a worker, its own and those it was lent, whatever loop they are accepted on."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import time
from collections.abc import Callable

from wssup import logs
from wssup.scoreboard import RefusedReason
from wssup.server.admission import EXHAUSTED, Admission, Verdict
from wssup.server.fairness import HOLD, Fairness, is_shared

__all__ = ["Key", "Listening"]

#: Connections taken from one listener before the others have their turn.
_BATCH = 16
#: The connection was gone before it was taken, or a firewall refused it (accept(2)): the next may
#: be fine.
_ITS_OWN_FAULT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ENONET,
    }
)
#: No descriptors, or no memory for one: taking more makes no sense for a while.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Of these, the ones that a descriptor less changes something about.
_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
#: Seconds until another try when there are no descriptors, and nothing was closed meanwhile.
_RELIEF = 1.0
#: Seconds between two warnings of the same limit.
_QUIET = 10.0
#: What to do about a limit, by the setting that it comes from.
_REMEDIES = {
    "max_connections": "raise max_connections, of which this is a worker's part",
    "worker_connections": "raise worker_connections, or have more workers",
    "max_handshakes_per_second": "raise it, of which this is a worker's part",
    "RLIMIT_NOFILE": "raise the limit of open files (LimitNOFILE= in the unit)",
}

#: The next connection is another worker's.
_LEFT = Verdict(wait=HOLD)

Key = tuple[int, str]


class Listening:
    """All listeners of the worker; a subclass accepts.

    Listening sockets are shared with other processes: they are only ever closed here, never shut
    down, and their O_NONBLOCK, which belongs to the open file description, is left as the master
    set it.

    :param admission: the limits; beyond them connections wait in the kernel's queue, or are taken
        and turned away.
    :param accepted: called for each connection taken, at once.
    :param gauge: called with whether connections are being taken.
    :ivar adopt: called with each descriptor taken, which does not block, and its peer's address;
        owns it from then on.
    :ivar turn_away: the same for connections beyond a limit, and with what is against them;
        `turned_away` is to be called before it closes one.
    :ivar fairness: decides whether a queue that all workers share is left to others; ``None``: it
        never is.
    :ivar elsewhere: how many sockets the other workers of the slot have.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        accepted: Callable[[], None],
        gauge: Callable[[bool], None],
    ) -> None:
        self._admission = admission
        self._accepted = accepted
        self._gauge = gauge
        self._listeners: dict[Key, socket.socket] = {}
        self._on = False
        #: Sockets taken here, or come from another worker, that are not closed yet.
        self.open = 0
        #: Those of them that are being turned away.
        self._refusing = 0
        #: Sockets taken here that are closed.
        self.closed = 0
        #: A descriptor kept for the connection that would find none.
        self._spare = -1
        self._quiet_until: dict[str, float] = {}
        self.adopt: Callable[[int, object], None]
        self.turn_away: Callable[[int, object, RefusedReason], None]
        self.fairness: Fairness | None = None
        self._shared: set[socket.socket] = set()
        self.elsewhere: Callable[[], int] = lambda: 0
        self._log = logs.get()

    def add(self, key: Key, descriptor: int) -> None:
        """Accept from one more listener, which is owned from now on. One that is there already is
        closed.
        """
        if key in self._listeners:
            os.close(descriptor)
            return
        listener = self._listeners[key] = socket.socket(fileno=descriptor)
        if is_shared(listener):
            self._shared.add(listener)
        if self._on:
            self._start(key)

    def remove(self, key: Key) -> None:
        """Close this worker's copy of a listener."""
        listener = self._listeners.pop(key, None)
        if listener is not None:
            self._stop(key)
            self._shared.discard(listener)
            listener.close()

    def switch(self, *, on: bool) -> None:
        """Accept, or no longer; the listeners stay."""
        if on is self._on:
            return
        self._on = on
        if on:
            self._keep_spare()
        self._gauge(on)
        for key in self._listeners:
            if on:
                self._start(key)
            else:
                self._stop(key)

    def empty_queues(self) -> None:
        """Take what has been accepted by the kernel and waits, without waiting for more; none of it
        is left to others any more.
        """
        self.fairness = None
        for listener in self._listeners.values():
            before = -1
            while before != self.open:
                before = self.open
                if self._take_some(listener):
                    break

    def close_listeners(self) -> None:
        """Accept no more, for good. What was taken already is still handed out."""
        self.switch(on=False)
        for key in list(self._listeners):
            self.remove(key)
        self._drop_spare()

    def room(self) -> int:
        """How many sockets more may come from other workers: for these descriptors are the only
        limit, as they have been let in already.
        """
        return self._admission.descriptors - self.open

    def leave(self, count: int) -> None:
        """Leave so many descriptors of the limit to others."""
        self._admission.leave(count)

    def limit(self, part: int | None, rate: float) -> None:
        """Go on with other limits; as of `Admission.change`."""
        self._admission.change(part, rate, time.monotonic())
        self._relieved()

    @property
    def is_shared(self) -> bool:
        """Whether a limit is one for all workers of the slot."""
        return self._admission.is_shared

    def look(self) -> None:
        """Other workers of the slot may have closed sockets: who waits for that goes on."""
        self._relieved()

    def took_one(self) -> None:
        """A socket came from another worker."""
        self.open += 1

    def closed_one(self) -> None:
        """A socket taken here was closed, or went to another worker."""
        self.open -= 1
        self.closed += 1
        if self._on:
            self._keep_spare()
        self._relieved()

    def turned_away(self) -> None:
        """A socket that is being turned away is about to be closed."""
        self._refusing -= 1

    def _start(self, key: Key) -> None:
        """Begin to accept from a listener; while it cannot be, wait."""
        raise NotImplementedError

    def _stop(self, key: Key) -> None:
        """Accept from a listener no more; it may be closed at once."""
        raise NotImplementedError

    def _relieved(self) -> None:
        """A socket was closed, or limits changed: who waits for that goes on."""
        raise NotImplementedError

    def _take_some(self, listener: socket.socket) -> float:
        """Take what is there, up to a batch.

        :returns: seconds for which no more can be taken; infinite: until a socket is closed.
        """
        fairness = self.fairness if listener in self._shared else None
        if fairness and fairness.leaves(self.open):
            return HOLD
        elsewhere = self.elsewhere()
        for _ in range(_BATCH):
            verdict = self._judge(elsewhere, fairness)
            if verdict.wait:
                if verdict.reason is not None:
                    self._tell(verdict)
                return verdict.wait
            try:
                # Half of what socket.accept() costs is the Python object, which nobody needs.
                client, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except BlockingIOError:
                return 0.0
            except OSError as error:
                if error.errno in _ITS_OWN_FAULT:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                found = self._take_with_spare(listener, error)
                if found is None:
                    return _RELIEF
                client, address = found
                verdict = EXHAUSTED
            self._take(client, address, verdict)
        return 0.0

    def _judge(self, elsewhere: int, fairness: Fairness | None) -> Verdict:
        """What to do with the next connection; of a queue that all share, nobody is turned away
        whom another worker may let in.
        """
        verdict = self._admission.judge(
            self.open - self._refusing, elsewhere, self._refusing, time.monotonic()
        )
        turned_away = verdict.reason is RefusedReason.LIMIT and not verdict.wait
        if turned_away and fairness and fairness.others_have_room():
            return _LEFT
        return verdict

    def _take(self, client: int, address: object, verdict: Verdict) -> None:
        """A connection was taken: let it in, or turn it away."""
        self.open += 1
        self._accepted()
        os.set_blocking(client, False)
        if verdict.reason is None:
            self._admission.admitted()
            self.adopt(client, address)
            return
        self._refusing += 1
        if verdict is not EXHAUSTED:
            self._tell(verdict)
        self.turn_away(client, address, verdict.reason)

    # Out of descriptors.

    def _take_with_spare(
        self, listener: socket.socket, error: OSError
    ) -> tuple[int, object] | None:
        """Take a connection with the descriptor that was kept for this, if there is one; it is
        missing until a socket is closed.
        """
        self._warn("accept_exhausted", error=error.strerror or "out of descriptors", open=self.open)
        if self._spare < 0 or error.errno not in _DESCRIPTORS:
            return None
        self._drop_spare()
        try:
            found: tuple[int, object] = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            # Its client has left, or somebody else was faster.
            self._keep_spare()
            return None
        return found

    def _keep_spare(self) -> None:
        if self._spare < 0 and self._admission.refuses:
            # Without it who comes next waits.
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    # What is said.

    def _tell(self, verdict: Verdict) -> None:
        """Say what keeps connections out."""
        named = {"limit": verdict.limit, "set_by": verdict.set_by}
        if verdict.reason is RefusedReason.RATE:
            self._warn("handshake_limit", hint=_REMEDIES[verdict.set_by], **named)
        else:
            held = self.open - self._refusing
            self._warn("connection_limit", open=held, hint=_REMEDIES[verdict.set_by], **named)

    def _warn(self, event: str, **fields: object) -> None:
        """Say it, but not with every connection of a storm."""
        now = time.monotonic()
        if now >= self._quiet_until.get(event, -math.inf):
            self._quiet_until[event] = now + _QUIET
            self._log.warning(event, **fields)
