"""Whose fault an exception out of an ASGI application is."""

from __future__ import annotations

from trio_websocket import CloseReason, ConnectionClosed

__all__ = ["ClientGoneError", "is_farewell"]

#: What frameworks raise when a client has left, and applications let through.
_FAREWELLS = frozenset({"WebSocketDisconnect", "ClientDisconnect"})


class ClientGoneError(ConnectionClosed, OSError):
    """The client has left, or lives on in another worker: nothing can be sent any more.

    An ``OSError``, as ASGI wants it, and a ``ConnectionClosed``, which is no fault of a handler.
    """

    def __init__(self, reason: CloseReason | None = None) -> None:
        ConnectionClosed.__init__(self, reason)


def is_farewell(error: BaseException) -> bool:
    """Whether an exception says only that the client has left. (uvicorn logs such ones as errors;
    here an error counts against the code of a reload.)
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_farewell(one) for one in error.exceptions)
    return isinstance(error, ClientGoneError) or type(error).__name__ in _FAREWELLS
