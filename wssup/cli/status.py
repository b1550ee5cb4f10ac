"""``wssup status``: what an instance does, for people and for programs."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from typing import Any

import click
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from wssup.cli.client import Target
from wssup.cli.documents import Status, read
from wssup.cli.exits import OK
from wssup.cli.options import instance_options, target_of
from wssup.cli.render import console, page
from wssup.cli.text import one_line
from wssup.errors import CommandError

__all__ = ["command"]

_HELP = """\
Show an instance: its slots, workers, connections and capacity.

\b
  wssup status
  wssup status --watch
  wssup status --json | jq .connections.active

--json prints a stable document (schema 1). Columns that a narrow terminal has no
room for are left out; numbers are never cut.

Exit status: 0 an instance runs, 3 none runs, 4 unknown: one is there, but may not
be asked or does not answer within 5 seconds.
"""
_REFRESH = 1.0


@click.command("status", help=_HELP, short_help="Show workers, connections and capacity.")
@click.option("--json", "as_json", is_flag=True, help="Print the document for programs.")
@click.option("--watch", is_flag=True, help="Refresh each second until Ctrl-C (on a terminal).")
@instance_options
def command(*, as_json: bool, watch: bool, **given: Any) -> int:
    """Ask for the status document and show it."""
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    if watch and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal; programs use --json")
    target = target_of(given)
    try:
        document = target.ask("status")
        if as_json:
            # ASCII: no character of it acts on a terminal, in any encoding.
            click.echo(json.dumps(document, indent=2))
            return OK
        status = read(document, Status)
    except CommandError as error:
        if error.code in ("not_running", "no_answer"):
            raise
        # Whatever else kept the answer from us: what runs is unknown.
        raise CommandError("no_answer", error.message, error.remedy) from None
    if watch:
        return _watch(target, status)
    out = console()
    out.print(_page(status, out.width))
    return OK


def _page(status: Status, width: int) -> RenderableType:
    return page(status, width=width, now=dt.datetime.now(tz=dt.UTC))


def _watch(target: Target, status: Status) -> int:
    """Show the page anew each second, also over a stop and a start, until Ctrl-C."""
    out = console()
    try:
        with Live(_page(status, out.width), console=out, screen=True, auto_refresh=False) as live:
            while True:
                # The period of the display; nothing is waited for.
                time.sleep(_REFRESH)
                live.update(_current(target, out.width), refresh=True)
    except KeyboardInterrupt:
        return OK


def _current(target: Target, width: int) -> RenderableType:
    try:
        return _page(read(target.ask("status"), Status), width)
    except CommandError as error:
        return Text(one_line(error.message), style="yellow")
