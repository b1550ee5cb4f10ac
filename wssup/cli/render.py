"""The status document as a page for people."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wssup.cli.documents import Slot, Status, Worker
from wssup.cli.tables import Column, table
from wssup.cli.text import ago, count, milliseconds, one_line, safe
from wssup.cli.topics import topics

__all__ = ["console", "head", "notes", "page", "state_of"]

_STYLES: Final = {
    "running": "green",
    "ready": "green",
    "starting": "cyan",
    "reloading": "cyan",
    "replacing": "cyan",
    "settling": "cyan",
    "moving": "cyan",
    "rescuing": "yellow",
    "alone": "yellow",
    "holding": "cyan",
    "draining": "yellow",
    "stopping": "yellow",
    "backoff": "yellow",
    "stalled": "red",
    "failed": "bold red",
    "parked": "dim",
    "empty": "dim",
}
_UNLIMITED: Final = 500
_NARROWEST: Final = 24
"""Cells that a slot and its count of connections need; what is narrower wraps by itself."""


_COLUMNS: Final = (
    Column("slot", number=True, rank=0),
    Column("pid", number=True, rank=2),
    Column("gen", number=True, rank=3),
    Column("state", number=False, rank=1),
    Column("active", number=True, rank=0),
    Column("accepted", number=True, rank=4),
    Column("lag", number=True, rank=6),
    Column("age", number=True, rank=5),
)


def console() -> Console:
    """The console for stdout: no markup is read in what it prints, and a pipe is never wrapped."""
    out = Console(markup=False, highlight=False, emoji=False)
    out.width = max(out.width, _NARROWEST) if sys.stdout.isatty() else _UNLIMITED
    return out


def page(status: Status, *, width: int, now: dt.datetime) -> RenderableType:
    """The whole page: the instance, its slots, what went wrong, and what still drains.

    :param width: cells in a line; columns are left out before a number is cut.
    """
    parts: list[RenderableType] = [*head(status, now), Text(""), _table(status, width)]
    tail = notes(status)
    return Group(*parts, *([Text("")] if tail else []), *tail)


def notes(status: Status) -> list[Text]:
    """What went wrong, what is under way, and what there is besides connections."""
    return [
        *_errors(status),
        *_autoscale(status),
        *topics(status.topics),
        *_refused(status),
        *_handoff(status),
        *_reload(status),
        *_draining(status),
    ]


def head(status: Status, now: dt.datetime, *, capacity: bool = True) -> list[Text]:
    """The instance in a few lines.

    :param capacity: say how full it is, too.
    """
    first = Text(one_line(status.name), style="bold")
    first.append("  ").append(_state(status.state))
    facts = [f"generation {status.generation}", f"up {ago(_uptime(status, now))}"]
    if status.pid is not None:
        facts.append(f"pid {status.pid}")
    if status.version:
        facts.append(f"wssup {one_line(status.version)}")
    first.append("  " + "  ".join(facts), style="not bold")
    addresses = Text("bind  " + "  ".join(one_line(address) for address in status.bind))
    connections = status.connections
    load = f"{count(connections.active)} active, {count(connections.open)} open"
    if status.capacity and capacity:
        used = 100 * connections.open / status.capacity
        load += f", capacity {count(status.capacity)} ({used:.1f}% used)"
    lines = [first, addresses, Text("connections  " + load)]
    if status.mixed:
        lines.append(
            Text(
                f"generation {status.generation} is mixed: files changed since it was loaded; "
                "wssup reload makes it one",
                style="yellow",
            )
        )
    return lines


def _uptime(status: Status, now: dt.datetime) -> float | None:
    started = status.started_at
    if isinstance(started, str):
        try:
            started = dt.datetime.fromisoformat(started).timestamp()
        except ValueError:
            return None
    return None if started is None else now.timestamp() - started


def _state(state: str, detail: str = "") -> Text:
    style = next((_STYLES[word] for word in (detail, state) if word in _STYLES), "")
    return Text(one_line(f"{state}, {detail}" if detail else state), style=style)


def _table(status: Status, width: int) -> Table:
    return table(_COLUMNS, [row for slot in status.slots for row in _rows(slot)], width)


def _rows(slot: Slot) -> list[list[Text]]:
    if not slot.workers:
        dash = Text("-", style="dim")
        return [[Text(str(slot.slot)), dash, dash, state_of(slot), dash, dash, dash, dash]]
    return [_row(slot, worker, first=n == 0) for n, worker in enumerate(slot.workers)]


def state_of(slot: Slot, worker: Worker | None = None, *, first: bool = True) -> Text:
    """What a worker does, or a slot that has none.

    :param first: it is the slot's first worker: who borrows the slot's listeners is told with it.
    """
    lent = "" if slot.lent_to is None or not first else f"lent to {slot.lent_to}"
    if worker is None:
        return _state(slot.state, lent)
    if worker.stalled:
        return _state(worker.state, "stalled")
    if worker.stale:
        # Its last good row is shown: it was stopped or killed while it wrote.
        return _state(worker.state, "stale")
    return _state(worker.state, lent)


def _row(slot: Slot, worker: Worker, *, first: bool) -> list[Text]:
    lag = "-" if worker.lag_ms is None else f"{worker.lag_ms:.1f}ms"
    return [
        Text(str(slot.slot) if first else ""),
        Text("-" if worker.pid is None else str(worker.pid)),
        Text(str(worker.generation)),
        state_of(slot, worker, first=first),
        Text(count(worker.active)),
        Text(count(worker.accepted)),
        Text(lag),
        Text(ago(worker.age)),
    ]


def _errors(status: Status) -> list[Text]:
    lines: list[Text] = []
    for slot in status.slots:
        if slot.error:
            first, *more = safe(slot.error).strip("\n").split("\n")
            lines.append(Text(f"slot {slot.slot} {one_line(slot.state)}: {first}", style="red"))
            lines += [Text(f"  {line}") for line in more]
    return lines


def _autoscale(status: Status) -> list[Text]:
    """How many workers there are where their number follows the load, and when it last did."""
    found = status.autoscale
    if found is None:
        return []
    workers = f"{status.workers} workers, " if status.workers is not None else ""
    line = f"autoscale  {workers}{found.min} to {found.max} with {count(found.each)} each"
    if found.last is not None:
        line += f"; last {found.last.was} to {found.last.workers} ({one_line(found.last.reason)})"
    lines = [Text(line)]
    if found.held:
        lines.append(Text(f"  none goes: {one_line(found.held)}", style="yellow"))
    return lines


def _refused(status: Status) -> list[Text]:
    connections = status.connections
    if not connections.refused:
        return []
    line = f"refused  {count(connections.refused)}"
    reasons = {reason: n for reason, n in connections.refused_by_reason.items() if n}
    if reasons:
        line += f" ({', '.join(f'{one_line(name)} {count(n)}' for name, n in reasons.items())})"
    return [Text(line)]


def _handoff(status: Status) -> list[Text]:
    handoff = status.handoff
    refused = {reason: n for reason, n in handoff.refused_by_reason.items() if n}
    if not (handoff.moved or refused or handoff.in_progress):
        return []
    line = f"handoff  {count(handoff.moved)} moved"
    if refused:
        reasons = ", ".join(
            f"{one_line(reason).replace('_', ' ')} {count(n)}" for reason, n in refused.items()
        )
        line += f", {count(sum(refused.values()))} not ({reasons})"
    if handoff.moved:
        pause = handoff.pause_ms
        figures = (("p50", pause.p50), ("p99", pause.p99), ("max", pause.max))
        line += "; pause " + ", ".join(f"{name} {milliseconds(ms)}" for name, ms in figures)
    if handoff.in_progress:
        line += "; moving now"
    return [Text(line, style="cyan" if handoff.in_progress else "")]


def _reload(status: Status) -> list[Text]:
    """The reload that is under way, or how the last one ended."""
    if status.reload is not None:
        return [Text(f"reload  generation {status.reload.generation} comes", style="cyan")]
    last = status.last_reload
    if last is None or last.outcome is None:
        return []
    line = f"last reload  {one_line(last.outcome).replace('_', ' ')}"
    if last.generation is not None:
        line += f", generation {last.generation}"
    if last.seconds is not None:
        line += f", {last.seconds:.1f}s"
    if last.moved is not None:
        line += f", {count(last.moved)} moved, {count(last.disconnected)} disconnected"
    if last.reason:
        line += f": {one_line(last.reason)}"
    return [Text(line, style="" if last.outcome == "done" else "yellow")]


def _draining(status: Status) -> list[Text]:
    workers = [
        worker for slot in status.slots for worker in slot.workers if worker.state == "draining"
    ]
    if not workers:
        return []
    generations = ", ".join(str(number) for number in sorted({w.generation for w in workers}))
    left = sum(worker.active for worker in workers)
    noun = "worker" if len(workers) == 1 else "workers"
    return [
        Text(
            f"draining  {len(workers)} {noun} of generation {generations}, "
            f"{count(left)} {'connection' if left == 1 else 'connections'} left",
            style="yellow",
        )
    ]
