"""``wssup connections``: which connections there are, the oldest or the busiest first."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from wssup.cli.documents import read
from wssup.cli.exits import FAILED, OK
from wssup.cli.options import instance_options, target_of
from wssup.cli.render import console
from wssup.cli.tables import Column, table
from wssup.cli.text import ago, count, one_line, size
from wssup.questions import MOST_CONNECTIONS, ORDERS

__all__ = ["command"]

_HELP = f"""\
Show single connections: the oldest ones, or others.

\b
  wssup connections
  wssup connections --idle 50
  wssup connections --queue 10 --slot 3
  wssup connections --json | jq '.connections[].id' | xargs wssup close

Workers are asked for it, so one that stalls is left out and named. Each answers
between two turns of its loop; {MOST_CONNECTIONS} connections at most are shown. Paths are
shown without their query.

idle is the time since the client was last heard, pongs included; queue is what it
has not taken yet, inbox the messages that the application has not taken yet.

Exit status: 0 all workers answered, 1 not all of them did, or refused; 2 a mistake
in the command, 3 nothing runs, 4 no answer.
"""
_DEFAULT: Final = 20
_SHORTEST_PATH: Final = 12
"""Cells that a long path has at least."""
_MEANINGS: Final = {
    "oldest": "Those that are open longest (the default: 20).",
    "newest": "Those that came last.",
    "idle": "Those whose clients were not heard for the longest time.",
    "queue": "Those with the most bytes that their clients have not taken.",
}


class _Connection(msgspec.Struct, frozen=True):
    id: int
    slot: int
    address: str
    path: str
    state: str
    age: float
    idle: float
    queue_bytes: int
    inbox: int = 0
    topics: int = 0
    pid: int | None = None
    generation: int = 0


class _Worker(msgspec.Struct, frozen=True):
    slot: int
    pid: int | None = None


class _Result(msgspec.Struct, frozen=True):
    connections: tuple[_Connection, ...]
    unanswered: tuple[_Worker, ...] = ()


def _orders(function: Any) -> Any:
    for order in reversed(ORDERS):
        function = click.option(
            f"--{order}",
            type=click.IntRange(1, MOST_CONNECTIONS),
            metavar="N",
            help=_MEANINGS[order],
        )(function)
    return function


@click.command(
    "connections", help=_HELP, short_help="Show single connections and how old they are."
)
@_orders
@click.option("--slot", type=click.IntRange(min=0), metavar="N", help="Those of one slot only.")
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@instance_options
def command(*, slot: int | None, as_json: bool, **given: Any) -> int:
    """Ask for the connections and show them."""
    wanted = {order: given[order] for order in ORDERS if given[order] is not None}
    if len(wanted) > 1:
        flags = " and ".join(f"--{order}" for order in wanted)
        raise click.UsageError(f"{flags} exclude each other")
    order, limit = next(iter(wanted.items()), ("oldest", _DEFAULT))
    arguments: dict[str, object] = {"order": order, "limit": limit}
    if slot is not None:
        arguments["slot"] = slot
    answer = target_of(given).ask("connections", **arguments)
    result = read(answer, _Result)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif result.connections:
        out = console()
        rows = [_row(c, max(_SHORTEST_PATH, out.width // 4)) for c in result.connections]
        out.print(table(_COLUMNS, rows, out.width))
    elif not result.unanswered:
        click.echo("no connections")
    for worker in result.unanswered:
        sys.stderr.write(
            f"wssup: the worker of slot {worker.slot} (pid {worker.pid}) did not answer; "
            "its connections are missing\n"
        )
    return FAILED if result.unanswered else OK


_COLUMNS: Final = (
    Column("id", number=True, rank=0),
    Column("slot", number=True, rank=5),
    Column("address", number=False, rank=1),
    Column("path", number=False, rank=2),
    Column("state", number=False, rank=7),
    Column("age", number=True, rank=3),
    Column("idle", number=True, rank=4),
    Column("queue", number=True, rank=6),
    Column("inbox", number=True, rank=8),
    Column("topics", number=True, rank=9),
)
_STYLES: Final = {
    "open": "green",
    "closing": "yellow",
    "moving": "cyan",
    "handshake": "yellow",
    "pending": "yellow",
}


def _row(connection: _Connection, path_width: int) -> list[Text]:
    path = one_line(connection.path) or "-"
    return [
        Text(str(connection.id)),
        Text(str(connection.slot)),
        Text(one_line(connection.address)),
        Text(path if len(path) <= path_width else path[: path_width - 1] + "…"),
        Text(one_line(connection.state), style=_STYLES.get(connection.state, "")),
        Text(ago(connection.age)),
        Text(ago(connection.idle)),
        Text(size(connection.queue_bytes)),
        Text(count(connection.inbox)),
        Text(count(connection.topics)),
    ]
