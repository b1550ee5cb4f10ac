"""``wssup drain``: shed all connections over a given time, then end the instance."""

from __future__ import annotations

from typing import Any

import click

from wssup.cli.exits import OK
from wssup.cli.following import see_off
from wssup.cli.options import instance_options, load_instance, target_of
from wssup.config.values import BadValueError, parse_duration

__all__ = ["command"]

_HELP = """\
Shed the connections over a given time, then stop: before a host reboots.

The instance says at once that it is not ready any more, so that a load balancer
sends new clients elsewhere, and closes its connections spread over TIME.

\b
  wssup drain --over 5m

Exit status: 0 drained and stopped, 1 refused or still running after its deadline,
2 a mistake in the command, 3 nothing runs, 4 no answer, 130 interrupted (the
draining goes on).
"""


def _duration(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except BadValueError as error:
        raise click.BadParameter(f"{value!r}: {error.problem}; {error.remedy}") from None


@click.command("drain", help=_HELP, short_help="Shed connections over a time and stop.")
@click.option(
    "--over",
    metavar="TIME",
    callback=_duration,
    help="The time to spread the closing over. [default: the instance's drain_window]",
)
@instance_options
def command(*, over: float | None, **given: Any) -> int:
    """Tell the instance to drain, and wait for its end."""
    loaded = load_instance(given, given["config_file"])
    target = target_of(given, loaded)
    arguments = {} if over is None else {"over": over}
    see_off(
        target,
        "drain",
        patience=(over or 0) + loaded.settings.drain_timeout,
        interrupted="no longer waiting; the instance goes on draining",
        **arguments,
    )
    click.echo(f"drained and stopped {target.name}")
    return OK
