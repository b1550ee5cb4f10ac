"""The tables ``[limits]`` and ``[heartbeat]``: what one connection may take, and how a dead one is
found. Part of the table of settings, and written like it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wssup.config.forms import ORIGINS
from wssup.config.kinds import Choice, Flag, Number
from wssup.config.quantities import Duration, Size
from wssup.config.spec import Spec

__all__ = ["Heartbeat", "Limits"]

_MEMORY = 1 << 30


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[limits]``: what one connection may take."""

    handshake_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take from connecting to a complete WebSocket handshake.",
        ),
    ] = 10.0
    header_bytes: Annotated[
        int,
        Spec(
            Size(256, 1 << 20),
            "Limits",
            "The largest request head of a handshake; a larger one is answered with status 431.",
        ),
    ] = 8 << 10
    headers: Annotated[
        int,
        Spec(
            Number(8, 10_000),
            "Limits",
            "The most header fields of a handshake; more are answered with status 431.",
        ),
    ] = 100
    origins: Annotated[
        tuple[str, ...],
        Spec(
            ORIGINS,
            "Limits",
            "The origins whose pages may connect; others get status 403. Clients that send no "
            "Origin are no browsers and are not asked.",
            flag="--origin",
        ),
    ] = ("*",)
    connections_per_address: Annotated[
        int,
        Spec(
            Number(0, 10_000_000),
            "Limits",
            "The most connections of one client address in a worker; more are answered with "
            'status 429. With steering = "source" and no proxy in front one address always meets '
            "the same worker, so it is the instance's. Of trusted proxies the clients are counted. "
            "0: no limit.",
        ),
    ] = 0
    message_bytes: Annotated[
        int,
        Spec(
            Size(1, _MEMORY),
            "Limits",
            "The largest message accepted from a client; a larger one closes it with 1009.",
        ),
    ] = 1 << 20
    fragments: Annotated[
        int,
        Spec(
            Number(1, 1_000_000),
            "Limits",
            "The most frames that one message may come in; more close it with 1009.",
        ),
    ] = 1024
    inbound_messages: Annotated[
        int,
        Spec(
            Number(1, 100_000),
            "Limits",
            "How many messages of a connection may wait for the application; then no more is read "
            "of it.",
        ),
    ] = 16
    outbound_bytes: Annotated[
        int,
        Spec(
            Size(1 << 10, _MEMORY),
            "Limits",
            "How much may wait to be sent to a client before slow_client is applied.",
        ),
    ] = 1 << 20
    slow_client: Annotated[
        Literal["wait", "close"],
        Spec(
            Choice(("wait", "close")),
            "Limits",
            "What happens to a client whose outbound queue is full: senders wait for it, or it is "
            "closed with 1013.",
        ),
    ] = "wait"
    send_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take nothing of what waits for it; then it is closed with 1013.",
        ),
    ] = 30.0
    close_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may take for its part of the closing handshake; then it is cut off.",
        ),
    ] = 5.0
    keep_alive_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long an HTTP connection stays open without a request (ASGI applications).",
        ),
    ] = 5.0
    body_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Limits",
            "How long a client may send nothing of a request's body that the application waits "
            "for; then it gets status 408.",
        ),
    ] = 30.0
    body_bytes: Annotated[
        int,
        Spec(
            Size(0, 1 << 50),
            "Limits",
            "The largest body of an HTTP request; a larger one is answered with status 413. It is "
            "never kept in memory as a whole by the server.",
        ),
    ] = 1 << 30
    read_bytes: Annotated[
        int,
        Spec(
            Size(1 << 10, 16 << 20),
            "Limits",
            "The most that is read of a connection at a time; one buffer serves the whole worker.",
        ),
    ] = 64 << 10
    state_bytes: Annotated[
        int,
        Spec(
            Size(0, 64 << 20),
            "Limits",
            "The largest encoded ws.state that moves to another worker with its connection; one "
            "with more is closed with 1012 instead.",
        ),
    ] = 256 << 10


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[heartbeat]``: how dead connections are found."""

    ping_interval: Annotated[
        float,
        Spec(
            Duration(),
            "Heartbeat",
            "How often a client that says nothing is sent a ping. 0: never.",
        ),
    ] = 20.0
    ping_timeout: Annotated[
        float,
        Spec(
            Duration(zero=False),
            "Heartbeat",
            "How long a client may take to say something after a ping; then it is closed.",
        ),
    ] = 20.0
    app_ping: Annotated[
        bool,
        Spec(
            Flag(),
            "Heartbeat",
            'Whether a text `{"type": "ping"}` is answered with `{"type": "pong"}` instead of '
            "being given to the application: code in a browser cannot send pings.",
        ),
    ] = False
