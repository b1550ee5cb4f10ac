"""``wssup close ID``: close single connections."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click
import msgspec

from wssup.cli.documents import read
from wssup.cli.exits import FAILED, OK
from wssup.cli.options import instance_options, target_of
from wssup.questions import MOST_CONNECTIONS

__all__ = ["command"]

_HELP = f"""\
Close connections by their ids, in whichever worker they are.

`wssup connections` shows ids; the application has them as ws.id. The client is told
CODE and TEXT in a close frame, as if the application had closed it. A client whose
handshake is not over gets an HTTP 503. {MOST_CONNECTIONS} ids at most.

\b
  wssup close 4294967297
  wssup close --code 1012 --reason "come back" 4294967297 4294967302

Exit status: 0 all of them are being closed, 1 some were not found, or refused; 2 a
mistake in the command, 3 nothing runs, 4 no answer.
"""
_LARGEST: Final = (1 << 53) - 1
_LONGEST_REASON: Final = 123


class _Closing(msgspec.Struct, frozen=True):
    id: int
    slot: int


class _Worker(msgspec.Struct, frozen=True):
    slot: int
    pid: int | None = None


class _Result(msgspec.Struct, frozen=True):
    closing: tuple[_Closing, ...]
    missing: tuple[int, ...] = ()
    moving: tuple[int, ...] = ()
    unanswered: tuple[_Worker, ...] = ()


@click.command("close", help=_HELP, short_help="Close single connections.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(0, _LARGEST))
@click.option(
    "--code",
    type=click.IntRange(1000, 4999),
    metavar="CODE",
    default=1008,
    help="The close code (RFC 6455 section 7.4). [default: 1008, policy violation]",
)
@click.option(
    "--reason",
    metavar="TEXT",
    default="closed by the operator",
    help='What the client is told besides. [default: "closed by the operator"]',
)
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@instance_options
def command(*, ids: tuple[int, ...], code: int, reason: str, as_json: bool, **given: Any) -> int:
    """Have the connections closed, and say which were found."""
    if len(ids) > MOST_CONNECTIONS:
        raise click.UsageError(f"{len(ids)} ids; {MOST_CONNECTIONS} are the most at a time")
    try:
        fits = len(reason.encode()) <= _LONGEST_REASON
    except UnicodeEncodeError:
        raise click.UsageError("the reason is no UTF-8 text") from None
    if not fits:
        raise click.UsageError(f"a reason has {_LONGEST_REASON} bytes at most")
    answer = target_of(given).ask("close", ids=list(ids), code=code, reason=reason)
    result = read(answer, _Result)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for closing in result.closing:
            click.echo(f"closing {closing.id} (slot {closing.slot})")
    for number in result.moving:
        _complain(f"{number} moves to another worker just now; try again")
    for number in result.missing:
        _complain(f"there is no connection {number}")
    for worker in result.unanswered if result.missing else ():
        _complain(f"the worker of slot {worker.slot} (pid {worker.pid}) did not answer")
    return OK if len(result.closing) == len(set(ids)) else FAILED


def _complain(text: str) -> None:
    sys.stderr.write(f"wssup: {text}\n")
