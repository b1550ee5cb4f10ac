"""The nginx in front of an instance: its configuration, with the numbers that belong together.

Pure: settings go in, text comes out.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Final

from wssup.config.addresses import TcpAddress, UnixAddress, parse_bind
from wssup.config.settings import Settings
from wssup.errors import UserError
from wssup.server.forwarded import TrustedProxies

__all__ = ["PORTS", "Front", "render"]

PORTS: Final = 28_232
"""Ports that one source address has for connections to one address (ip(7), ip_local_port_range)."""

#: The part of them that can be used: the search for a free one gets slow towards the end.
_USABLE: Final = 0.85
#: Descriptors of an nginx process for listeners, logs and its other processes.
_SPARE: Final = 64
#: Seconds between the last moment at which something is said and the end that follows silence.
_MARGIN: Final = 10
_LEAST_TIMEOUT: Final = 60
#: What is said if there is no heartbeat: an application may be silent for so long.
_SILENCE: Final = 3600

_PLACE: Final = re.compile(r"@([A-Z_]+)@")
_TEMPLATE: Final = """\
# nginx in front of wssup, for @CONNECTIONS@ connections. Printed by `wssup proxy-config nginx`.
# It is a whole nginx.conf: check it with nginx -t -c FILE.
#
@NOTES@
user @USER@;
worker_processes auto;
pid /run/nginx.pid;
# A descriptor for each side of each connection; one process may get them all.
worker_rlimit_nofile @NOFILE@;
# nginx's own reload leaves connections with its old processes, for at most so long.
worker_shutdown_timeout 1h;

events {
    # Both sides count: twice the connections.
    worker_connections @WORKER_CONNECTIONS@;
}

http {
    access_log off;
    tcp_nodelay on;

    # A WebSocket's handshake goes on as one; everything else can use a connection again.
    map $http_upgrade $wssup_connection {
        default upgrade;
        ''      '';
    }
@MAPS@
    upstream wssup {
        server @UPSTREAM@;
        keepalive 32;
        # Shorter than wssup's own, or a request might meet its end.
        keepalive_timeout @KEEP_ALIVE@;
    }

    server {
        listen @LISTEN@ backlog=4096 so_keepalive=on;
        # For TLS:
        # listen 443 ssl backlog=4096 so_keepalive=on;
        # ssl_certificate     /etc/ssl/example.pem;
        # ssl_certificate_key /etc/ssl/example.key;
        server_name @SERVER_NAME@;
        large_client_header_buffers 4 @HEADER_BYTES@;

        location / {
            proxy_pass http://wssup;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $wssup_connection;
@FORWARDING@
@SOURCE@            proxy_connect_timeout 5s;
            # @TIMEOUT_REASON@
            proxy_read_timeout @TIMEOUT@;
            proxy_send_timeout @TIMEOUT@;
            proxy_socket_keepalive on;
        }
    }
}
"""
_X_FORWARDED: Final = """\
            # Written anew: what clients say of themselves is not passed on.
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Forwarded "";"""
_FORWARDED: Final = """\
            # Written anew: what clients say of themselves is not passed on.
            proxy_set_header Forwarded "for=$wssup_client;proto=$scheme";
            proxy_set_header X-Forwarded-For "";
            proxy_set_header X-Forwarded-Proto "";"""
_FORWARDED_MAP: Final = r"""
    # RFC 7239 section 4.
    map $remote_addr $wssup_client {
        "~^[0-9.]+$"        $remote_addr;
        "~^[0-9A-Fa-f:.]+$" "\"[$remote_addr]\"";
        default             unknown;
    }
"""


@dataclass(frozen=True, slots=True)
class Front:
    """What the operator decides.

    :ivar connections: of clients, that nginx is to hold.
    :ivar sources: addresses that it connects from, if one has too few ports.
    """

    connections: int
    listen: str = "80"
    server_name: str = "_"
    user: str = "www-data"
    sources: tuple[str, ...] = ()


def render(settings: Settings, front: Front) -> str:
    """A whole nginx.conf.

    :raises UserError: the instance listens nowhere that nginx could go to, or one source address
        has too few ports for so many connections.
    """
    upstream = _upstream(settings)
    sources = _sources(upstream, front)
    forwarded = settings.proxy_headers == "forwarded"
    timeout, reason = _timeout(settings)
    worker_connections = 2 * front.connections + _SPARE
    maps = _FORWARDED_MAP if forwarded else ""
    if sources:
        maps += _source_map(sources)
    values = {
        "CONNECTIONS": f"{front.connections}",
        "NOTES": _notes(settings, upstream, sources),
        "USER": front.user,
        "NOFILE": f"{worker_connections + _SPARE}",
        "WORKER_CONNECTIONS": f"{worker_connections}",
        "MAPS": maps,
        "UPSTREAM": str(upstream),
        "KEEP_ALIVE": f"{max(1, math.floor(settings.limits.keep_alive_timeout) - 1)}s",
        "LISTEN": front.listen,
        "SERVER_NAME": front.server_name,
        "HEADER_BYTES": f"{settings.limits.header_bytes}",
        "FORWARDING": _FORWARDED if forwarded else _X_FORWARDED,
        "SOURCE": "            proxy_bind $wssup_source;\n" if sources else "",
        "TIMEOUT": f"{timeout}s",
        "TIMEOUT_REASON": reason,
    }
    return _PLACE.sub(lambda match: values[match[1]], _TEMPLATE)


def _upstream(settings: Settings) -> TcpAddress | UnixAddress:
    """Where nginx goes: a unix socket if there is one, which has no ports to run out of."""
    addresses = [parse_bind(bind) for bind in settings.bind]
    for address in addresses:
        if isinstance(address, UnixAddress):
            return address
    for address in addresses:
        if isinstance(address, TcpAddress) and address.port:
            return TcpAddress(
                {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host),  # noqa: S104
                address.port,
            )
    raise UserError(
        f"nginx cannot be sent to {', '.join(settings.bind)}",
        "bind a unix socket, or a port that stays the same",
    )


def _sources(upstream: TcpAddress | UnixAddress, front: Front) -> tuple[str, ...]:
    if isinstance(upstream, UnixAddress):
        return ()
    needed = math.ceil(front.connections / (PORTS * _USABLE))
    if len(front.sources) >= needed or needed == 1:
        return front.sources
    if not front.sources and _is_loopback(upstream.host) and ":" not in upstream.host:
        return tuple(f"127.0.0.{number + 2}" for number in range(needed))
    raise UserError(
        f"{front.connections} connections to {upstream} need {needed} source addresses: one has "
        f"{PORTS} ports",
        "bind a unix socket, which needs none, or name addresses of this machine with --source",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _source_map(sources: tuple[str, ...]) -> str:
    share = math.floor(10_000 / len(sources)) / 100
    lines = [f"        {share:g}% {source};" for source in sources[:-1]]
    lines.append(f"        *   {sources[-1]};")
    return (
        "\n    # Each source address has ports for some of the connections.\n"
        '    split_clients "$connection" $wssup_source {\n' + "\n".join(lines) + "\n    }\n"
    )


def _timeout(settings: Settings) -> tuple[int, str]:
    """Seconds of silence after which nginx ends a connection, and why so many."""
    beat = settings.heartbeat
    if not beat.ping_interval:
        return _SILENCE, "There is no heartbeat: who is silent for so long is cut off."
    least = math.ceil(beat.ping_interval + beat.ping_timeout) + _MARGIN
    return max(_LEAST_TIMEOUT, least), (
        f"Longer than the heartbeat, which speaks every {beat.ping_interval:g} s and ends who is "
        f"dead after {beat.ping_timeout:g} s more."
    )


def _notes(settings: Settings, upstream: TcpAddress | UnixAddress, sources: tuple[str, ...]) -> str:
    """What else must be true."""
    notes = []
    names = ("unix",) if isinstance(upstream, UnixAddress) else sources or _own(upstream)
    trusted = TrustedProxies(settings.trusted_proxies)
    missing = [name for name in names if not trusted.trusts(_peer(name))]
    believed = f"{settings.proxy_headers} headers of {', '.join(names)}"
    if missing:
        named = ", ".join(f'"{name}"' for name in missing)
        notes.append(f"# wssup must believe the {believed}:\n#   trusted_proxies = [{named}]")
    else:
        notes.append(f"# wssup believes the {believed} (trusted_proxies).")
    if isinstance(upstream, UnixAddress):
        notes.append(
            f"# The socket has mode {settings.unix_mode}: the user below must be in its group."
        )
    return "\n".join(notes)


def _own(upstream: TcpAddress) -> tuple[str, ...]:
    """From where nginx comes: of another machine only the operator knows it."""
    if upstream.host == "::1":
        return ("::1",)
    return ("127.0.0.1",) if _is_loopback(upstream.host) else ("NGINX",)


def _peer(name: str) -> bytes:
    if name == "unix":
        return b""
    try:
        return ipaddress.ip_address(name).packed + b"\0\0"
    except ValueError:
        return b"\0"
