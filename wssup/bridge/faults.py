"""Why the server is away, in a word for the scoreboard and in a sentence for the log, which never
holds a password.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import quote, unquote

import anyio
import trio
from coredis import exceptions as said

from wssup.config.bus import HIDDEN
from wssup.scoreboard import BridgeFault

__all__ = ["Away", "away", "fault_of", "leaves", "without"]

# Of a Cluster's servers AskError is what MovedError is too: the slots are not where they were.
_BUSY = (
    said.AskError,
    said.BusyLoadingError,
    said.ClusterDownError,
    said.ReadOnlyError,
    said.TryAgainError,
)
_LOST = (
    ConnectionError,
    said.ConnectionError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_AUTH = (said.AuthenticationError, said.AuthorizationError)
#: What a server says that is not of use as a whole, not only to one command.
_BUSY_WORDS = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
_AUTH_WORDS = ("NOAUTH", "WRONGPASS", "NOPERM")


class Away(Exception):  # noqa: N818 - a state of the server, which the bridge lives with
    """There is no use in this connection any more.

    :ivar fault: why, for the scoreboard.
    """

    def __init__(self, fault: BridgeFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


def away(error: BaseException) -> Away:
    """An error of the library or the system as one that says what it means here."""
    for leaf in leaves(error):
        if isinstance(leaf, Away):
            return leaf
    # The library wraps the cause it met in one of its own, which says less.
    last = list(leaves(error))[-1]
    fault = fault_of(last)
    nothing = "the connection is closed" if fault is BridgeFault.LOST else type(last).__name__
    return Away(fault, str(last) or nothing)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors of a group, each followed by what caused it."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
        return
    yield error
    if error.__cause__ is not None:
        yield from leaves(error.__cause__)


def fault_of(error: BaseException) -> BridgeFault:
    """The word for an error."""
    text = str(error)
    if isinstance(error, _AUTH) or text.startswith(_AUTH_WORDS):
        return BridgeFault.AUTH
    if isinstance(error, _BUSY) or text.startswith(_BUSY_WORDS):
        return BridgeFault.BUSY
    if isinstance(error, socket.gaierror):
        return BridgeFault.NAME
    if isinstance(error, ssl.SSLError):
        return BridgeFault.TLS
    if isinstance(error, TimeoutError | trio.TooSlowError):
        return BridgeFault.TIMEOUT
    if isinstance(error, ConnectionRefusedError):
        return BridgeFault.REFUSED
    if isinstance(error, _LOST):
        return BridgeFault.LOST
    if isinstance(error, OSError):
        return BridgeFault.REFUSED
    return BridgeFault.OTHER


def without(text: str, *secrets: str) -> str:
    """Text without these: servers of old repeat a whole command in what they say of it."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        for form in {secret, unquote(secret), quote(secret), quote(secret, safe="")}:
            if form:
                text = text.replace(form, HIDDEN)
    return text
