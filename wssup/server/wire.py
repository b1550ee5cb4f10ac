"""The seam: a socket's bytes become events, and frames become a socket's bytes.

Everything that is done once per message and needs no decision stands here: one read, decoding, one
write, what the kernel did not take. There are two cores, a compiled one (``_wire.c``) and one in
pure Python (``wire_pure``), which is used if the other could not be compiled. The pump above uses
nothing of a connection's inside but what is declared there, and one test suite holds for both.

Descriptors are plain numbers: a Python socket object per connection would cost memory, and
settimeout() on one changes the open file description, which others may share.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from wssup.server import wire_pure
from wssup.server.wire_pure import END, End, Received

__all__ = [
    "COMPILED",
    "END",
    "End",
    "Received",
    "Wire",
    "WireConnection",
    "broadcast",
    "delivered",
    "iterating",
    "receiving",
    "sending",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _compiled_core() -> Any:
    """The compiled core; ``None`` if it is not there, or not wanted. The variable is for tests, and
    for users who suspect that core; it is no setting.
    """
    if os.environ.get("WSSUP_PURE_PYTHON"):
        return None
    try:
        return importlib.import_module("wssup.server._wire")
    except ImportError:
        return None


_core = _compiled_core()
#: Which core this process uses.
COMPILED: Final = _core is not None

if TYPE_CHECKING or _core is None:
    from wssup.server.wire_pure import Wire, WireConnection, broadcast
else:
    Wire, broadcast = _core.Wire, _core.broadcast

    class WireConnection(_core.WireConnection):
        """See ``wire_pure.WireConnection``."""

        __slots__ = ()

        _queue = wire_pure.WireConnection._queue  # noqa: SLF001 - the other half of this seam
        flush = wire_pure.WireConnection.flush
        drop_queue = wire_pure.WireConnection.drop_queue


#: Makes what a task is woken with out of a message, as outcome.Value does; ``None``: the compiled
#: core does not.
delivered: Final[Callable[[Any], Any] | None] = _core and _core.Delivered

_RECEIVING, _SENDING = 0, 1


def receiving(method: _Method) -> _Method:
    """Of a coroutine method: it gives a connection's next message, and the compiled core does so
    without it where nothing is unusual.
    """
    return _usual(_RECEIVING, method)


def iterating(end: type[BaseException]) -> Callable[[_Method], _Method]:
    """The same of ``__anext__``, for which the exception is the end."""
    return lambda method: _usual(_RECEIVING, method, end)


def sending(method: _Method) -> _Method:
    """Of a coroutine method that sends the one message it is given; as `receiving`."""
    return _usual(_SENDING, method)


def _usual(kind: int, method: _Method, end: type[BaseException] | None = None) -> _Method:
    if _core is None:
        return method
    usual: Any = _core.Usual(kind, method, end)
    functools.update_wrapper(usual, method)
    return cast("_Method", usual)
