"""The kind of setting that names a message bus: ``embedded``, or the URL of a Redis server.

Such a URL may hold a password. It goes to the one process that connects; whatever is shown, logged
or given to the application's processes has `HIDDEN` in its place.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from wssup.config.kinds import Given, Kind, text_of
from wssup.config.values import BadValueError

__all__ = ["EMBEDDED", "HIDDEN", "Bus", "BusUrl", "parse_bus", "without_secrets"]

EMBEDDED: Final = "embedded"
"""The bus that needs no server: it joins the workers of one instance only."""

HIDDEN: Final = "***"
"""What stands where a password is not shown."""

_LONGEST: Final = 4096
_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+(?:\+[a-z]+)?)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[0-9]{0,5}))?"
    r"(?:\?(?P<options>[^#\s]*))?"
)
# Whether TLS is spoken to a server of this scheme. Valkey is what Redis was, and says the same.
_SCHEMES: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
# What has no place for a password; all else is not shown when it is not understood.
_HARMLESS: Final = re.compile(
    r"[A-Za-z0-9_+-]{0,40}(?:://[A-Za-z0-9.-]*(?::[0-9]{0,8})?(?:/\w*)?)?"
)
_USER_INFO: Final = re.compile(r"://\S*@")
_QUERY: Final = re.compile(r"(://\S*?\?)\S+")
_REMEDY: Final = 'write "embedded" or the URL of a server: "redis://user:password@host:6379/0"'


class BusUrl(NamedTuple):
    """The parts of a server's URL.

    :ivar cluster: whether the server is one of a cluster, the others of which it knows.
    :ivar options: of ``ssl_ca_certs``, ``ssl_certfile`` and ``ssl_keyfile`` those that are given:
        paths of PEM files.
    """

    tls: bool
    host: str
    port: int
    user: str
    password: str
    database: int
    options: dict[str, str]
    cluster: bool = False


class Bus(Kind, frozen=True):
    """``embedded``, or the URL of a Redis or Valkey server."""

    def _metavar(self) -> str:
        return f"{EMBEDDED}|URL"

    def _description(self) -> str:
        return (
            f'"{EMBEDDED}", or `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]` with the '
            "schemes redis and valkey, and rediss and valkeys with TLS; for a cluster with "
            "`+cluster` behind them. With TLS, `?ssl_ca_certs=`, `&ssl_certfile=` and "
            "`&ssl_keyfile=` with paths of PEM files may follow. Special characters of user and "
            "password are percent-encoded"
        )

    def _read(self, value: object, _given: Given, /) -> str:
        value = text_of(value, _REMEDY)
        if value != EMBEDDED:
            parse_bus(value)
        return value

    def _public(self, value: object, /) -> object:
        """The value with `HIDDEN` for a password; of what is no value, only what can hold none."""
        if not isinstance(value, str):
            return HIDDEN if isinstance(value, list | tuple | dict) else value
        match = _URL.fullmatch(value)
        if match is None or not _known(match["options"]):
            return value if _HARMLESS.fullmatch(value) else HIDDEN
        if match["user"] is None:
            return value
        # What stands alone before the @ is a user, but many a password was put there.
        user = f"{match['user']}:" if match["password"] else ""
        return f"{match['scheme']}://{user}{HIDDEN}@{value[match.start('host') :]}"


def parse_bus(url: str) -> BusUrl:
    """The parts of a server's URL.

    :raises BadValueError: if it is none that can be used; says nothing of its password.
    """
    match = _URL.fullmatch(url) if len(url) <= _LONGEST else None
    if match is None:
        raise BadValueError("not the URL of a server", _REMEDY)
    scheme, plus, kind = match["scheme"].partition("+")
    if scheme not in _SCHEMES or (plus and kind != "cluster"):
        schemes = ", ".join(_SCHEMES)
        raise BadValueError(f"a URL of another scheme than {schemes}, each +cluster", _REMEDY)
    port = int(match["port"] or 6379)
    if not 1 <= port <= 65535:
        raise BadValueError("its port is not in the range 1 to 65535", _REMEDY)
    database = int(match["database"] or 0)
    if plus and database:
        raise BadValueError("a cluster has no databases", "leave the database out")
    tls = _SCHEMES[scheme]
    if not _known(match["options"]) or (match["options"] and not tls):
        names = ", ".join(sorted(_OPTIONS))
        raise BadValueError(
            f"it has options besides {names}, which rediss and valkeys take", _REMEDY
        )
    user, password = (unquote(match[name] or "") for name in ("user", "password"))
    if HIDDEN in (user, password):
        raise BadValueError(
            "its password is hidden", "write the password where it says ***; nothing shows it"
        )
    return BusUrl(
        tls,
        match["host"].strip("[]"),
        port,
        user,
        password,
        database,
        dict(parse_qsl(match["options"] or "")),
        bool(plus),
    )


def _known(options: str | None) -> bool:
    return all(
        part.partition("=")[0] in _OPTIONS and part.partition("=")[2]
        for part in (options or "").split("&")
        if options
    )


def without_secrets(value: object) -> object:
    """A value in the wrong place as it may be shown: a URL without its user and password."""
    if isinstance(value, str):
        return _QUERY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"://{HIDDEN}@", value))
    if isinstance(value, tuple):
        return tuple(without_secrets(item) for item in value)
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return value
