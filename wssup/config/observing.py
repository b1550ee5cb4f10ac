"""The settings of the observer, which shows the instance over HTTP. Part of the table of settings,
and written like it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

import msgspec

from wssup.config.addresses import TcpAddress, parse_bind
from wssup.config.kinds import Flag, Given, Kind, Permissions, text_of
from wssup.config.spec import Spec
from wssup.config.values import BadValueError

__all__ = ["Observing"]


class _OneBind(Kind, frozen=True):
    """A TCP address to listen on, or none."""

    def _metavar(self) -> str:
        return "HOST:PORT"

    def _description(self) -> str:
        return "`HOST:PORT` or `[IPV6]:PORT`; empty for none"

    def _read(self, value: object, _given: Given, /) -> str:
        text = text_of(value, 'write "127.0.0.1:9000"')
        if not text:
            return ""
        where = parse_bind(text)
        if not isinstance(where, TcpAddress):
            raise BadValueError(
                "a unix socket", "the status socket is there anyway; write 127.0.0.1:9000"
            )
        return str(where)


class _MaybeFile(Kind, frozen=True):
    """A file, or none: made absolute, and never resolved."""

    def _metavar(self) -> str:
        return "FILE"

    def _description(self) -> str:
        return "file; empty for none"

    def _read(self, value: object, given: Given, /) -> str:
        text = text_of(value, "write a path: /etc/wssup/token")
        if "\0" in text:
            raise BadValueError("not a path", "write a path: /etc/wssup/token")
        return str(PurePosixPath(given.base, text)) if text else ""


class Observing(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of an instance, and to whom."""

    status: Annotated[
        bool,
        Spec(
            Flag(),
            "Status",
            "Whether an observer runs: a process that shows status, metrics and a dashboard over "
            "HTTP, on the socket `status.sock` in the instance's directory.",
            live=False,
        ),
    ] = True
    status_bind: Annotated[
        str,
        Spec(
            _OneBind(),
            "Status",
            "A TCP address on which the observer answers too. Whoever reaches it can read "
            "everything that is shown; there is a warning in the log if it is no loopback address.",
            live=False,
        ),
    ] = ""
    status_mode: Annotated[
        str,
        Spec(
            Permissions(),
            "Status",
            "The permissions of the status socket: who may read what is shown, and publish who has "
            "the token.",
            live=False,
        ),
    ] = "0666"
    publish_token_file: Annotated[
        str,
        Spec(
            _MaybeFile(),
            "Status",
            "A file that holds a token, not readable by everybody. With it the observer takes "
            "messages to publish, `POST /publish/TOPIC`, from those who send the token.",
            live=False,
        ),
    ] = ""
