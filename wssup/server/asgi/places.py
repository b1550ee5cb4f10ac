"""Where a connection comes from and where it came to, as scopes say it."""

from __future__ import annotations

from wssup.server import sockets
from wssup.server.asgi.scopes import Place

__all__ = ["places"]


def places(fd: int, peer: bytes) -> tuple[Place | None, Place | None]:
    """The client, ``None`` on a unix socket, and the server: an address, or a path and ``None``.

    :param peer: the client's packed address, empty on a unix socket.
    """
    local = sockets.local_address(fd)
    server: Place = (local, None) if isinstance(local, str) else local
    return sockets.unpacked(peer) if peer else None, server
