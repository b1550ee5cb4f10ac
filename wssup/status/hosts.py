"""Which names and addresses are this machine's own. Pure functions."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback", "names_this_machine"]


def is_loopback(host: str) -> bool:
    """Whether an IP address is one that only this machine reaches."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def names_this_machine(header: str) -> bool:
    """Whether a ``Host`` header (RFC 9110 section 7.2) names a loopback address, or ``localhost``
    (RFC 6761 section 6.3).
    """
    if header.startswith("["):
        inside, bracket, port = header[1:].partition("]")
        return bool(bracket) and (not port or port.startswith(":")) and is_loopback(inside)
    host, _, _ = header.partition(":")
    host = host.lower().removesuffix(".")
    return host == "localhost" or host.endswith(".localhost") or is_loopback(host)
