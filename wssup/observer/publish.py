"""``POST /publish/TOPIC``: back ends in other languages publish, if they have the token."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from wssup.observer.guard import refusal
from wssup.observer.link import Link, NotPublishedError

__all__ = ["LONGEST", "Publishing", "Token"]

#: Bytes of a message at most; as of ``wssup publish``.
LONGEST: Final = 64 * 1024
#: Bytes that are read of one that is too long: a client that sends it all before it reads would not
#: hear why it was refused.
_PATIENT_UP_TO: Final = 1 << 20
#: Seconds that a client gets to send it.
_PATIENCE: Final = 10.0
_SHORTEST_TOKEN: Final = 16
_LONGEST_TOKEN: Final = 4096
#: The status of a message that was not published, by the code of the control protocol.
_STATUS: Final = {
    "bad_argument": 400,
    "forbidden": 403,
    "refused": 422,
    "busy": 503,
    "no_worker": 503,
    "timeout": 504,
}


class Token:
    """The secret in a file. It is looked at with each request, so that another one counts at once.

    :param path: of the file; empty if nobody may publish.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._path)

    def read(self) -> bytes | None:
        """The token; ``None`` if there is none that can be used."""
        try:
            path = Path(self._path)
            if path.stat().st_mode & 0o007:
                return None
            with path.open("rb") as file:
                token = file.read(_LONGEST_TOKEN).strip()
        except OSError:
            return None
        return token if len(token) >= _SHORTEST_TOKEN else None


class Publishing:
    """Takes what is published."""

    def __init__(self, token: Token, link: Link) -> None:
        self._token = token
        self._link = link

    async def answer(self, request: Request) -> Response:
        """The response to one who publishes."""
        if not self._token:
            return refusal(
                404, "off", "nothing can be published here: no publish_token_file is set"
            )
        refused = self._refused(request)
        if refused is not None:
            return refused
        try:
            async with asyncio.timeout(_PATIENCE):
                data = await _body(request)
        except TimeoutError:
            return refusal(408, "timeout", f"no message within {_PATIENCE:g} s", connection="close")
        except ClientDisconnect:
            return Response(status_code=400)
        if data is None:
            message = f"the message has more than {LONGEST} bytes"
            return refusal(413, "too_long", message, connection="close")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        text = kind != "application/octet-stream"
        if text and not _is_text(data):
            message = "the message is no UTF-8; send bytes as application/octet-stream"
            return refusal(400, "bad_argument", message)
        try:
            count = await self._link.publish(request.path_params["topic"], data, text=text)
        except NotPublishedError as error:
            return refusal(_STATUS.get(error.code, 500), error.code, str(error))
        return JSONResponse({"subscribers": count}, 202)

    def _refused(self, request: Request) -> Response | None:
        token = self._token.read()
        if token is None:
            message = "the file with the token is missing, too short, or open to everybody"
            return refusal(503, "no_token", message)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            message = "send the token: Authorization: Bearer TOKEN"
            return refusal(401, "unauthorized", message, www_authenticate='Bearer realm="wssup"')
        # In the same time whatever differs.
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), token):
            return refusal(403, "forbidden", "the token is another one")
        return None


async def _body(request: Request) -> bytes | None:
    """The message; ``None`` if it is too long."""
    data, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= LONGEST:
            data += chunk
        elif size > _PATIENT_UP_TO:
            return None
    return bytes(data) if size <= LONGEST else None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
