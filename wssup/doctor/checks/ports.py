"""Who listens, who connects, and who hangs up. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

import msgspec

from wssup.doctor.checks.common import UNKNOWN_NEED, limit, unknown
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Change, Finding, Verdict
from wssup.doctor.plan import Plan
from wssup.doctor.words import at_least, number

__all__ = ["heartbeat", "listeners", "proxy_ports"]

#: The search for a free port gets slow towards the end.
_USABLE: Final = 0.85
#: A wider range, above the ports that services usually listen on; and how many these are.
_WIDE: Final = "16384 65535"
_WIDE_COUNT: Final = 49_152


def proxy_ports(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """A proxy needs a port of its own for each connection to an address (ip(7)); a unix socket
    needs none.
    """
    sources = _sources(plan)
    if plan.unix or not sources:
        return
    name = "ports of the proxy"
    ports = facts.network.ports
    if ports is None:
        yield unknown(name, "/proc/sys/net/ipv4/ip_local_port_range cannot be read")
        return
    single = all(_is_single(source) for source in sources)
    local = all(_is_loopback(source) for source in sources)
    count = ports * len(sources)
    wider = ports < _WIDE_COUNT and (plan.connections or 0) <= _WIDE_COUNT * len(sources)
    where = "here" if local else "if it is set up as this machine"
    finding = limit(
        name,
        plan,
        found=f"{number(ports)} for each of its addresses, {where}",
        needed=at_least(plan.connections or 0),
        connections=count,
        remedy="bind a unix socket, or give the proxy more source addresses (wssup proxy-config "
        "nginx --source)"
        + (f', or net.ipv4.ip_local_port_range = "{_WIDE}" where it runs' if wider else ""),
        changes=(Change("sysctl", "net.ipv4.ip_local_port_range", _WIDE),)
        if wider and local
        else (),
    )
    tight = plan.connections is not None and plan.connections > count * _USABLE
    if finding.verdict is Verdict.OK and tight:
        finding = msgspec.structs.replace(
            finding,
            verdict=Verdict.WARN,
            remedy="the last ports are hard to find: bind a unix socket, or give the proxy "
            "more source addresses",
        )
    if not (single and local):
        # Another machine's ports, or addresses that nobody counted: it may be different there.
        finding = msgspec.structs.replace(
            finding,
            verdict=min(finding.verdict, Verdict.WARN, key=list(Verdict).index),
            predicted=None,
        )
    yield finding


def _sources(plan: Plan) -> list[str]:
    """The addresses from which proxies come: 127.0.0.1 and ::1 are the same proxy, which connects
    to one address.
    """
    by_family: dict[int, list[str]] = {4: [], 6: []}
    for name in plan.proxies:
        if name != "unix":
            by_family[ipaddress.ip_network(name).version].append(name)
    if not plan.families:
        return max(by_family.values(), key=len)
    return [source for family in plan.families for source in by_family[family]]


def _is_single(text: str) -> bool:
    return ipaddress.ip_network(text).num_addresses == 1


def _is_loopback(text: str) -> bool:
    return ipaddress.ip_network(text).is_loopback


def listeners(facts: Facts, _plan: Plan) -> Iterator[Finding]:
    """Somebody else who listens where the instance does."""
    for holder in facts.holders:
        if holder.unit and facts.running is None:
            yield Finding(
                check="other listener",
                found=f"{holder.address}: a socket unit listens for it ({holder.who})",
                needed="nobody else",
                verdict=Verdict.OK,
            )
            continue
        if facts.running is not None:
            found = f"{holder.address}: {holder.who} listens there too, and gets connections"
        else:
            found = f"{holder.address}: {holder.who} listens there"
        yield Finding(
            check="other listener",
            found=found,
            needed="nobody",
            verdict=Verdict.FAIL,
            remedy="stop it, or bind another address",
            predicted=None if facts.running is not None else 0,
        )


def heartbeat(_facts: Facts, plan: Plan) -> Iterator[Finding]:
    """Who is silent must be found dead here before a proxy hangs up on the living."""
    if not plan.proxies:
        return
    total = plan.ping_interval + plan.ping_timeout
    fits = bool(plan.ping_interval) and total < plan.proxy_timeout
    found = f"{plan.ping_interval:g} s + {plan.ping_timeout:g} s" if plan.ping_interval else "off"
    yield Finding(
        check="heartbeat",
        found=found,
        needed=f"< {plan.proxy_timeout:g} s, the proxy's idle timeout"
        if plan.proxy_timeout
        else UNKNOWN_NEED,
        verdict=Verdict.OK if fits else Verdict.WARN,
        remedy=""
        if fits
        else f"ping_interval and ping_timeout of {plan.proxy_timeout / 3:g} s, or a longer timeout "
        "in the proxy (proxy_read_timeout in nginx)",
    )
