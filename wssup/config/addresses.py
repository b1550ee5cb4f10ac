"""Addresses to listen on, as text: ``127.0.0.1:8000``, ``[::1]:8000``, ``unix:/run/app.sock``.

Pure functions: nothing is resolved and nothing is bound here.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import PurePosixPath
from typing import Final

import msgspec

from wssup.config.values import BadValueError

__all__ = ["MAX_UNIX_PATH", "Address", "TcpAddress", "UnixAddress", "parse_bind"]

MAX_UNIX_PATH: Final = 107
"""Bytes in the path of a unix socket: sun_path holds 108 with the closing NUL (unix(7))."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_SCHEME: Final = re.compile(r"(?:wss?|https?|tcp)://", re.IGNORECASE)
# An interface name has at most 15 characters (IFNAMSIZ without the NUL, netdevice(7)).
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class TcpAddress(msgspec.Struct, frozen=True):
    """A TCP address: an IPv4 or IPv6 address (without brackets) or a hostname, and a port.

    Port 0 lets the kernel choose (ip(7)).
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True):
    """The absolute path of a unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_bind(text: str) -> Address:
    """The address that `text` names; its ``str()`` is the canonical form of `text`.

    :raises BadValueError: with what is wrong and a right example.
    """
    if scheme := _SCHEME.match(text):
        rest = text[scheme.end() :].rstrip("/") or "127.0.0.1:8000"
        raise BadValueError("an address has no scheme", f"leave it out: {rest}")
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text.removeprefix("unix:")))
    if text.startswith("/"):
        raise BadValueError("a path without unix:", f"write unix:{text}")
    if text.startswith("["):
        return _tcp6(text)
    return _tcp(text)


def _tcp6(text: str) -> TcpAddress:
    inside, bracket, after = text[1:].partition("]")
    if not bracket:
        raise BadValueError("the bracket is not closed", "write [::1]:8000")
    host = _ipv6(inside)
    if not after.startswith(":"):
        raise BadValueError("no port", f"add one: [{host}]:8000")
    return TcpAddress(host, _port(after[1:], f"[{host}]"))


def _tcp(text: str) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    if not colon:
        if text.isascii() and text.isdigit():
            raise BadValueError(
                "no host", f"name the host: 0.0.0.0:{text}, [::]:{text} or 127.0.0.1:{text}"
            )
        example = "127.0.0.1" if text in ("", "*") else text
        raise BadValueError("no port", f"add one: {example}:8000")
    if ":" in host:
        raise BadValueError("an IPv6 address needs brackets", f"write {_bracketed(text)}")
    if host in ("", "*"):
        number = port if port.isascii() and port.isdigit() else "8000"
        raise BadValueError("no host", f"name the host: 0.0.0.0:{number} or [::]:{number}")
    host = _host(host)
    return TcpAddress(host, _port(port, host))


def _bracketed(text: str) -> str:
    """A right way to write an IPv6 address that came without brackets."""
    # "::1:8765" is an address by itself too; that its end is meant as a port is likelier.
    host, _, port = text.rpartition(":")
    readings = [(host, port)] if re.fullmatch("[0-9]{2,5}", port) else []
    for candidate, number in [*readings, (text, "8000")]:
        try:
            return f"[{ipaddress.IPv6Address(candidate)}]:{number}"
        except ValueError:
            continue
    return "[::1]:8000"


def _port(text: str, host: str) -> int:
    if re.fullmatch("[0-9]{1,5}", text) is None or int(text) > 65535:
        problem = "the port is not a number from 0 to 65535" if text else "no port"
        raise BadValueError(problem, f"write {host}:8000")
    return int(text)


def _ipv6(text: str) -> str:
    _, percent, zone = text.partition("%")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise BadValueError(
            "what stands in the brackets is no IPv6 address", "write [::1]:8000 or [::]:8000"
        ) from None
    if percent and _ZONE.fullmatch(zone) is None:
        raise BadValueError(
            "what follows the % is no name of an interface", "write [fe80::1%eth0]:8000"
        )
    return address.compressed


def _host(text: str) -> str:
    labels = text.split(".")
    # As in the URL standard: a last label of digits makes it an IPv4 address, never a name.
    if re.fullmatch("[0-9]+", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise BadValueError(
                "not an IPv4 address", "write four numbers from 0 to 255: 127.0.0.1:8000"
            ) from None
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValueError(
            "not a hostname", "write an address or a name: 127.0.0.1:8000, localhost:8000"
        )
    return text.lower()


def _unix_path(text: str) -> str:
    if not text.startswith("/"):
        raise BadValueError(
            "the path of a unix socket must be absolute", f"write unix:/run/{text or 'app.sock'}"
        )
    if not text.isprintable():
        raise BadValueError("the path holds what cannot be printed", "write unix:/run/app.sock")
    if text.endswith(("/", "/.", "/..")):
        raise BadValueError("the path names a directory", "name a file: unix:/run/app.sock")
    # PurePosixPath keeps two leading slashes, as POSIX allows; Linux knows no such difference.
    path = str(PurePosixPath("/" + text.lstrip("/")))
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise BadValueError(
            f"the path is longer than {MAX_UNIX_PATH} bytes, which is all a unix socket can have",
            "choose a shorter one: unix:/run/app.sock",
        )
    return path
