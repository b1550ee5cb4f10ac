"""An audit as a page for people and as a document for programs. Pure functions."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from wssup.auditing.holding import Traffic
from wssup.auditing.judging import Finding, Pile
from wssup.cli.looking import Audited, Process
from wssup.cli.tables import Column, table
from wssup.cli.text import ago, count, one_line

__all__ = ["document", "page", "told"]

_SCHEMA: Final = 1

_WORKERS: Final = (
    Column("slot", number=True, rank=0),
    Column("pid", number=True, rank=1),
    Column("counted", number=True, rank=0),
    Column("held", number=True, rank=0),
    Column("uncounted", number=True, rank=0),
    Column("gone", number=True, rank=0),
    Column("dead", number=True, rank=2),
    Column("close-wait", number=True, rank=0),
    Column("oldest", number=True, rank=3),
    Column("fds", number=True, rank=4),
    Column("limit", number=True, rank=5),
)
_PROCESSES: Final = (
    Column("pid", number=True, rank=0),
    Column("fds", number=True, rank=0),
    Column("limit", number=True, rank=4),
    Column("listeners", number=True, rank=3),
    Column("connections", number=True, rank=0),
    Column("close-wait", number=True, rank=0),
    Column("oldest", number=True, rank=1),
    Column("outgoing", number=True, rank=2),
    Column("dead", number=True, rank=0),
    Column("others", number=False, rank=5),
)
_TRAFFIC: Final = (
    Column("address", number=False, rank=0),
    Column("established", number=True, rank=0),
    Column("close-wait", number=True, rank=0),
    Column("ending", number=True, rank=3),
    Column("time-wait", number=True, rank=1),
    Column("syn", number=True, rank=4),
    Column("in queue", number=True, rank=0),
    Column("of", number=True, rank=2),
    Column("gave up", number=True, rank=5),
)
_TOLD: Final = {
    "uncounted": "open connections that are not counted: the application keeps duplicates of "
    "descriptors, or accepts by itself",
    "gone": "connections that are counted and not there: something closed their descriptors behind "
    "the server's back",
    "dead": "TCP sockets of clients that are connected to nobody: they were reset, and are still "
    "held",
    "stray": "connections that no worker has any more: the application started this process with "
    "their descriptors",
    "close_wait": "kept for more than {bound:g}s after their clients closed them, the oldest for "
    "{oldest}: the application neither reads nor closes them",
}
_LONGEST: Final = 60
"""Characters of a command line in the heading."""


def told(finding: Finding, older_than: float) -> str:
    """A finding in a line, under the name of its column."""
    where = "" if finding.slot is None else f"slot {finding.slot}, "
    what = _TOLD[finding.kind].format(bound=older_than, oldest=ago(finding.oldest))
    kind = finding.kind.replace("_", "-")
    return f"{where}pid {finding.pid}: {count(finding.number)} {kind}: {what}"


def page(audited: Audited, *, older_than: float, width: int) -> RenderableType:
    """The whole page.

    :param width: cells in a line; columns are left out before a number is cut.
    """
    looks = "one look" if audited.looks == 1 else f"{audited.looks} looks"
    head = Text(one_line(audited.name), style="bold")
    head.append(
        f"  {one_line(audited.detail)[:_LONGEST]}  {looks} in {audited.seconds:.2f}s", "not bold"
    )
    counted = any(process.slot is not None for process in audited.processes)
    columns, row = (_WORKERS, _worker) if counted else (_PROCESSES, _process)
    parts: list[RenderableType] = [
        head,
        Text(""),
        table(columns, [row(process) for process in audited.processes], width),
    ]
    if audited.traffic:
        rows = [_place(place) for place in audited.traffic]
        parts += [Text(""), table(_TRAFFIC, rows, width)]
    parts.append(Text(""))
    parts += [Text(note, style="yellow") for note in audited.notes]
    parts += [Text(told(finding, older_than), style="red") for finding in audited.findings]
    if not audited.findings:
        # What a note takes back is not claimed.
        sure = counted and not audited.notes
        clean = "every connection that is counted is open, and every open one is counted"
        parts.append(Text(f"clean: {clean if sure else 'no leak is seen'}", style="green"))
    return Group(*parts)


def _worker(process: Process) -> list[Text]:
    held, differs = process.last.held, process.differs
    return [
        Text("-" if process.slot is None else str(process.slot)),
        Text(str(process.pid)),
        Text("-" if process.counted is None else count(process.counted)),
        Text(count(held.connections)),
        _bad(differs.uncounted),
        _bad(differs.gone),
        _bad(differs.dead),
        *_pile(process.close_wait, process.kept),
        Text(count(sum(held.kinds.values()))),
        _limit(process.nofile),
    ]


def _process(process: Process) -> list[Text]:
    held = process.last.held
    sockets = held.connections + held.outgoing + held.listeners
    sockets += len(held.dead) + len(held.dead_elsewhere)
    others = {kind: n for kind, n in held.kinds.items() if kind != "socket"}
    # Sockets that are none of TCP's and no listeners: of unix, UDP, netlink.
    rest = held.kinds.get("socket", 0) - sockets
    if rest:
        others["socket"] = rest
    return [
        Text(str(process.pid)),
        Text(count(sum(held.kinds.values()))),
        _limit(process.nofile),
        Text(count(held.listeners)),
        Text(count(held.connections)),
        *_pile(process.close_wait, process.kept),
        Text(count(held.outgoing)),
        _bad(process.differs.dead),
        Text(", ".join(f"{one_line(kind)} {count(n)}" for kind, n in others.items())),
    ]


def _place(place: Traffic) -> list[Text]:
    return [
        Text(one_line(place.address)),
        Text(count(place.established)),
        Text(count(place.close_wait)),
        Text(count(place.ending)),
        Text(count(place.time_wait)),
        Text(count(place.syn)),
        Text(count(place.waiting)),
        Text(count(place.limit) if place.limit else "-"),
        Text(count(place.gave_up)),
    ]


def _bad(number: int) -> Text:
    return Text(count(number), style="red" if number else "")


def _pile(all_: Pile, old: Pile) -> list[Text]:
    style = "red" if old.number else ""
    return [Text(count(all_.number), style=style), Text(ago(all_.oldest), style=style)]


def _limit(nofile: int | None) -> Text:
    return Text("-" if nofile is None else count(nofile))


def document(audited: Audited, *, older_than: float) -> dict[str, Any]:
    """The audit as JSON-like data."""
    return {
        "schema": _SCHEMA,
        "name": audited.name,
        "verdict": "leak" if audited.findings else "clean",
        "looks": audited.looks,
        "seconds": round(audited.seconds, 3),
        "processes": [_process_document(process) for process in audited.processes],
        "addresses": [place._asdict() for place in audited.traffic],
        "findings": [
            {
                "kind": finding.kind,
                "pid": finding.pid,
                "slot": finding.slot,
                "count": finding.number,
                "oldest": finding.oldest,
                "message": told(finding, older_than),
            }
            for finding in audited.findings
        ],
        "notes": audited.notes,
    }


def _process_document(process: Process) -> dict[str, Any]:
    held = process.last.held
    return {
        "pid": process.pid,
        "slot": process.slot,
        "command": process.command,
        "counted": process.counted,
        "held": held.connections,
        "outgoing": held.outgoing,
        "listeners": held.listeners,
        "descriptors": held.kinds,
        "nofile": process.nofile,
        **process.differs._asdict(),
        "close_wait": {
            "count": process.close_wait.number,
            "oldest": process.close_wait.oldest,
            "old": process.kept.number,
            "outgoing": process.outgoing_close_wait.number,
            "outgoing_oldest": process.outgoing_close_wait.oldest,
        },
    }
