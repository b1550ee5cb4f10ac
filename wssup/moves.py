"""What master and workers say of connections that move from one worker to another; part of the
vocabulary of :mod:`wssup.messages`.
"""

from __future__ import annotations

from typing import Final

from wssup.questions import Tagged

__all__ = ["LEFT", "HandOver", "HandedOver", "Recall", "Swept", "TakeOver", "TookOver"]


class HandOver(Tagged, frozen=True, tag="hand_over"):
    """To a worker: move connections to the one at the other end. Descriptor: a stream's end."""

    #: The master's number for this, never used twice.
    session: int
    #: The version of the records.
    version: int
    #: Connections to move at most; then the worker ends the session. 0: all of them, those that
    #: become quiet later too, until the worker itself ends.
    quota: int
    #: As of :class:`TakeOver`: there is no use in being far ahead of what the other one takes.
    failures: int = 2**31 - 1
    #: The serial number of the worker at the other end.
    receiver: int = 0


class TakeOver(Tagged, frozen=True, tag="take_over"):
    """To a worker: take connections from the one at the other end. Descriptor: a stream's end."""

    session: int
    version: int
    #: Resumes that may fail. When one more has, no more connections are taken and the session ends.
    failures: int
    #: The serial number of the worker at the other end.
    sender: int = 0


class Recall(Tagged, frozen=True, tag="recall"):
    """To the worker that hands over: end this session now. What was not taken stays."""

    session: int


class Swept(Tagged, frozen=True, tag="swept"):
    """From the worker that hands over, once per session: each connection has been looked at."""

    session: int
    moved: int
    #: Those that move once they are quiet.
    busy: int
    #: Those that cannot move.
    kept: int


#: Why a session ends whose receiver is gone, or says nothing (``HandedOver.error``): what is left
#: may go to another one.
LEFT: Final = frozenset({"receiver_lost", "receiver_slow"})


class HandedOver(Tagged, frozen=True, tag="handed_over"):
    """From the worker that handed over: its session is over."""

    session: int
    moved: int
    #: Why, where it was not of the worker's own accord: one of :data:`LEFT`, ``resume_failures``,
    #: ``recalled``, ``receiver_full`` or other words.
    error: str


class TookOver(Tagged, frozen=True, tag="took_over"):
    """From the worker that took over: its session is over."""

    session: int
    taken: int
    #: Of those, how many could not resume and were closed.
    failed: int
