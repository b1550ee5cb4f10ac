"""A reload of wssup with many live connections, some of which talk all the time."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.native import MeasureError
from benchmarks.engine.servers import APPS
from benchmarks.handoff.clients import Report, crowd, not_let_in, started
from benchmarks.handoff.reloads import Watched, memory, reload
from benchmarks.handoff.samples import Seen, Span, seen
from tests.harness.instance import Instance

#: Seconds until what opening connections left to do is done, and that are watched before a reload
#: and after it.
_CALM, _BEFORE, _AFTER = 2.0, 3.0, 2.0
#: Clients that come and go per second meanwhile.
KNOCKS = 100
#: What the tests' harness shortens is left at its default here, but for the time in which new
#: workers must prove themselves.
_SETTINGS: dict[str, object] = {
    "name": "bench",
    "log_level": "info",
    "settle": 1,
    "drain_window": None,
    "drain_timeout": None,
    "backoff_min": None,
}
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """An instance to reload.

    :param name: as in the options; ``title`` as in the tables.
    :param app: its application, in ``benchmarks/apps``.
    """

    name: str
    title: str
    app: str
    workers: int = 2


EVENT = Case("wssup-event", "wssup, event style", "numbered_event:app")
TASK = Case("wssup-task", "wssup, task style, `@wssup.resumable`", "numbered_task:app")
MANY = Case("wssup-many", "wssup, event style", "numbered_event:app", workers=8)


@contextmanager
def instance(case: Case) -> Iterator[Instance]:
    """An instance that runs; it ends with the block.

    :raises MeasureError: if it does not start.
    """
    home = Path(tempfile.mkdtemp(prefix="wssup-bench-"))
    try:
        running = Instance(
            home,
            "",
            _SETTINGS | {"app": case.app, "app_dir": str(APPS), "workers": case.workers},
        )
        try:
            running.running()
            yield running
        except AssertionError as error:
            raise MeasureError(str(error).replace(f"{home}/", "")) from None
        finally:
            running.end()
    finally:
        shutil.rmtree(home)


def thought(case: Case, think_ms: int) -> int:
    """How long talkers think, in ms: the more workers share this machine, the longer, because each
    message then wakes another one.
    """
    return think_ms * case.workers // 2


def port_of(running: Instance) -> int:
    """Where an instance listens."""
    return int(running.address().rpartition(":")[2])


def measured(case: Case, connections: int, talkers: int, think_ms: int) -> dict[str, float]:
    """The figures of one reload, by name.

    :param think_ms: between an answer and the next text, with two workers.
    :raises MeasureError: if it cannot be measured.
    """
    think_ms = thought(case, think_ms)
    with instance(case) as running:
        port, file = port_of(running), running.home / "samples"
        with crowd(port, connections, talkers=talkers, think_ms=think_ms, samples=file) as people:
            time.sleep(_CALM)
            before = memory(running)
            with started("knock", port=port, rate=KNOCKS) as knocking:
                time.sleep(_BEFORE)
                watched = reload(running)
                time.sleep(_AFTER)
                knocked = knocking.ask("stop")
            told = people.finished()
            after = memory(running)
        saw = seen(file, Span(*watched.moving), Span(watched.began, watched.ended))
    found = _figures(watched, told, saw, connections)
    found |= {
        "not_let_in": not_let_in(knocked),
        "knocks": knocked["begun"],
        "slowest_connect_ms": knocked["slowest_ms"],
        "before_mib": before / _MIB,
        "most_mib": watched.most / _MIB,
        "after_mib": after / _MIB,
    }
    # Where nothing moved there is no pause.
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _figures(watched: Watched, told: Report, saw: Seen, connections: int) -> dict[str, float]:
    moved, seconds = told["moved"], (saw.moving.ended - saw.moving.began) / 1e9
    return {
        "live": connections,
        "moved": moved,
        "moved_counted": watched.moved,
        "disconnected": sum(told["closed"].values()),
        "answers": told["answered"],
        "lost": told["lost"],
        "doubled": told["doubled"],
        "reordered": told["reordered"],
        "wrong": sum(told[how] for how in ("lost", "doubled", "reordered", "miscounted")),
        "miscounted": told["miscounted"],
        "moving_s": seconds,
        "moved_per_s": moved / seconds if seconds else 0.0,
        "seen_moved_per_s": moved / saw.spread if saw.spread else 0.0,
        "usual_ms": saw.usual,
        "answers_per_s": saw.per_second,
        "pause_p50_ms": saw.moving.quantile(0.5),
        "pause_p99_ms": saw.moving.quantile(0.99),
        "pause_max_ms": saw.moving.quantile(1),
        "added_p99_ms": saw.moving.quantile(0.99) - saw.usual,
        "reload_p50_ms": saw.reload.quantile(0.5),
        "reload_p99_ms": saw.reload.quantile(0.99),
        "reload_max_ms": saw.reload.quantile(1),
        "seconds": (watched.ended - watched.began) / 1e9,
        "told_p99_ms": watched.result.get("pause_p99_ms") or 0.0,
    }
