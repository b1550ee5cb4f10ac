"""The seam in pure Python, for where nothing could be compiled; what it is says ``wire``.

The compiled core gives the same, event by event and byte by byte. What is for frames that the
kernel does not take (``_queue``, ``flush``, ``drop_queue``) is used by both.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from wssup.server.frames import (
    HEADS,
    TEXT,
    Decoder,
    Event,
    Unfinished,
    apply_mask,
    control,
    encode,
)

__all__ = ["END", "End", "Received", "Wire", "WireConnection", "broadcast"]

#: Buffers that one writev(2) takes; the kernel's limit is 1024 (IOV_MAX).
_BATCH = 64
_readv, _write, _writev = os.readv, os.write, os.writev


class End:
    """The peer sends nothing more: end of file, or the connection broke."""

    def __repr__(self) -> str:
        return "END"


END: Final = End()
#: What one read gives: a message, or what else there is.
Received = str | bytes | Sequence[Event | End]
_END: Final[Received] = (END,)
_NOTHING: Final[Received] = ()


class Wire:
    """What the connections of a worker share: the buffer, the limits, the counters of traffic.

    :param read_bytes: the most that is read of a connection at a time.
    :ivar messages_in: since they were last flushed; so for ``messages_out``, and payload bytes
        ``bytes_in``, ``bytes_out``.
    :ivar queued: bytes in all outbound queues, now.
    :ivar scheduler: what the compiled core needs of the event loop to wait by itself; see
        ``loops.Loop``. ``None``: it calls the coroutines.
    :ivar watchful: somebody wants to know of each receive, so none of them is usual.
    """

    scheduler: tuple[Any, ...] | None
    watchful: bool

    def __init__(self, decoder: Decoder, *, read_bytes: int, message_bytes: int) -> None:
        self.buffer = bytearray(max(read_bytes, 16))
        self.buffers = [self.buffer]
        self.view = memoryview(self.buffer)
        self.decode = decoder.decode
        self.short = min(125, message_bytes)
        self.medium = min(0xFFFF, message_bytes)
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.queued = 0
        self.scheduler = None
        self.watchful = False


class WireConnection:
    """One connection, as far as its bytes go.

    :ivar fd: its descriptor; -1 once it is closed.
    :ivar unfinished: what was received and not decoded to the end.
    :ivar outbox: frames that the kernel did not take; ``None`` if there are none. The first may
        have been sent in part.
    :ivar out_bytes: the bytes in it.

    The others are the connection's own. They stand here because they are used for each message.
    """

    __slots__ = (
        "closed",
        "fd",
        "heard",
        "inbox",
        "more_receivers",
        "out_bytes",
        "outbox",
        "receiver",
        "status",
        "ticket",
        "unfinished",
        "wire",
    )

    fd: int
    wire: Wire
    unfinished: Unfinished | None
    outbox: deque[bytes | memoryview] | None
    out_bytes: int

    def receive(self, budget: int) -> Received:  # noqa: C901, PLR0912 - the hot path
        """Read once, unless frames of the last read are left, and decode at most ``budget`` frames.

        :returns: a message, if that is all there is; else the events, `END` the last one if the
            peer is gone. Nothing may be read after that, or after a Close or a Violation.
        """
        wire = self.wire
        unfinished = self.unfinished
        if unfinished is not None and unfinished.more:
            data = b""
        else:
            try:
                size = _readv(self.fd, wire.buffers)
            except BlockingIOError:
                return _NOTHING
            except OSError:
                return _END
            if not size:
                return _END
            buffer = wire.buffer
            # What stands behind the first ``size`` bytes is another connection's.
            if unfinished is None and size >= 6:
                # Nearly all reads: one whole masked frame, which is one whole message.
                length, start = buffer[1] - 0x80, 6
                if length == 126:
                    length, start = buffer[2] << 8 | buffer[3], 8
                    whole = size == 8 + length and 126 <= length <= wire.medium
                else:
                    whole = size == 6 + length and 0 <= length <= wire.short
                if whole:
                    payload = apply_mask(buffer[start:size], buffer[start - 4 : start])
                    first = buffer[0]
                    if first == 0x81:
                        try:
                            text = payload.decode()
                        except UnicodeDecodeError:
                            pass  # the decoder finds the words for it
                        else:
                            wire.messages_in += 1
                            wire.bytes_in += length
                            return text
                    elif first == 0x82:
                        wire.messages_in += 1
                        wire.bytes_in += length
                        return payload
                    elif 0x88 <= first <= 0x8A and length <= 125:
                        return (control(first & 0x0F, payload),)
            data = wire.view[:size].tobytes()
        return self.decode(data, budget)

    def forward(self, budget: int) -> Received | None:
        """As `receive`, but a message may be given to the one task that waits for it.

        :returns: ``None`` if it was. Only the compiled core does that.
        """
        return self.receive(budget)

    def decode(self, data: bytes, budget: int) -> list[Event]:
        """Decode bytes that did not come by `receive`, or not as one whole message."""
        wire = self.wire
        events, self.unfinished = wire.decode(data, self.unfinished, budget)
        for event in events:
            kind = type(event)
            if kind is bytes:
                wire.messages_in += 1
                wire.bytes_in += len(event)
            elif kind is str:
                assert isinstance(event, str)
                wire.messages_in += 1
                wire.bytes_in += len(event) if event.isascii() else len(event.encode())
        return events

    def send(self, opcode: int, payload: bytes) -> bool:
        """Send a message as one frame, in order; what the kernel does not take is queued.

        :returns: whether the queue was empty before and is not now: somebody must wait until the
            socket is writable.
        :raises OSError: the connection is broken.
        """
        size = len(payload)
        data = HEADS[opcode][size] + payload if size < 126 else encode(opcode, payload)
        wire = self.wire
        wire.messages_out += 1
        wire.bytes_out += size
        if self.outbox is None:
            try:
                sent = _write(self.fd, data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return False
            return self._queue(data, sent)
        return self._queue(data, 0)

    def send_text(self, text: str) -> bool:
        """Send a text message; else as `send`.

        :raises OSError: the connection is broken.
        :raises UnicodeEncodeError: there is a lone surrogate in it, and nothing was sent.
        """
        return self.send(TEXT, text.encode())

    def post(self, frame: bytes, size: int) -> bool:
        """Send an encoded message, whose payload has ``size`` bytes; else as `send`.

        :raises OSError: the connection is broken.
        """
        self.wire.messages_out += 1
        self.wire.bytes_out += size
        return self.transmit(frame)

    def transmit(self, data: bytes) -> bool:
        """Send what is no message: control frames, and the answer to a handshake; else as `send`.

        :raises OSError: the connection is broken.
        """
        sent = 0
        if self.outbox is None:
            with suppress(BlockingIOError):
                sent = _write(self.fd, data)
            if sent == len(data):
                return False
        return self._queue(data, sent)

    def _queue(self, data: bytes, sent: int) -> bool:
        rest = memoryview(data)[sent:] if sent else data
        self.out_bytes += len(rest)
        self.wire.queued += len(rest)
        if self.outbox is None:
            self.outbox = deque((rest,))
            return True
        self.outbox.append(rest)
        return False

    def flush(self) -> bool:
        """Send what is queued.

        :returns: whether something was sent.
        :raises OSError: the connection is broken.
        """
        outbox = self.outbox
        if outbox is None:
            return False
        try:
            sent = _writev(self.fd, list(islice(outbox, _BATCH)))
        except BlockingIOError:
            return False
        self.out_bytes -= sent
        self.wire.queued -= sent
        while outbox:
            first = outbox[0]
            if sent < len(first):
                outbox[0] = memoryview(first)[sent:]
                break
            sent -= len(first)
            outbox.popleft()
        else:
            self.outbox = None
        return True

    def drop_queue(self, *, keep_first: bool) -> None:
        """Forget what is queued; the first frame, of which the peer may have a part, can stay."""
        if self.outbox is not None:
            kept = self.outbox[0] if keep_first else b""
            self.wire.queued -= self.out_bytes - len(kept)
            self.out_bytes = len(kept)
            self.outbox = deque((kept,)) if kept else None


def broadcast(
    connections: Iterable[WireConnection], frame: bytes, size: int
) -> tuple[list[WireConnection], list[WireConnection], list[WireConnection]]:
    """Send one encoded message to many open connections of one worker.

    :param frame: the message as a frame; ``size`` is that of its payload.
    :returns: those whose queue was empty before and is not now: somebody must wait until their
        sockets are writable; those that were not sent it, because they have a queue already; those
        whose socket is broken.
    """
    waiting: list[WireConnection] = []
    queueing: list[WireConnection] = []
    broken: list[WireConnection] = []
    whole, sent_to, connection = len(frame), 0, None
    for connection in connections:
        if connection.outbox is not None:
            queueing.append(connection)
            continue
        try:
            sent = _write(connection.fd, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            broken.append(connection)
            continue
        sent_to += 1
        if sent != whole:
            connection._queue(frame, sent)  # noqa: SLF001 - a part of this seam
            waiting.append(connection)
    if connection is not None:
        connection.wire.messages_out += sent_to
        connection.wire.bytes_out += sent_to * size
    return waiting, queueing, broken
