"""The ``wssup`` command: the group of its subcommands, and how errors end it.

A subcommand lives in a module of its own name (an underscore for a hyphen) and is imported when it
is asked for, so that ``wssup status`` does not wait for what ``wssup serve`` needs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from wssup.cli.exits import FAILED, INTERRUPTED, OK, USAGE, exit_status
from wssup.cli.text import one_line, safe
from wssup.errors import ApplicationError, UserError
from wssup.version import __version__

__all__ = ["COMMANDS", "group", "main"]

COMMANDS: Final = (
    *("serve", "status", "events", "connections", "audit", "close", "reload", "scale"),
    "rebalance",
    *("drain", "stop", "publish", "config", "doctor", "systemd", "proxy-config", "completion"),
)
"""The subcommands, in the order of the help."""


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module when the subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"wssup.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""\
Run WebSocket applications: pre-forked workers, true counts, rolling reloads.

\b
  wssup serve shop.chat:app --bind 0.0.0.0:8000 --workers 8
  wssup status
  wssup reload

Every setting is an option of `serve`, a key in wssup.toml and an environment
variable WSSUP_…; `wssup config` shows each and where it came from.

Exit status: 0 done, 1 refused or failed, 2 a mistake in the command or the
configuration, 3 nothing runs, 4 an instance is there but does not answer,
130 interrupted.
""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _print_version(context) if asked else None,
    help="Show the version, and which core runs, and exit.",
)
@click.pass_context
def group(context: click.Context) -> int:
    """The group of all subcommands."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return USAGE
    return OK


def _print_version(context: click.Context) -> None:
    wire = importlib.import_module("wssup.server.wire")
    core = "compiled" if wire.COMPILED else "pure Python"
    click.echo(f"wssup {__version__} ({core} core)")
    context.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; errors are printed to stderr.

    :param arguments: the command line without the program's name; default: ``sys.argv``.
    """
    if not sys.platform.startswith("linux"):
        # Said before anything is imported that exists on Linux alone.
        sys.stderr.write(f"wssup: error: wssup runs on Linux only, and this is {sys.platform}\n")
        return USAGE
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale without our punctuation costs the character, not the command.
        sys.stdout.reconfigure(errors="replace")
    try:
        status = group.main(
            None if arguments is None else list(arguments), "wssup", standalone_mode=False
        )
    except UserError as error:
        for note in getattr(error, "__notes__", ()):
            _print_traceback(note)
        if isinstance(error, ApplicationError):
            _print_traceback(error.traceback)
        _print_error(error.message, error.remedy)
        return exit_status(error)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        path = "wssup" if context is None else context.command_path
        _print_error(error.format_message(), f"{path} --help")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status if isinstance(status, int) else OK


def _print_error(message: str, remedy: str) -> None:
    told = f"{one_line(message)} → {one_line(remedy)}" if remedy else one_line(message)
    sys.stderr.write(f"wssup: error: {told}\n")


def _print_traceback(traceback: str) -> None:
    if traceback:
        sys.stderr.write(safe(traceback).rstrip("\n") + "\n")
