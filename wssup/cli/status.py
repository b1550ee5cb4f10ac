"""``wssup status``: what an instance does, for people and for programs."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from typing import Any

import click

from wssup.cli.documents import Status, read
from wssup.cli.exits import OK
from wssup.cli.options import instance_options, target_of
from wssup.cli.render import console, page
from wssup.cli.watching import Watching
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

--watch refreshes each second, also over a stop and a start, and shows what happens
per second besides. q or Ctrl-C ends it; the arrows, PgUp, PgDn, Home and End (or k, j,
Space, g, G) scroll.

Exit status: 0 an instance runs, 3 none runs, 4 unknown: one is there, but may not
be asked or does not answer within 5 seconds.
"""


@click.command("status", help=_HELP, short_help="Show workers with their connections.")
@click.option("--json", "as_json", is_flag=True, help="Print the document for programs.")
@click.option("--watch", is_flag=True, help="Show it live until q or Ctrl-C, on a terminal.")
@instance_options
def command(*, as_json: bool, watch: bool, **given: Any) -> int:
    """Ask for the status document and show it."""
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    if watch and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal; programs use --json")
    if watch and os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise click.UsageError("--watch needs a terminal with a cursor; TERM is dumb")
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
        return Watching(target).run(status)
    out = console()
    out.print(page(status, width=out.width, now=dt.datetime.now(tz=dt.UTC)))
    return OK
