"""Request heads as ASGI scopes (asgi.readthedocs.io, "HTTP & WebSocket ASGI Message Format").

Pure: addresses and bytes go in, dictionaries come out.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from wssup.server.handshake import Head

__all__ = ["Place", "http", "websocket"]

#: The versions of the specification, of HTTP and of WebSockets, that uvicorn tells applications.
#: Until 2.4 an HTTP response is listened for its client's end with receive(), as Starlette does.
_ASGI_HTTP: Final = {"version": "3.0", "spec_version": "2.3"}
_ASGI_WEBSOCKET: Final = {"version": "3.0", "spec_version": "2.4"}

#: All scopes share what nobody has a reason to change: there is one for each connection.
_NOTHING: Final[dict[str, Any]] = {}

#: Host and port; of a unix socket its path and ``None``.
Place = tuple[str, int | None]


def http(
    head: Head,
    *,
    client: Place | None,
    server: Place | None,
    scheme: str,
    root_path: str,
    state: dict[str, Any],
) -> dict[str, Any]:
    """The scope of an HTTP request.

    :param client: where it comes from; ``None`` on a unix socket.
    :param scheme: ``http``, or ``https`` if a proxy says so.
    :param root_path: what a proxy has cut off the path.
    :param state: of the lifespan; the scope has a copy.
    """
    scope = _common(head, client, server, scheme, root_path)
    scope["type"] = "http"
    scope["asgi"] = _ASGI_HTTP
    scope["http_version"] = head.version
    scope["method"] = head.method
    scope["extensions"] = {}
    scope["state"] = state.copy()
    return scope


def websocket(
    head: Head,
    *,
    client: Place | None,
    server: Place | None,
    scheme: str,
    root_path: str,
    state: dict[str, Any],
    own: dict[str, Any],
) -> dict[str, Any]:
    """The scope of a WebSocket; see `http`.

    :param scheme: ``ws``, or ``wss``.
    :param own: the extension ``wssup``.
    """
    scope = _common(head, client, server, scheme, root_path)
    scope["type"] = "websocket"
    scope["asgi"] = _ASGI_WEBSOCKET
    scope["http_version"] = head.version
    scope["subprotocols"] = head.tokens(b"sec-websocket-protocol")
    scope["extensions"] = {"websocket.http.response": _NOTHING, "wssup": own}
    scope["state"] = state.copy()
    return scope


def _common(
    head: Head, client: Place | None, server: Place | None, scheme: str, root_path: str
) -> dict[str, Any]:
    raw_path, query = _split(head.target)
    path = (
        unquote_to_bytes(raw_path).decode("utf-8", "replace")
        if b"%" in raw_path
        else _text(raw_path)
    )
    return {
        "scheme": scheme,
        # The whole path of the URL, of which root_path is the beginning.
        "path": root_path + path,
        "raw_path": root_path.encode() + raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": head.headers,
        "client": client,
        "server": server,
    }


def _text(raw_path: bytes) -> str:
    return raw_path.decode("utf-8", "replace")


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target (RFC 9112 section 3.2)."""
    if not target.startswith(b"/"):
        # In absolute form, for proxies; what is in none is "*", of OPTIONS.
        _, slashes, rest = target.partition(b"://")
        if slashes:
            authority, mark, query = rest.partition(b"?")
            path = authority.partition(b"/")[2]
            target = b"/" + path + mark + query
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query
