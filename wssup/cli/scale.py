"""``wssup scale N``: run another number of workers."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from wssup.cli.documents import read
from wssup.cli.exits import OK
from wssup.cli.following import follow
from wssup.cli.options import instance_options, target_of

__all__ = ["command"]

_HELP = """\
Run N workers from now on.

More workers are started at once. Fewer: the workers of the last slots hand their
connections over to the others, which accept from their listeners too, and end;
connections that cannot move are closed with 1012. The next start, and a reload with
another number of workers in the configuration, goes by the configuration again.
Where the number follows the load, the command is refused: change the bounds.

\b
  wssup scale 8

Exit status: 0 done, 1 refused, 2 a mistake in the command, 3 nothing runs, 4 no
answer, 130 interrupted (the scaling goes on).
"""


class _Result(msgspec.Struct, frozen=True):
    workers: int
    was: int


@click.command("scale", help=_HELP, short_help="Run another number of workers.")
@click.argument("workers", metavar="N", type=click.IntRange(1, 1000))
@instance_options
def command(*, workers: int, **given: Any) -> int:
    """Ask for `workers` workers and follow."""
    answer = follow(
        target_of(given),
        "scale",
        workers=workers,
        interrupted="no longer waiting; the scaling goes on, wssup status --watch follows it",
    )
    result = read(answer, _Result)
    click.echo(f"scaled from {result.was} to {result.workers} workers")
    return OK
