"""The settings about what stands in front of an instance, or stood in its place."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal

from wssup.config.kinds import MAX_NAMES, Choice, Directory, Given, Kind, text_of
from wssup.config.spec import Spec
from wssup.config.values import BadValueError

__all__ = ["UNIX", "GunicornConfig", "Networks", "ProxyHeaders", "TrustedProxies"]

UNIX: Final = "unix"
"""What stands for all who connect through a unix socket."""


class Networks(Kind, frozen=True):
    """A list of addresses and networks, in canonical form and without duplicates."""

    def _metavar(self) -> str:
        return "PROXY"

    def _description(self) -> str:
        return (
            f"0 to {MAX_NAMES} texts: an address (`10.0.0.7`), a network (`10.0.0.0/8`, "
            f'`fd00::/8`) or "{UNIX}"; in the environment separated by commas'
        )

    def _read(self, value: object, given: Given, /) -> tuple[str, ...]:
        remedy = f'write ["10.0.0.7", "10.0.0.0/8", "{UNIX}"]'
        if isinstance(value, str):
            value = value.split(",") if given.text else [value]
        if not isinstance(value, list | tuple):
            raise BadValueError("not an array of strings", remedy)
        if len(value) > MAX_NAMES:
            raise BadValueError(f"{len(value)} of them; there may be {MAX_NAMES}", remedy)
        # An option that is given several times may hold lists, as a variable does.
        items = [part for item in value for part in _parts(text_of(item, remedy), given)]
        return tuple(dict.fromkeys(_network(item, remedy) for item in items))


def _parts(item: str, given: Given) -> list[str]:
    parts = item.split(",") if given.text else [item]
    return [part.strip() for part in parts if part.strip() or not given.text]


def _network(text: str, remedy: str) -> str:
    if text.lower() == UNIX:
        return UNIX
    if text == "*":
        raise BadValueError(
            '"*" is not an address', "write 0.0.0.0/0 and ::/0 if really everybody may be believed"
        )
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise BadValueError(f"{text!r} is neither address nor network", remedy) from None
        raise BadValueError(f"{text!r} has bits beyond its prefix", f"write {meant}") from None
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


class _File(Directory, frozen=True):
    """A file: made absolute; empty: none."""

    def _metavar(self) -> str:
        return "FILE"

    def _description(self) -> str:
        return "file"

    def _read(self, value: object, given: Given, /) -> str:
        return "" if value == "" else super(_File, self)._read(value, given)


TrustedProxies = Annotated[
    tuple[str, ...],
    Spec(
        Networks(),
        "Addresses",
        "The proxies that are believed where a client comes from, and whether it uses TLS; others' "
        'forwarding headers are ignored. "unix": whoever connects through a unix socket.',
        flag="--trusted-proxy",
        default_text="none",
    ),
]
ProxyHeaders = Annotated[
    Literal["x-forwarded", "forwarded"],
    Spec(
        Choice(("x-forwarded", "forwarded")),
        "Addresses",
        "The headers that trusted proxies write: X-Forwarded-For and -Proto, or Forwarded "
        "(RFC 7239). The other kind may be a client's own and is ignored.",
    ),
]
GunicornConfig = Annotated[
    str,
    Spec(
        _File(),
        "Application",
        "A gunicorn.conf.py, whose settings are used as far as they mean something here; weaker "
        "than all that is said to wssup itself. It is Python code and is run.",
        default_text="none",
    ),
]
