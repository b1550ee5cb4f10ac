"""``wssup config``: every setting, and where it came from."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec
from rich.text import Text

from wssup.cli.documents import read
from wssup.cli.exits import OK
from wssup.cli.options import instance_options, load_instance, setting_options, target_of
from wssup.cli.render import console
from wssup.cli.text import one_line
from wssup.config.settings import SETTINGS
from wssup.errors import CommandError

__all__ = ["command"]

_HELP = """\
Show every setting, and where it came from.

While an instance runs these are its own, the effective ones. Otherwise they are
those that `serve` would use from here: --given shows those even while one runs,
and so checks a file before a reload. The output is a valid wssup.toml, also of what
a gunicorn.conf.py becomes; what of that has no meaning here stands in comments.

\b
  wssup config
  wssup config --given --config /etc/wssup/shop.toml
  wssup config --given --gunicorn-config gunicorn.conf.py > wssup.toml
  wssup config --json

Exit status: 0 shown, 1 refused, 2 a setting is wrong (the error says which), 3
nothing runs (with --effective), 4 no answer.
"""


class _Row(msgspec.Struct, frozen=True):
    key: str
    value: Any
    source: str
    live: bool


class _Settings(msgspec.Struct, frozen=True):
    settings: list[_Row]
    file: str | None = None


@click.command("config", help=_HELP, short_help="Show every setting and where it came from.")
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@click.option(
    "--effective/--given",
    default=None,
    help="Only those of the running instance, or only those that files, environment and options "
    "give. [default: the running instance's, if one runs]",
)
@setting_options(["gunicorn_config"])
@instance_options
def command(*, as_json: bool, effective: bool | None, **given: Any) -> int:
    """Show the running instance's settings, or those that would be used."""
    loaded = load_instance(given, given["config_file"])
    target = target_of(given, loaded)
    running = effective is not False
    answer: dict[str, Any] = {"settings": loaded.rows(), "file": loaded.file}
    if running:
        try:
            answer = target.ask("config")
        except CommandError as error:
            if effective or error.code != "not_running":
                raise
            running = False
    found = read(answer, _Settings)
    if as_json:
        click.echo(json.dumps({"running": running, **answer}, indent=2))
        return OK
    whose = f"of the running instance {target.name}" if running else "that wssup serve would use"
    out = console()
    out.print(Text(f"# The settings {whose}.", style="bold"), soft_wrap=True)
    out.print(Text(f"# File: {one_line(found.file or 'none')}", style="bold"), soft_wrap=True)
    assignments = [_assignment(row) for row in found.settings]
    width = max((len(assignment) for assignment in assignments if len(assignment) <= 40), default=0)
    for row, assignment in zip(found.settings, assignments, strict=True):
        source = one_line(row.source) + ("" if row.live else "; needs a restart")
        line = Text(assignment.ljust(width)).append(f"  # {source}", style="dim")
        out.print(line, soft_wrap=True)
    for left in loaded.left if not running else ():
        out.print(Text(f"# {one_line(str(left))}", style="dim"), soft_wrap=True)
    return OK


def _assignment(row: _Row) -> str:
    """The setting as a line of TOML; commented out if it has no value."""
    setting = SETTINGS.get(row.key)
    try:
        shown = json.dumps(row.value) if setting is None else setting.kind.show(row.value)
    except (AssertionError, ValueError):
        # An instance of another version may have other kinds of values.
        shown = json.dumps(row.value)
    line = one_line(f"{row.key} = {shown}")
    return f"# {line}" if row.value == "" else line
