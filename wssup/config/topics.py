"""The table ``[topics]``: one message to many connections. Part of the table of settings, and
written like it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from wssup.config.bus import EMBEDDED, Bus
from wssup.config.forms import NAMESPACE
from wssup.config.kinds import Flag, Number
from wssup.config.quantities import Duration, Size
from wssup.config.spec import Spec

__all__ = ["Topics"]


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[topics]``: what may be subscribed to, what is kept, and who carries it."""

    per_connection: Annotated[
        int,
        Spec(
            Number(0, 1_000_000),
            "Topics",
            "The most topics that one connection may subscribe to.",
            flag="--topics-per-connection",
        ),
    ] = 100
    per_worker: Annotated[
        int,
        Spec(
            Number(0, 10_000_000),
            "Topics",
            "The most topics that all connections of a worker together may subscribe to.",
            flag="--topics-per-worker",
        ),
    ] = 100_000
    queue_bytes: Annotated[
        int,
        Spec(
            Size(64 << 10, 1 << 30),
            "Topics",
            "How much may wait for another worker that is slow; then the oldest messages for it "
            "are dropped, and counted.",
            flag="--topics-queue-bytes",
        ),
    ] = 8 << 20
    history: Annotated[
        int,
        Spec(
            Number(0, 1_000_000),
            "Topics",
            "How many messages of each topic are kept for clients that come back. 0: none, unless "
            "history_age says how long.",
        ),
    ] = 0
    history_age: Annotated[
        float,
        Spec(
            Duration(),
            "Topics",
            "How long messages are kept for clients that come back. 0: as long as history and "
            "history_bytes allow.",
        ),
    ] = 0.0
    history_bytes: Annotated[
        int,
        Spec(
            Size(64 << 10, 16 << 30),
            "Topics",
            "The most that each worker keeps of all topics; then the oldest messages go.",
        ),
    ] = 64 << 20
    bus: Annotated[
        str,
        Spec(
            Bus(),
            "Topics",
            "What carries messages between instances: nothing (embedded: the workers of this one "
            "have each other), or a Redis server. A password is shown nowhere; it belongs into "
            "the environment or the file, as everybody can read command lines.",
            live=False,
        ),
    ] = EMBEDDED
    bus_namespace: Annotated[
        str,
        Spec(
            NAMESPACE,
            "Topics",
            "What the names of all channels and keys at the Redis server begin with: instances "
            "that share a namespace share their topics.",
            live=False,
        ),
    ] = "wssup"
    bus_history: Annotated[
        bool,
        Spec(
            Flag(),
            "Topics",
            "Whether the Redis server keeps the messages of topics too, so that they outlive the "
            "instance and are found by every other one: as many as history says, or 1000 each.",
            live=False,
        ),
    ] = False
