"""All sessions of a worker, in which connections leave it or come to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wssup.messages import LEFT
from wssup.scoreboard import ClosedReason
from wssup.server.handoff.fresh import Waits

if TYPE_CHECKING:
    from wssup.server.handoff.sending import Sender

__all__ = ["Sessions"]


class Sessions:
    """The sessions that are under way.

    :ivar senders: those in which connections leave, in their order.
    :ivar receivers: those in which connections come.
    :ivar changed: called when one was swept, or is over.
    :ivar is_hopeless: the last one that took all has ended for a reason for which none follows.
    """

    def __init__(self) -> None:
        self.senders: list[Sender] = []
        self.receivers: list[Waits] = []
        self.changed: Callable[[], None] = lambda: None
        self.is_hopeless = False

    def begin(self, sender: Sender) -> None:
        """Connections leave."""
        self.senders.append(sender)
        if sender.takes_all:
            self.is_hopeless = False

    def over(self, sender: Sender, error: str) -> None:
        """They do so no more.

        :param error: why (`HandedOver`).
        """
        self.senders.remove(sender)
        if sender.wants_all:
            self.is_hopeless = error not in {*LEFT, "recalled"}

    @property
    def is_swept(self) -> bool:
        """Whether all have moved what could be moved at once."""
        return all(sender.is_swept for sender in self.senders)

    @property
    def rest(self) -> Sender | None:
        """One that goes on with those that become quiet, or open, later."""
        return next((sender for sender in self.senders if sender.takes_all), None)

    def go_on(self) -> None:
        """Have all look whether they can go on."""
        for sender in self.senders:
            sender.go_on()

    def retry(self) -> None:
        """From time to time: see `Sender.retry`."""
        for sender in list(self.senders):
            sender.retry()

    def recall(self, session: int) -> None:
        """End one in which connections leave."""
        for sender in list(self.senders):
            if sender.session == session:
                sender.end("recalled")

    def give_up_silent(self, since: float) -> None:
        """End those whose receivers have answered nothing since a moment: see `Sender.give_up`."""
        for sender in list(self.senders):
            sender.give_up(since)

    def end_all(self, error: str) -> None:
        """End all in which connections leave."""
        for sender in list(self.senders):
            sender.end(error)

    def take_no_more(self) -> None:
        """End all in which connections come."""
        for receiver in list(self.receivers):
            receiver.end("")

    def abandon(self, verdict: ClosedReason) -> None:
        """End all, for nobody is left to go on with anything.

        :param verdict: why what is on its way, and stays here, is closed.
        """
        for sender in list(self.senders):
            sender.abandon(verdict)
        self.take_no_more()
