"""``wssup reload``: replace the workers by new ones, and wait until it is done."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from wssup.cli.documents import read
from wssup.cli.exits import FAILED, OK
from wssup.cli.following import follow
from wssup.cli.options import instance_options, target_of
from wssup.cli.text import count, milliseconds, one_line, safe

__all__ = ["command"]

_HELP = """\
Replace the workers by new ones with the newest code and configuration.

New workers start beside the old ones, on the same listeners. Only when they have
run well for a while do the connections move to them; those that cannot are closed
with 1012, spread over the drain window. If the new code cannot be imported, its
workers fail or the connections cannot resume in it, the old ones serve on.

\b
  wssup reload
  wssup reload --no-wait

Ctrl-C ends the waiting, not the reload.

Exit status: 0 done (or begun, with --no-wait), 1 rolled back or refused, 2 a
mistake in the command, 3 nothing runs, 4 no answer, 130 interrupted.
"""


class _Result(msgspec.Struct, frozen=True):
    outcome: str
    generation: int | None = None
    seconds: float | None = None
    reason: str | None = None
    traceback: str | None = None
    moved: int | None = None
    disconnected: int = 0
    pause_p99_ms: float | None = None


@click.command("reload", help=_HELP, short_help="Replace the workers without losing connections.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is done. [default: wait]")
@instance_options
def command(*, wait: bool, **given: Any) -> int:
    """Start a reload and follow it."""
    answer = follow(
        target_of(given),
        "reload",
        wait=wait,
        interrupted="no longer waiting; the reload goes on, wssup status --watch follows it",
    )
    return _conclude(read(answer, _Result))


def _conclude(result: _Result) -> int:
    generation = "" if result.generation is None else f" generation {result.generation}"
    seconds = "" if result.seconds is None else f" in {result.seconds:.1f}s"
    if result.outcome == "done":
        click.echo(f"reloaded:{generation} serves{_figures(result) or seconds}")
        return OK
    if result.outcome == "started":
        click.echo(f"reload started:{generation}; wssup status --watch follows it")
        return OK
    if result.traceback:
        sys.stderr.write(safe(result.traceback).rstrip("\n") + "\n")
    outcome = one_line(result.outcome).replace("_", " ")
    sys.stderr.write(f"wssup: error: reload {outcome}{seconds}: {one_line(result.reason or '?')}\n")
    sys.stderr.write("  → the old workers serve on; mend the cause and reload again\n")
    return FAILED


def _figures(result: _Result) -> str:
    """What became of the connections; empty if the instance does not say."""
    if result.moved is None:
        return ""
    parts = [f"{count(result.moved)} moved", f"{count(result.disconnected)} disconnected"]
    if result.pause_p99_ms is not None:
        parts.append(f"pause p99 {milliseconds(result.pause_p99_ms)}")
    if result.seconds is not None:
        parts.append(f"{result.seconds:.1f} s")
    return ": " + ", ".join(parts)
