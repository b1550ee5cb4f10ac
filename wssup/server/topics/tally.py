"""What a worker counts of topics between two writes to the scoreboard."""

from __future__ import annotations

from wssup.scoreboard import RowWriter

__all__ = ["Tally"]


class Tally:
    """Counters of topics. The methods are the bus's."""

    __slots__ = (
        "bytes_sent",
        "delivered",
        "dropped",
        "missed",
        "not_recovered",
        "published_",
        "queue_lost",
        "received_",
        "recovered",
        "reported",
        "sent_",
    )

    def __init__(self) -> None:
        self.reported = (0, 0, 0)
        self._clear()

    def _clear(self) -> None:
        self.published_ = self.delivered = self.sent_ = self.bytes_sent = self.received_ = 0
        self.queue_lost = self.missed = self.dropped = self.recovered = self.not_recovered = 0

    def published(self, count: int) -> None:
        """So many messages were published here."""
        self.published_ += count

    def sent(self, count: int, size: int) -> None:
        """So many were sent to other nodes, with so many bytes."""
        self.sent_ += count
        self.bytes_sent += size

    def received(self, count: int) -> None:
        """So many came from other nodes."""
        self.received_ += count

    def lost_out(self, count: int) -> None:
        """The queue to a node had no room for so many."""
        self.queue_lost += count

    def lost_in(self, count: int) -> None:
        """A node says that it had no room for so many."""
        self.missed += count

    def flush(self, row: RowWriter, *, subscriptions: int, topics: int, queued: int) -> None:
        """Write everything down, if there is news."""
        counted = (
            self.published_
            or self.delivered
            or self.sent_
            or self.received_
            or self.queue_lost
            or self.missed
            or self.dropped
            or self.recovered
            or self.not_recovered
        )
        gauges = (subscriptions, topics, queued)
        if not counted and gauges == self.reported:
            return
        self.reported = gauges
        row.topics(
            subscriptions=subscriptions,
            topics=topics,
            queue_bytes=queued,
            published=self.published_,
            delivered=self.delivered,
            sent=self.sent_,
            sent_bytes=self.bytes_sent,
            received=self.received_,
            lost=self.queue_lost,
            missed=self.missed,
            dropped=self.dropped,
            recovered=self.recovered,
            not_recovered=self.not_recovered,
        )
        self._clear()
