"""``wssup publish TOPIC DATA``: send a message to all subscribers of a topic."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any, Final

import click
import msgspec

from wssup.cli.documents import read
from wssup.cli.exits import OK
from wssup.cli.options import instance_options, target_of
from wssup.cli.text import count, one_line
from wssup.topics import names

__all__ = ["command"]

_HELP = """\
Send a message to all subscribers of a topic.

DATA is the message; - reads it from standard input, as it is. It is sent as text;
with --binary as bytes. A worker publishes it as the application would, so over Redis
it reaches other instances too.

\b
  wssup publish news "Maintenance at noon"
  wssup publish --binary map.tiles - < tile.png

Exit status: 0 published, also if nobody subscribes; 1 refused, or no worker is
ready; 2 a mistake in the command: TOPIC is no name of a topic, DATA is longer than
64 KiB, or no text; 3 nothing runs, 4 no answer.
"""
_LONGEST: Final = 64 * 1024
_STDIN: Final = "-"


class _Result(msgspec.Struct, frozen=True):
    subscribers: int


@click.command("publish", help=_HELP, short_help="Send a message to the subscribers of a topic.")
@click.argument("topic")
@click.argument("data")
@click.option("--binary", is_flag=True, help="Send a binary message, not text.")
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@instance_options
def command(*, topic: str, data: str, binary: bool, as_json: bool, **given: Any) -> int:
    """Have the message published, and say how many subscribers the topic has."""
    try:
        names.check(topic)
    except ValueError as error:
        raise click.UsageError(one_line(str(error))) from None
    message = _message(data, binary=binary)
    answer = target_of(given).ask("publish", topic=topic, **message)
    result = read(answer, _Result)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return OK
    noun = "subscriber" if result.subscribers == 1 else "subscribers"
    click.echo(f"published to {one_line(topic)}: {count(result.subscribers)} {noun}")
    return OK


def _message(data: str, *, binary: bool) -> dict[str, str]:
    """The message as arguments of the control socket's command.

    :raises click.UsageError: if it is too long, or no text and should be.
    """
    # What a shell gives need not be text: the interpreter keeps such bytes as surrogates (PEP 383).
    content = _read_stdin() if data == _STDIN else os.fsencode(data)
    if len(content) > _LONGEST:
        raise click.UsageError(
            "the message has more than 64 KiB; publish larger ones from the application"
        )
    if binary:
        return {"base64": base64.b64encode(content).decode()}
    try:
        return {"data": content.decode()}
    except UnicodeDecodeError:
        raise click.UsageError("the message is no UTF-8 text; --binary sends bytes") from None


def _read_stdin() -> bytes:
    """Standard input to its end, but no more than shows that it is too long."""
    found = sys.stdin.buffer.read(_LONGEST + 1)
    return bytes(found)
