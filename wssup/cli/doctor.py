"""``wssup doctor``: what caps the number of connections here."""

from __future__ import annotations

import json
import math
import os
import pwd
import re
import traceback
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from wssup.cli.client import Target
from wssup.cli.doctor_page import show
from wssup.cli.documents import Status, read
from wssup.cli.exits import OK, USAGE
from wssup.cli.options import instance_options, load_instance, setting_options, target_of
from wssup.cli.text import one_line, safe
from wssup.cli.visitor import told_by
from wssup.config.forms import NAME
from wssup.config.plan import workers_meant
from wssup.config.scaling import Autoscale
from wssup.config.settings import Settings, value_of
from wssup.doctor import collect, hardware, listeners
from wssup.doctor import server as servers
from wssup.doctor.checks import examine
from wssup.doctor.checks.server import examine_server
from wssup.doctor.facts import Facts, Hardware, Running
from wssup.doctor.findings import Finding, Verdict, overall
from wssup.doctor.fixes import Fix, fixes
from wssup.doctor.groups import unit_of
from wssup.doctor.plan import Plan, plan, plan_of_server
from wssup.doctor.report import document
from wssup.doctor.served import Server
from wssup.errors import CommandError, UserError
from wssup.kernel.sockets import same_network

__all__ = ["command"]

_HELP = """\
Say what caps the number of connections here, and what to change.

Limits of descriptors, memory and processes, queues and tables of the kernel, the
configuration's own limits, and what the kernel dropped while it looked: each
with what was found, what is needed, and a remedy to the letter. What is met
first stands first. Without --connections it says how many can be carried.

An instance that runs is looked at as it is: its limits, its memory, its
connections. Otherwise it is what `wssup serve` would have from here: as the same
user, in the same shell or unit.

\b
  wssup doctor
  wssup doctor --connections 50000 --reconnects-per-second 2000
  wssup doctor --connections 50000 --fix
  wssup doctor --pid 4711

--pid looks at any other server: its descriptors by kind, its sockets by state,
its queues, and how many connections it can carry. --fix prints files for sysctl.d,
limits.d and systemd; nothing is ever changed.

Exit status: 0 all is good, 1 there are warnings, 2 something will fail, or it
cannot look (not permitted, a mistake in the command or the configuration), 4 an
instance is there, but does not answer (--pid can look at it all the same).
"""
_STATUSES: Final = {Verdict.OK: OK, Verdict.WARN: 1, Verdict.FAIL: 2}
#: Settings that a running instance is asked for: what they are there counts.
_ASKED: Final = (
    *("reserve_fds", "worker_connections", "max_connections", "max_handshakes_per_second"),
    *("steering", "backlog", "interface", "trusted_proxies", "stall_after", "status", "bind"),
    *("max_surge", "max_workers"),
    *("heartbeat.ping_interval", "heartbeat.ping_timeout"),
)
_MOST: Final = 100_000_000
_OPTIONS: Final = ("workers", "bind", "trusted_proxies", "interface")


class _Number(click.FloatRange):
    """A range without NaN, which is neither below it nor above."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


@click.command("doctor", help=_HELP, short_help="Say what caps the number of connections here.")
@click.option(
    "--connections",
    "count",
    type=click.IntRange(1, _MOST),
    metavar="N",
    help="How many are to be carried. [default: the setting connections]",
)
@click.option(
    "--reconnects-per-second",
    "rate",
    type=_Number(0, 10_000_000, min_open=True),
    metavar="R",
    help="How many clients may come per second, after a failure of the network.",
)
@click.option(
    "--proxy-timeout",
    type=_Number(1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="The silence after which a proxy in front hangs up.",
)
@click.option("--pid", type=click.IntRange(1), help="Look at this server, of any kind.")
@click.option(
    "--seconds",
    type=_Number(0, 3600),
    default=1.0,
    show_default=True,
    help="How long the kernel's counters are watched.",
)
@click.option(
    "--hardware", "measured", is_flag=True, help="Also measure the rate of accepting, for 2 s."
)
@click.option("--fix", is_flag=True, help="Print files that mend it; nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print a document for programs.")
@setting_options(_OPTIONS)
@instance_options
def command(**given: Any) -> int:
    """Look, judge, tell. That it could not look is never the status of a warning."""
    try:
        return _told(**given)
    except CommandError as error:
        if error.code == "no_answer":
            raise
        raise UserError(f"cannot look at the instance: {error.message}", error.remedy) from None
    except (UserError, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception:  # noqa: BLE001 - Python's own status for it is that of a warning
        click.echo(safe(traceback.format_exc()), err=True, nl=False)
        return USAGE


def _told(
    *,
    count: int | None,
    rate: float | None,
    proxy_timeout: float,
    pid: int | None,
    seconds: float,
    measured: bool,
    fix: bool,
    as_json: bool,
    **given: Any,
) -> int:
    loaded = load_instance(given, given["config_file"])
    count = count or loaded.settings.connections or None
    cores = len(os.sched_getaffinity(0))
    speed = hardware.measure(cores, hardware.SECONDS) if measured else None
    server: Server | None = None
    if pid is not None:
        server, facts, wanted = _other(
            pid, count, rate=rate, cores=cores, seconds=seconds, speed=speed
        )
        findings = [*examine(facts, wanted), *examine_server(server)]
    else:
        facts, wanted = _own(
            target_of(given, loaded),
            loaded.settings,
            given,
            count=count,
            rate=rate,
            proxy_timeout=proxy_timeout,
            seconds=seconds,
            speed=speed,
        )
        findings = examine(facts, wanted)
    files = _fixes(findings, facts, other=pid is not None) if fix else []
    if as_json:
        found = document(findings, wanted, facts, server)
        if fix:
            found["fixes"] = {file.path: file.text for file in files}
        click.echo(json.dumps(found, indent=2))
    elif fix:
        for file in files:
            click.echo(f"# {one_line(file.path)}\n{safe(file.text)}")
    else:
        show(findings, wanted, facts)
    return _STATUSES[overall(findings)]


def _own(
    target: Target,
    settings: Settings,
    given: dict[str, Any],
    *,
    count: int | None,
    rate: float | None,
    proxy_timeout: float,
    seconds: float,
    speed: Hardware | None,
) -> tuple[Facts, Plan]:
    """What there is of wssup here: an instance that runs, or one that would."""
    from wssup.supervisor.limits import available_cpus  # noqa: PLC0415 - only here

    cores = available_cpus()
    running, status = _running(target)
    own: frozenset[int] | None = frozenset()
    most = 0
    if running is not None and status is not None:
        settings = _effective(target, settings, given)
        if not given["bind"]:
            # With the ports that the kernel chose.
            settings = msgspec.structs.replace(settings, bind=status.bind or settings.bind)
        # Those of another network namespace are not in the tables of this one.
        own = listeners.own_sockets([running.pid]) if same_network(running.pid) else None
        # As many as there may be: what is carried then is the question.
        most = status.autoscale.max if status.autoscale is not None else running.slots
    facts = collect.facts(
        cores=cores,
        running=running,
        counted=collect.counters(seconds, running.pid if running is not None else None),
        holders=listeners.holders(settings.bind, own),
        queues=listeners.queues(settings.bind, own) if running is not None else (),
        hardware=speed,
    )
    # One that is about to start has no slots yet; another one's number is its own matter, wherever
    # it was given.
    workers = most if given["workers"] is None else 0
    wanted = plan(
        settings,
        facts,
        workers=workers or _workers(settings, facts, cores),
        connections=count,
        reconnects_per_second=rate,
        proxy_timeout=proxy_timeout,
    )
    return facts, wanted


def _workers(settings: Settings, facts: Facts, cores: int) -> int:
    if isinstance(settings.workers, Autoscale):
        # As many as there may be: what is carried then is the question.
        return settings.workers.max
    nofile = facts.descriptors.hard or 0
    try:
        return workers_meant(settings, cpus=cores, nofile=nofile)
    except UserError:
        # They do not fit: the most there may be, so that the table says why.
        return settings.max_workers


def _running(target: Target) -> tuple[Running | None, Status | None]:
    """The instance, if one runs, and what it says of itself.

    :raises UserError: if it runs in a container, where process ids are others.
    """
    try:
        told = told_by(target)
        status = read(told.status, Status)
    except CommandError as error:
        if error.code != "not_running":
            raise
        return None, None
    if status.pid is None:
        return None, None
    told.check_pids("doctor")
    workers = [
        (worker.pid, worker.open)
        for slot in status.slots
        for worker in slot.workers
        if worker.pid is not None
    ]
    slots = status.workers or len(status.slots)
    return collect.running(status.name, status.pid, slots, workers), status


def _effective(target: Target, settings: Settings, given: dict[str, Any]) -> Settings:
    """The settings with those that the running instance has; options of this command are kept."""
    try:
        rows = {row["key"]: row["value"] for row in target.ask("config")["settings"]}
    except (KeyError, TypeError):
        return settings
    except CommandError as error:
        if error.code != "forbidden":
            raise
        return settings
    top: dict[str, Any] = {}
    beat: dict[str, Any] = {}
    for key in _ASKED:
        value = rows.get(key)
        value = tuple(value) if isinstance(value, list) else value
        if given.get(key) not in (None, ()) or not _usable(key, value, settings):
            continue
        table, dot, name = key.partition(".")
        (beat if dot else top)[name if dot else table] = value
    heartbeat = msgspec.structs.replace(settings.heartbeat, **beat)
    return msgspec.structs.replace(settings, heartbeat=heartbeat, **top)


def _usable(key: str, value: object, settings: Settings) -> bool:
    if key == "max_surge":
        return value == "all" or type(value) is int
    return _alike(value, value_of(settings, key))


def _alike(value: object, known: object) -> bool:
    """An instance of another version may have other kinds of values."""
    numbers = (int, float)
    if isinstance(known, numbers) and not isinstance(known, bool):
        return isinstance(value, numbers) and not isinstance(value, bool)
    return type(value) is type(known)


def _other(
    pid: int,
    count: int | None,
    *,
    rate: float | None,
    cores: int,
    seconds: float,
    speed: Hardware | None,
) -> tuple[Server, Facts, Plan]:
    """A server of any kind."""
    server = servers.look(pid)
    facts = collect.facts(
        cores=cores,
        running=servers.running(server),
        counted=collect.counters(seconds, pid),
        hardware=speed,
    )
    wanted = plan_of_server(server, facts, connections=count, reconnects_per_second=rate)
    return server, facts, wanted


def _fixes(findings: list[Finding], facts: Facts, *, other: bool) -> list[Fix]:
    """The files. What a process says of itself is in none of them: they are root's.

    :param other: it is a server of any kind.
    """
    running = facts.running
    if running is None:
        return fixes(findings, user=_user(os.geteuid()), unit="wssup@NAME.service")
    unit = unit_of(running.pid) if other else _instance_unit(running.name)
    try:
        user = _user(Path(f"/proc/{running.pid}").stat().st_uid)
    except OSError:
        user = "USER"  # It has ended.
    return fixes(findings, user=user, unit=unit or "NAME.service")


def _instance_unit(name: str) -> str | None:
    """The unit that `wssup systemd` makes for an instance; ``None`` if none can have that name."""
    return f"wssup@{name}.service" if re.fullmatch(NAME.pattern, name) else None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
