"""The seam: a socket's bytes become events, and frames become a socket's bytes.

Everything that is done once per message and needs no decision stands here: one read, decoding, one
write, what the kernel did not take. There are two cores, a compiled one (``_wire.c``) and one in
pure Python (``wire_pure``), which is used if the other could not be compiled. The pump above uses
nothing of a connection's inside but what is declared there, and one test suite holds for both.

Descriptors are plain numbers: a Python socket object per connection would cost memory, and
settimeout() on one changes the open file description, which others may share.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

from wssup.server import wire_pure
from wssup.server.wire_pure import END, End, Received

__all__ = ["COMPILED", "END", "End", "Received", "Wire", "WireConnection", "broadcast"]


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
