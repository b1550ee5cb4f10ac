"""The log's reference and the code name the same events, with the same levels."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Methods of loggers, and of what keeps a storm of warnings away.
_LEVELS = {
    "info": "info",
    "warning": "warning",
    "warn": "warning",
    "error": "error",
    "exception": "error",
}


def logged() -> dict[str, set[str]]:
    """The events of level info and above in the code, with their levels; empty where the level is
    decided as it is logged.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "wssup").rglob("*.py"):
        # (What a worker under gunicorn says goes to gunicorn's log.)
        if {"cli", "examples"} & set(path.parts) or "gunicorn/" in str(path):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, level = node.args[0], ""
            if isinstance(node.func, ast.Attribute):
                if "log" not in ast.unparse(node.func) and node.func.attr != "warn":
                    continue
                level = _LEVELS.get(node.func.attr, "debug")
            elif not isinstance(node.func, ast.Name) or node.func.id != "tell":
                continue
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and level != "debug":
                found[name.value] |= {level} - {""}
    return found


def described() -> dict[str, set[str]]:
    """The events in the reference, with their levels."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs/reference/log.md").read_text().splitlines():
        row = re.fullmatch(r"\| (`.*?`) \| ([a-z, ]+) \| .* \|", line)
        if row:
            names = re.findall(r"`([a-z_]+)`", row[1])
            found |= {name: set(row[2].split(", ")) for name in names}
    return found


def test_every_event_is_described() -> None:
    """Each event from level info on has its place in docs/reference/log.md, with its level."""
    text = (ROOT / "docs/reference/log.md").read_text()
    told = described()
    events = logged()
    assert len(events) > 60
    missing = sorted(name for name in events if f"`{name}`" not in text)
    assert missing == []
    wrong = {
        name: (levels, told[name])
        for name, levels in events.items()
        if name in told and not levels <= told[name]
    }
    assert wrong == {}


def test_every_description_is_of_an_event() -> None:
    """What the reference describes is logged somewhere."""
    code = "\n".join(path.read_text() for path in (ROOT / "wssup").rglob("*.py"))
    # Two outcomes of a reload are put together from their names.
    made = {"reload_rolled_back", "reload_refused"}
    assert [n for n in described() if f'"{n}"' not in code and n not in made] == []
