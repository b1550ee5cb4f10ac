"""What ``wssup doctor`` found, as a page for people."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

from wssup.cli.render import console
from wssup.cli.text import one_line
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Finding, Verdict, ordered
from wssup.doctor.plan import Plan
from wssup.doctor.report import summary

__all__ = ["show"]

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNKNOWN: "dim",
}
#: Cells from which on there is room for remedies beside the rest.
_WIDE: Final = 140


def show(findings: list[Finding], wanted: Plan, facts: Facts) -> None:
    """Print the sentence, the table, and the remedies."""
    out = console()
    out.print(Text(one_line(summary(findings, wanted)), style="bold"), soft_wrap=True)
    out.print(Text(_whose(facts, wanted), style="dim"), soft_wrap=True)
    out.print()
    rows = ordered(findings)
    wide = out.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("check", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("found", "needed", *(("remedy",) if wide else ())):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [Text(one_line(row.check)), Text(row.verdict.value, style=_STYLES[row.verdict])]
        cells += [Text(one_line(row.found)), Text(one_line(row.needed))]
        cells += [Text(one_line(row.remedy))] if wide else []
        table.add_row(*cells)
    out.print(table)
    if wide:
        return
    for row in rows:
        if row.remedy:
            out.print()
            line = Text.assemble((f"{one_line(row.check)}: ", "bold"), one_line(row.remedy))
            out.print(line, soft_wrap=True)


def _whose(facts: Facts, wanted: Plan) -> str:
    noun = "worker" if wanted.workers == 1 else "workers"
    if facts.running is None:
        return f"of an instance that would run from here, with {wanted.workers} {noun}"
    if not wanted.ours:
        return f"of the server {facts.running.pid} ({one_line(facts.running.name)})"
    return (
        f"of the running instance {one_line(facts.running.name)}, {wanted.workers} {noun}, "
        f"{facts.present} connections"
    )
