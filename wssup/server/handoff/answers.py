"""What the receiver of a handoff session says to its sender, and its codec. Pure."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from wssup.errors import MessageError

__all__ = ["Answer", "AnswerKind", "Answers", "ProtocolError", "pack_answer"]

#: An answer: its kind and its count. The kernel queues so few bytes all, or not at all.
_ANSWER = struct.Struct("!HH")


class ProtocolError(MessageError):
    """An event that the tables do not know for a state, or an answer that makes no sense."""


class AnswerKind(IntEnum):
    """What the receiver says of the oldest connections that it has not answered."""

    #: They are the receiver's.
    TAKEN = 1
    #: Declined: it has no descriptors left.
    NO_ROOM = 2
    #: Declined, and all that come later will be: too many resumes failed.
    STOP = 3


class Answer(NamedTuple):
    """An answer to the next ``count`` connections, oldest first."""

    kind: AnswerKind
    count: int  # type: ignore[assignment]  # tuple.count is not needed here


def pack_answer(answer: Answer) -> bytes:
    """The answer as it is sent; :class:`ProtocolError` if its count is not in 1 to 65535."""
    if not 1 <= answer.count <= 0xFFFF:
        raise ProtocolError(f"an answer to {answer.count} connections cannot be sent")
    return _ANSWER.pack(*answer)


class Answers:
    """Reads answers from a stream, however it is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that ``data`` completes; :class:`ProtocolError` if one makes no sense."""
        data = self._rest + data
        whole = len(data) - len(data) % _ANSWER.size
        self._rest = data[whole:]
        found: list[Answer] = []
        for kind, count in _ANSWER.iter_unpack(data[:whole]):
            if kind not in set(AnswerKind) or not count:
                raise ProtocolError(f"an answer of kind {kind} to {count} connections")
            found.append(Answer(AnswerKind(kind), count))
        return found
