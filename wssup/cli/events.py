"""``wssup events``: follow what happens in the life of an instance."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any, Final

import click
from rich.text import Text

from wssup.cli.client import Document
from wssup.cli.exits import OK
from wssup.cli.following import check_alive
from wssup.cli.options import instance_options, target_of
from wssup.cli.render import console
from wssup.cli.text import one_line

__all__ = ["command", "line"]

_HELP = """\
Show the events in the life of an instance, and follow them: workers that come and go,
reloads, slots that fail, the bridge, the end.

\b
  wssup events
  wssup events --past 100 --no-follow
  wssup events --json | jq 'select(.event == "worker_lost")'

The master keeps the last 100 events, whatever the log's level. They are the same as in
its log, which keeps more. Following ends with the instance, or with Ctrl-C.

--json prints one JSON object per line: seq (counts from 1 while the instance lives), at
(unix time), level, event, and the event's own fields.

Exit status: 0 followed until the instance ended, or until Ctrl-C; 1 refused, or the
instance ended without a word; 3 nothing runs, 4 no answer.
"""
_MOST: Final = 100
_STYLES: Final = {"warning": "yellow", "error": "red", "critical": "bold red"}
_FIRST: Final = ("v", "seq", "at", "level", "event")


@click.command("events", help=_HELP, short_help="Follow workers and reloads and what fails.")
@click.option(
    "--past",
    type=click.IntRange(0, _MOST),
    metavar="N",
    default=10,
    help="Begin with the last N events, 100 at most. [default: 10]",
)
@click.option("--follow/--no-follow", default=True, help="Go on with what happens. [default: yes]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
@instance_options
def command(*, past: int, follow: bool, as_json: bool, **given: Any) -> int:
    """Show events until there are no more."""
    target = target_of(given)
    out = console()

    def show(event: Document) -> None:
        if as_json:
            click.echo(json.dumps({key: value for key, value in event.items() if key != "v"}))
        else:
            # A terminal gets lines that end between two words; a pipe never gets more than one.
            out.print(line(event, dt.datetime.now().astimezone()), soft_wrap=not out.is_terminal)
        # A pipe's reader sees each event when it happens.
        sys.stdout.flush()

    try:
        with target.connect() as conversation:
            conversation.send("events", past=past, follow=follow)
            result = conversation.result(show, lambda: check_alive(target))
    except KeyboardInterrupt:
        return OK
    if result.get("outcome") == "ended":
        sys.stderr.write(f"wssup: instance {target.name!r} ended\n")
    return OK


def line(event: Document, now: dt.datetime) -> Text:
    """An event for people, in one line; with its date if that is not today.

    :param now: with the time zone to show times in.
    """
    try:
        at = dt.datetime.fromtimestamp(float(event.get("at", 0)), now.tzinfo)
    except (TypeError, ValueError, OverflowError, OSError):
        at = dt.datetime.fromtimestamp(0, now.tzinfo)
    clock = f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"
    level = one_line(str(event.get("level", "")))
    style = _STYLES.get(level, "")
    found = Text(f"{clock}  ", style=style or "dim")
    found.append(f"{level:<8}", style=style)
    found.append(one_line(str(event.get("event", ""))).ljust(20), style=style or "bold")
    for key, value in event.items():
        if key not in _FIRST:
            found.append(f" {one_line(key)}=", style="dim").append(_word(value))
    return found


def _word(value: object) -> str:
    """A value of a field; text is quoted where it would not be told from its neighbours."""
    if isinstance(value, str) and value and not any(c.isspace() or c in "\"'=" for c in value):
        return one_line(value)
    return one_line(json.dumps(value, ensure_ascii=False))
