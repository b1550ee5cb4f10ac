"""``wssup audit``: the counts held against the kernel; is there a leak?"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from typing import Any

import click

from wssup.cli.audit_instance import audit_instance
from wssup.cli.audit_page import document, page
from wssup.cli.audit_process import audit_process
from wssup.cli.client import Target
from wssup.cli.exits import FAILED, OK
from wssup.cli.looking import Rules
from wssup.cli.options import instance_options, target_of
from wssup.cli.render import console
from wssup.errors import UserError

__all__ = ["command"]

_HELP = """\
Hold the counts of an instance against the kernel: is there a leak?

\b
  wssup audit
  wssup audit --json | jq '.findings[]'
  wssup audit --pid 4711

For each worker: connections that are counted but gone; descriptors that are
connections but not counted; sockets of clients that were reset and are still held; and
connections in CLOSE_WAIT, whose clients closed them and which the worker keeps. The
second table is about the addresses, whoever holds the sockets: "in queue" waits to be
accepted, "ending" was closed by the server and is the kernel's.

Nothing is stopped for it. What changed while it looked is never called a leak: it
looks up to three times, and a leak is in every look.

--pid looks at any other server and at its child processes: descriptors by kind,
sockets, accept queues, CLOSE_WAIT.

Run it as the service's user or as root: the kernel shows descriptors to nobody else.

Exit status: 0 clean, 1 a leak, 2 it cannot be audited (nothing runs, not
permitted), or a mistake in the command.
"""


@click.command("audit", help=_HELP, short_help="Hold the counts against the kernel.")
@click.option(
    "--pid",
    type=click.IntRange(min=1),
    metavar="PID",
    help="Look at this process and its children instead of an instance.",
)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0, max=86400 * 365),
    metavar="SECONDS",
    default=30.0,
    help="A connection that is in CLOSE_WAIT for longer is a leak. [default: 30]",
)
@click.option(
    "--tolerate",
    type=click.IntRange(min=0, max=10**7),
    metavar="N",
    default=0,
    help="So many of these in a process are no leak yet. [default: 0]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@instance_options
def command(
    *, pid: int | None, older_than: float, tolerate: int, as_json: bool, **given: Any
) -> int:
    """Audit and show what was found."""
    if math.isnan(older_than):
        raise click.UsageError("--older-than needs a number of seconds")
    target = target_of(given)
    try:
        return _audit(target, pid, Rules(older_than, tolerate), as_json=as_json)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - left alone, it ends with 1, which says "a leak"
        strange = UserError(f"cannot audit: {error!r}", "this is a mistake of wssup: report it")
        strange.add_note(traceback.format_exc())
        raise strange from None


def _audit(target: Target, pid: int | None, rules: Rules, *, as_json: bool) -> int:
    audited = audit_instance(target, rules) if pid is None else audit_process(pid, rules)
    older_than = rules.older_than
    if as_json:
        shown = json.dumps(document(audited, older_than=older_than), indent=2) + "\n"
    else:
        out = console()
        with out.capture() as captured:
            out.print(page(audited, older_than=older_than, width=out.width))
        shown = captured.get()
    try:
        click.echo(shown, nl=False, color=True)
    except BrokenPipeError:
        # Whoever read our output has seen enough. The verdict stands.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED if audited.findings else OK
