"""``wssup proxy-config``: the configuration of a proxy in front of an instance."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import click

from wssup.cli.exits import OK
from wssup.cli.nginx import Front, render
from wssup.cli.options import config_option, load_instance, setting_options
from wssup.errors import UserError

__all__ = ["command"]

#: What stands in nginx's configuration as it is given.
_WORD = re.compile(r"[A-Za-z0-9_.:*\[\]/~^$-]+")
_MOST = 10_000_000
#: Clients where nothing says how many.
_USUAL = 10_000

_HELP = """\
Print the configuration of a proxy, with the numbers that fit the settings.

What goes together: descriptors and connections of the proxy with the number of
clients; its read timeout with the heartbeat; its forwarding headers with
trusted_proxies; its source addresses with the ports that these have.

\b
  wssup proxy-config nginx --bind unix:/run/wssup/shop.sock > nginx.conf
  wssup proxy-config nginx --config /etc/wssup/shop.toml --connections 50000

Exit status: 0 printed, 2 a mistake in the command or the configuration.
"""


@click.command("proxy-config", help=_HELP, short_help="Print the configuration of a proxy.")
@click.argument("proxy", type=click.Choice(["nginx"]))
@click.option(
    "--connections",
    # Not under the name of the setting, which has another meaning for workers.
    "clients",
    metavar="N",
    type=click.IntRange(1, _MOST),
    help="How many clients are connected at a time. [default: the setting connections, or 10000]",
)
@click.option("--listen", default="80", show_default=True, help="Where the proxy listens.")
@click.option("--server-name", default="_", show_default=True, help="The name it is known by.")
@click.option("--user", default="www-data", show_default=True, help="The user that it runs as.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="An address it connects from; repeated, for more connections than one has ports.",
)
@setting_options(["bind", "trusted_proxies", "proxy_headers", "unix_mode"])
@setting_options(["heartbeat.ping_interval", "heartbeat.ping_timeout"])
@config_option
def command(
    *,
    proxy: str,  # noqa: ARG001 - one
    sources: tuple[str, ...],
    clients: int | None,
    **given: Any,
) -> int:
    """Print it."""
    settings = load_instance(given, given["config_file"]).settings
    words = {name: str(given[name]) for name in ("listen", "server_name", "user")}
    for name, word in words.items():
        if not _WORD.fullmatch(word):
            raise UserError(f"--{name.replace('_', '-')} {word!r} is not one word", "write one")
    for source in sources:
        try:
            ipaddress.ip_address(source)
        except ValueError:
            raise UserError(f"--source {source!r} is not an address", "write 10.0.0.7") from None
    front = Front(clients or settings.connections or _USUAL, sources=sources, **words)
    click.echo(render(settings, front), nl=False)
    return OK
