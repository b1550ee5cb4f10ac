"""``wssup stop``: end an instance and wait until it is gone."""

from __future__ import annotations

from typing import Any

import click

from wssup.cli.exits import OK
from wssup.cli.following import see_off
from wssup.cli.options import instance_options, load_instance, target_of

__all__ = ["command"]

_HELP = """\
Stop an instance, and wait until it is gone.

Its workers close their connections over the drain window and end; --fast closes
all of them at once. When the command returns, another instance can start.

\b
  wssup stop
  wssup stop --fast

Exit status: 0 stopped, 1 refused or still running after its deadline, 2 a mistake
in the command, 3 nothing runs, 4 no answer, 130 interrupted (it stops all the same).
"""


@click.command("stop", help=_HELP, short_help="Stop the instance.")
@click.option("--fast", is_flag=True, help="Close all connections at once.")
@instance_options
def command(*, fast: bool, **given: Any) -> int:
    """Tell the instance to stop, and wait for its end."""
    loaded = load_instance(given, given["config_file"])
    target = target_of(given, loaded)
    see_off(
        target,
        "stop",
        fast=fast,
        patience=loaded.settings.drain_timeout,
        interrupted="no longer waiting; the instance goes on stopping",
    )
    click.echo(f"stopped {target.name}")
    return OK
