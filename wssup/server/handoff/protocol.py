"""Who may read a connection while it moves. Everything that decides about it stands in this file;
nothing here acts.

Sender and receiver share a *link*, a stream pair of their own. Records go one way, the descriptors
of their connections beside them; answers come back in the order of the connections.

Rules:

1. A connection that its sender holds is read by nobody until somebody is known to own it.
2. The sender keeps its descriptor until it has read the answer: what is sent may be the receiver's.
3. The receiver owns a connection once its acknowledgement is in the sender's queue, and neither
   reads nor writes before. If the acknowledgement cannot be queued, because the link is broken or
   its buffer full, the connection never was the receiver's.
4. The sender takes nothing back before end of file. It shuts the link both ways, which the kernel
   does at one moment: what was acknowledged before is in its queue, and what comes later fails.
   Then it reads on, past errors too, and honours every answer.
5. A failed send says that the link breaks, not what was taken: the answers say that.
6. Whoever does not own a connection closes its descriptor unread and unwritten. It does not shut
   the connection down: that would act on the owner's copy.
7. When a party dies the other one goes on by the same rules; end of file is all it hears.
8. An answer that cannot be understood leaves open who owns what is out, so the sender may not read
   it: it closes it.

========  =======================================================================
HELD      at the sender: taken off the pump; nothing of it is sent
SENT      at the sender: record and descriptor are on their way; the descriptor is kept
GONE      at the sender: acknowledged, so the receiver's; our descriptor is closed unread
KEPT      at the sender: ours again, may be read
ARRIVED   at the receiver: the record is complete; neither read nor written
OWNED     at the receiver: its acknowledgement is in the sender's queue; may be read
DROPPED   at the receiver: never ours; closed without a byte
OPEN      the link: records and answers pass
SHUT      the sender's link: nothing more is sent, answers in the queue are read
OVER      the link: end of file was read, or (receiver) an answer could not be queued
========  =======================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Generic, TypeVar

from wssup.server.handoff.answers import Answer, AnswerKind, ProtocolError

__all__ = [
    "AT_RECEIVER",
    "AT_SENDER",
    "RECEIVER_LINK",
    "SENDER_LINK",
    "AtReceiver",
    "AtSender",
    "LinkEvent",
    "ReceiverEvent",
    "ReceiverLink",
    "Receiving",
    "SenderEvent",
    "SenderLink",
    "Sending",
    "Table",
    "diagram",
]

#: What stands for a connection in the books of the acting code.
T = TypeVar("T")
_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)


class AtSender(StrEnum):
    """A connection's state as its sender sees it."""

    HELD = auto()
    SENT = auto()
    GONE = auto()
    KEPT = auto()


class SenderEvent(StrEnum):
    """What can happen to a connection at its sender."""

    #: Its first byte is about to be sent: from here on it may arrive.
    SEND = auto()
    TAKEN = auto()
    REFUSED = auto()
    #: End of file was read; of what was not sent: the session ends.
    OVER = auto()


class AtReceiver(StrEnum):
    """A connection's state as its receiver sees it."""

    ARRIVED = auto()
    OWNED = auto()
    DROPPED = auto()


class ReceiverEvent(StrEnum):
    """What can happen to a connection at its receiver."""

    #: The acknowledgement is in the sender's queue.
    ACKNOWLEDGED = auto()
    #: The acknowledgement could not be queued, or no longer can.
    ACK_FAILED = auto()
    DECLINED = auto()


class SenderLink(StrEnum):
    """The link as its sender sees it."""

    OPEN = auto()
    SHUT = auto()
    OVER = auto()


class ReceiverLink(StrEnum):
    """The link as its receiver sees it."""

    OPEN = auto()
    OVER = auto()


class LinkEvent(StrEnum):
    """What a party does with its end of the link."""

    SEND = auto()
    ARRIVE = auto()
    #: An answer was read; at the receiver: an answer is in the sender's queue.
    ANSWER = auto()
    #: shutdown(2) both ways was called.
    SHUT = auto()
    #: End of file was read; at the receiver also: an answer could not be queued.
    END = auto()


@dataclass(frozen=True)
class Table(Generic[_State, _Event]):
    """The life of one thing: ``(state, event) → state``.

    :ivar name: what it is, as diagram and errors call it.
    :ivar first: the state it begins in.
    """

    name: str
    first: _State
    steps: Mapping[tuple[_State, _Event], _State]

    def after(self, state: _State, event: _Event) -> _State:
        """The state that follows when ``event`` meets ``state``.

        :raises ProtocolError: if the table does not know the pair; it names both and what the state
            knows.
        """
        try:
            return self.steps[state, event]
        except KeyError:
            known = ", ".join(e for (s, e) in self.steps if s is state) or "none"
            raise ProtocolError(
                f"{self.name} in state {state} knows no event {event}; it knows {known}"
            ) from None


_S, _R, _SL, _RL, _E = AtSender, AtReceiver, SenderLink, ReceiverLink, LinkEvent

AT_SENDER = Table(
    "a connection at its sender",
    _S.HELD,
    {
        (_S.HELD, SenderEvent.SEND): _S.SENT,
        (_S.HELD, SenderEvent.OVER): _S.KEPT,
        (_S.SENT, SenderEvent.TAKEN): _S.GONE,
        (_S.SENT, SenderEvent.REFUSED): _S.KEPT,
        (_S.SENT, SenderEvent.OVER): _S.KEPT,
    },
)
AT_RECEIVER = Table(
    "a connection at its receiver",
    _R.ARRIVED,
    {
        (_R.ARRIVED, ReceiverEvent.ACKNOWLEDGED): _R.OWNED,
        (_R.ARRIVED, ReceiverEvent.ACK_FAILED): _R.DROPPED,
        (_R.ARRIVED, ReceiverEvent.DECLINED): _R.DROPPED,
    },
)
#: A recall comes at any time, so SHUT is known everywhere. END while OPEN: the receiver is gone.
SENDER_LINK = Table(
    "the sender's link",
    _SL.OPEN,
    {
        (_SL.OPEN, _E.SEND): _SL.OPEN,
        (_SL.OPEN, _E.ANSWER): _SL.OPEN,
        (_SL.OPEN, _E.SHUT): _SL.SHUT,
        (_SL.OPEN, _E.END): _SL.OVER,
        (_SL.SHUT, _E.ANSWER): _SL.SHUT,
        (_SL.SHUT, _E.SHUT): _SL.SHUT,
        (_SL.SHUT, _E.END): _SL.OVER,
        (_SL.OVER, _E.SHUT): _SL.OVER,
    },
)
#: An answer may fail and end of file be read after it, so END is known twice.
RECEIVER_LINK = Table(
    "the receiver's link",
    _RL.OPEN,
    {
        (_RL.OPEN, _E.ARRIVE): _RL.OPEN,
        (_RL.OPEN, _E.ANSWER): _RL.OPEN,
        (_RL.OPEN, _E.END): _RL.OVER,
        (_RL.OVER, _E.END): _RL.OVER,
    },
)


class Sending(Generic[T]):
    """The sender's book of one session: what is out, and whose it becomes. What the tables do not
    know raises :class:`ProtocolError` and changes nothing, as does an answer to more than are out.

    :ivar link: its end of the link.
    :ivar stopped: the receiver has said that it takes no more.
    """

    def __init__(self) -> None:
        self.link = SENDER_LINK.first
        self.stopped = False
        #: All that are SENT, oldest first.
        self._out: deque[T] = deque()

    @property
    def out(self) -> int:
        """Connections that are sent and not answered."""
        return len(self._out)

    @property
    def oldest(self) -> T | None:
        """What was sent first of what is not answered."""
        return self._out[0] if self._out else None

    def send(self, items: Sequence[T]) -> None:
        """The first byte of these is about to be sent; call it before sendmsg(2), whose failure
        then changes nothing: they stay out until end of file.
        """
        self.link = SENDER_LINK.after(self.link, LinkEvent.SEND)
        self._out.extend(items)

    def answered(self, answer: Answer) -> tuple[list[T], list[T]]:
        """An answer was read: the connections that are GONE, and those KEPT, oldest first."""
        link = SENDER_LINK.after(self.link, LinkEvent.ANSWER)
        if answer.count > len(self._out):
            raise ProtocolError(
                f"an answer {answer.kind.name} to {answer.count} connections of {len(self._out)}"
            )
        self.link = link
        self.stopped = self.stopped or answer.kind is AnswerKind.STOP
        taken = answer.kind is AnswerKind.TAKEN
        event = SenderEvent.TAKEN if taken else SenderEvent.REFUSED
        items = [self._out.popleft() for _ in range(answer.count)]
        if AT_SENDER.after(AtSender.SENT, event) is AtSender.GONE:
            return items, []
        return [], items

    def shut(self) -> None:
        """The link was shut both ways; allowed at any time, for a recall may come at any time."""
        self.link = SENDER_LINK.after(self.link, LinkEvent.SHUT)

    def over(self) -> list[T]:
        """End of file was read: what is still out, oldest first; it is KEPT."""
        self.link = SENDER_LINK.after(self.link, LinkEvent.END)
        items = list(self._out)
        self._out.clear()
        return items if AT_SENDER.after(AtSender.SENT, SenderEvent.OVER) is AtSender.KEPT else []


class Receiving(Generic[T]):
    """The receiver's book of one session: what has arrived and is not answered. What the tables do
    not know raises :class:`ProtocolError` and changes nothing, as does an answer to more than wait.

    :ivar link: its end of the link.
    """

    def __init__(self) -> None:
        self.link = RECEIVER_LINK.first
        #: All that are ARRIVED, oldest first.
        self._waiting: deque[T] = deque()

    @property
    def waiting(self) -> int:
        """Connections that have arrived and are not answered."""
        return len(self._waiting)

    def arrived(self, items: Sequence[T]) -> None:
        """The records of these are complete, with their descriptors or without."""
        self.link = RECEIVER_LINK.after(self.link, LinkEvent.ARRIVE)
        self._waiting.extend(items)

    def acknowledged(self, count: int) -> list[T]:
        """``TAKEN(count)`` was queued: these are OWNED now and may be read."""
        items = self._answered(count)
        owned = AT_RECEIVER.after(AtReceiver.ARRIVED, ReceiverEvent.ACKNOWLEDGED)
        return items if owned is AtReceiver.OWNED else []

    def declined(self, count: int) -> list[T]:
        """``NO_ROOM`` or ``STOP`` was queued: these are DROPPED, to be closed without a byte."""
        items = self._answered(count)
        dropped = AT_RECEIVER.after(AtReceiver.ARRIVED, ReceiverEvent.DECLINED)
        return items if dropped is AtReceiver.DROPPED else []

    def failed(self) -> list[T]:
        """An answer could not be queued, or end of file was read: the link is OVER, and all that
        waited is DROPPED, to be closed without a byte.
        """
        self.link = RECEIVER_LINK.after(self.link, LinkEvent.END)
        items = list(self._waiting)
        self._waiting.clear()
        dropped = AT_RECEIVER.after(AtReceiver.ARRIVED, ReceiverEvent.ACK_FAILED)
        return items if dropped is AtReceiver.DROPPED else []

    def _answered(self, count: int) -> list[T]:
        """Strike the oldest ``count`` off."""
        link = RECEIVER_LINK.after(self.link, LinkEvent.ANSWER)
        if not 1 <= count <= len(self._waiting):
            raise ProtocolError(f"an answer to {count} connections of {len(self._waiting)}")
        self.link = link
        return [self._waiting.popleft() for _ in range(count)]


def diagram() -> str:
    """The four tables as one Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    lines += _drawn("sender", AT_SENDER) + _drawn("receiver", AT_RECEIVER)
    lines += _drawn("sender_link", SENDER_LINK) + _drawn("receiver_link", RECEIVER_LINK)
    return "\n".join(lines) + "\n"


def _drawn(prefix: str, table: Table[_State, _Event]) -> list[str]:
    """One table as a composite state; Mermaid's names are global, so they get a prefix."""
    return [
        f'    state "{table.name}" as {prefix} {{',
        *(f"        {prefix}_{state}: {state}" for state in type(table.first)),
        f"        [*] --> {prefix}_{table.first}",
        *(
            f"        {prefix}_{state} --> {prefix}_{following}: {event}"
            for (state, event), following in table.steps.items()
            if state is not following
        ),
        "    }",
    ]
