"""``wssup systemd``: the units of a service, written for this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wssup.cli.exits import FAILED, OK
from wssup.cli.options import config_option, load_instance
from wssup.config.loading import DEFAULT, Loaded
from wssup.config.plan import workers_meant
from wssup.errors import CommandError, UserError
from wssup.systemd import installer
from wssup.systemd.installer import Step
from wssup.systemd.render import KINDS, Choices, has_low_port

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

#: What a hardened service may be exposed to (systemd-analyze security).
_EXPOSURE = 1.5

#: systemd's "User/Group Name Syntax", the strict kind.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")

_HELP = """\
Run wssup as a systemd service: one instance per application.

\b
  wssup systemd install
  editor /etc/wssup/shop.toml
  systemctl enable --now wssup@shop
  systemctl reload wssup@shop

The units fit the wssup that writes them, and the configuration: deadlines
follow from its windows, the number of kept listeners from its addresses and
max_workers. What else differs belongs into drop-ins (systemctl edit).

Exit status: 0 done, 1 refused or something is wrong, 2 a mistake in the
command or the configuration.
"""
_INSTALL = """\
Write the units, and tell systemd of them.

Written are wssup@.service and files for sysusers.d and sysctl.d; on demand
wssup@.socket, with a listener for each of the configured workers. Doing it
again changes nothing, or what follows from a changed configuration. A file
that was edited is not overwritten.

\b
  wssup systemd install
  wssup systemd install --config /etc/wssup/shop.toml
  wssup systemd install --instance shop --socket
  wssup systemd install --prefix build/root --program /usr/bin/wssup
"""


@click.group("systemd", help=_HELP, short_help="Install it as a systemd service.")
def command() -> None:
    """The group of the commands about units."""


def _prefix_option(function: F) -> F:
    return click.option(
        "--prefix",
        type=click.Path(path_type=Path),
        default=Path("/"),
        help="The folder that stands for /, for packages: only files are written. [default: /]",
    )(function)


def _choice_options(function: F) -> F:
    options = (
        click.option(
            "--instance",
            metavar="NAME",
            default="",
            help="Take the settings from /etc/wssup/NAME.toml; a socket unit is for it alone.",
        ),
        click.option("--user", metavar="USER", default="wssup", help="[default: wssup]"),
        click.option("--group", metavar="GROUP", help="[default: as the user]"),
        click.option(
            "--nofile",
            type=click.IntRange(min=1024),
            default=1 << 20,
            help="Descriptors that each process may have. [default: 1048576]",
        ),
        click.option(
            "--program",
            metavar="PATH",
            help="The wssup that units start. [default: the one that writes them]",
        ),
        config_option,
    )
    for option in reversed(options):
        function = option(function)
    return _prefix_option(function)


@command.command("install", help=_INSTALL, short_help="Write the units.")
@click.option("--socket", is_flag=True, help="Also wssup@.socket: systemd makes the listeners.")
@click.option(
    "--low-ports",
    is_flag=True,
    help="Also the drop-in with the privilege for ports below 1024; there is no need to say it if"
    " bind names one.",
)
@click.option(
    "--notify-reload", is_flag=True, help="Also the drop-in for reloads by signal (systemd 253)."
)
@click.option("--force", is_flag=True, help="Overwrite edited files.")
@_choice_options
def _install(
    *,
    prefix: Path,
    socket: bool,
    low_ports: bool,
    notify_reload: bool,
    force: bool,
    instance: str,
    **given: Any,
) -> int:
    choices, workers = _choices(prefix, instance, given)
    live = installer.is_live(prefix)
    if live and given["program"] is None:
        _check_reachable(choices)
    kinds = ["service", "sysctl"]
    kinds += ["sysusers"] if choices.user != "root" else []
    kinds += ["socket"] if socket else []
    kinds += ["notify-reload"] if notify_reload else []
    kinds += ["low-ports"] if low_ports or (has_low_port(choices.settings) and not socket) else []
    steps = installer.install(
        prefix, choices, kinds, workers=workers, instance=instance, force=force
    )
    _tell(steps)
    if live:
        _tell_ran(installer.settle(steps))
        name = instance or "NAME"
        click.echo(f"next: write /etc/wssup/{name}.toml, then systemctl enable --now wssup@{name}")
        click.echo("      (/lib/systemd/systemd-sysctl, or the next boot, applies sysctl.d)")
    return OK


@command.command("uninstall", short_help="Remove the units.")
@click.option("--force", is_flag=True, help="Remove edited files, too.")
@_prefix_option
def _uninstall(*, prefix: Path, force: bool) -> int:
    """Remove what install wrote, and what enabled it. Configurations and the user stay.

    Units that run must be stopped first.
    """
    live = installer.is_live(prefix)
    if live and (running := installer.running()):
        raise CommandError(
            "refused",
            f"{', '.join(running)} still there",
            f"systemctl disable --now {' '.join(running)}",
        )
    steps = installer.uninstall(prefix, force=force)
    _tell(steps)
    if live:
        _tell_ran(installer.settle(steps))
    return OK


@command.command("show", short_help="Print a file that install would write.")
@click.argument("kind", type=click.Choice(KINDS), default="service")
@_choice_options
def _show(*, kind: str, prefix: Path, instance: str, **given: Any) -> int:
    """Print one file, the service unit by default. Nothing is written."""
    choices, workers = _choices(prefix, instance, given)
    sys.stdout.write(installer.text_of(kind, choices, workers))
    return OK


@command.command("verify", short_help="Check what is installed.")
@_prefix_option
def _verify(*, prefix: Path) -> int:
    """Check the installed files: that they are as they were written, what systemd-analyze says of
    them, and that the service is hardened (an exposure of 1.5 or less).
    """
    paths = installer.installed(prefix)
    if not paths:
        raise CommandError(
            "refused", f"nothing is installed below {prefix}", "wssup systemd install"
        )
    good = True
    for path in paths:
        state = installer.state_of(path)
        click.echo(f"{state:<10}{path}")
    units = [p for p in paths if p.suffix in {".service", ".socket"}]
    if found := installer.verified(units):
        good = False
        click.echo(found, err=True)
    for path in (p for p in paths if p.suffix == ".service"):
        score = installer.exposure(path)
        good = good and score <= _EXPOSURE
        click.echo(f"exposure  {score} of 10 ({_EXPOSURE} at most is meant)")
    return OK if good else FAILED


def _choices(prefix: Path, instance: str, given: dict[str, Any]) -> tuple[Choices, int]:
    config_file = given["config_file"]
    if instance and config_file is None:
        config_file = str(prefix / "etc/wssup" / f"{instance}.toml")
    # The name is checked as every name is: it becomes part of paths.
    loaded = load_instance({"name": instance} if instance else {}, config_file)
    group = given["group"] or given["user"]
    for name in (given["user"], group):
        if _USER.fullmatch(name) is None:
            raise UserError(f"{name!r} is no name of a user or group", "see useradd(8)")
    program = (given["program"],) if given["program"] is not None else installer.program()
    if not program[0].startswith("/"):
        raise UserError(f"--program {program[0]}: not an absolute path", "begin it with a slash")
    choices = Choices(
        program=program,
        settings=loaded.settings,
        paths=_paths(program, loaded, own=given["program"] is None),
        user=given["user"],
        group=group,
        nofile=given["nofile"],
    )
    return choices, _workers(loaded, given["nofile"])


def _paths(program: tuple[str, ...], loaded: Loaded, *, own: bool) -> tuple[str, ...]:
    paths = [program[0]]
    if own:
        paths.append(str(Path(sys.executable).resolve()))
    if loaded.sources["app_dir"] != DEFAULT:
        paths.append(loaded.settings.app_dir)
    return tuple(paths)


def _workers(loaded: Loaded, nofile: int) -> int:
    """How many workers the configuration means on this machine, at most."""
    from wssup.supervisor.limits import available_cpus  # noqa: PLC0415 - only here

    settings = loaded.settings
    # The most there can be: those of slots not in service are lent.
    return workers_meant(settings, cpus=available_cpus(), nofile=nofile, now=settings.max_workers)


def _check_reachable(choices: Choices) -> None:
    blocked = installer.unreachable(choices.paths[:2], choices.user)
    if blocked:
        raise UserError(
            f"user {choices.user} cannot run {choices.program[0]}: it may not pass {blocked}",
            "install wssup where all can reach it (pipx install --global; or a venv in /opt), or"
            " name its owner with --user",
        )


def _tell(steps: list[Step]) -> None:
    if not steps:
        click.echo("nothing is installed")
    for outcome, path in steps:
        click.echo(f"{outcome.value:<10}{path}")


def _tell_ran(commands: list[str]) -> None:
    for line in commands:
        click.echo(f"ran       {line}")
