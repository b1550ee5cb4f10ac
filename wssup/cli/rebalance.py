"""``wssup rebalance``: move connections until the slots have equally many."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from wssup.cli.documents import read
from wssup.cli.exits import OK
from wssup.cli.following import follow
from wssup.cli.options import instance_options, target_of
from wssup.cli.text import count

__all__ = ["command"]

_HELP = """\
Move connections between the workers until all have equally many.

Their clients notice nothing but a pause of milliseconds. Connections of an
application that is not resumable cannot move. With the setting `rebalance` this is
done by itself when there is a new worker.

\b
  wssup rebalance

Exit status: 0 done, 1 refused, 2 a mistake in the command, 3 nothing runs, 4 no
answer, 130 interrupted (the moving goes on).
"""


class _Result(msgspec.Struct, frozen=True):
    moved: int
    planned: int
    seconds: float = 0.0


@click.command("rebalance", help=_HELP, short_help="Move connections until workers are even.")
@instance_options
def command(**given: Any) -> int:
    """Ask for it and follow."""
    answer = follow(
        target_of(given),
        "rebalance",
        interrupted="no longer waiting; the moving goes on, wssup status --watch follows it",
    )
    result = read(answer, _Result)
    if not result.planned:
        click.echo("nothing to move: the workers are even")
        return OK
    left = result.planned - result.moved
    stayed = f", {count(left)} stayed" if left > 0 else ""
    click.echo(f"rebalanced: {count(result.moved)} moved{stayed}, {result.seconds:.1f} s")
    return OK
