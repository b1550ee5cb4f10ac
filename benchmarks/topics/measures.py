"""One round of each measurement, by clients in C (``native/topics.c``)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from benchmarks.engine.figures import Figures
from benchmarks.engine.measures import attempt, told
from benchmarks.engine.native import BUILD, MeasureError
from benchmarks.engine.pace import Pace
from benchmarks.engine.servers import Server
from benchmarks.topics.options import Options
from benchmarks.topics.servers import BY_NAME, beside, serving

__all__ = ["MEASURES", "ROOM", "ROOMS"]

#: What is measured, by name.
ROOM, ROOMS = "room", "rooms"
#: Topics and publishers of many rooms, and messages that are on their way at full load.
TOPICS, PUBLISHERS, FLYING = 1000, 200, 256
#: Bytes of each message.
SIZE = 100
#: Seconds until the clients must have ended.
_PATIENCE = 300.0


def room(options: Options, figures: Figures, pace: Pace) -> None:
    """One publisher to everybody: as fast as it goes, and one message at a time."""
    for name in options.servers:
        server = BY_NAME[name]
        with attempt(figures, ROOM, server), serving(server) as port:
            crowd = {"port": port, "subscribers": options.subscribers}
            found = _clients(options, server, pace, window=2, **crowd)
            figures.add(ROOM, name, _without_times(found), doubtful=not found["steady"])
            alone = _clients(options, server, pace, window=1, **crowd)
            times = {key: alone[key] for key in ("last_p50_ms", "last_p99_ms")}
            figures.add(ROOM, name, times, doubtful=not alone["steady"])
            told(
                f"  {name}: {found['deliveries_per_s']:,.0f}/s, {found['per_cpu_s']:,.0f} per CPU "
                f"second, {alone['last_p50_ms']:.1f} ms until all have it ({pace.last})"
            )


def rooms(options: Options, figures: Figures, pace: Pace) -> None:
    """Many publishers to many topics: as fast as it goes, and at half of that."""
    for name in options.servers:
        server = BY_NAME[name]
        with attempt(figures, ROOMS, server), serving(server) as port:
            crowd = {"port": port, "subscribers": options.subscribers, "topics": TOPICS}
            crowd |= {"publishers": PUBLISHERS}
            found = _clients(options, server, pace, window=FLYING, **crowd)
            rate = max(1, round(found["publishes_per_s"] / 2))
            half = _clients(options, server, pace, rate=rate, **crowd)
            if half["publishes_per_s"] < 0.95 * rate:
                raise MeasureError(f"it did not follow {rate} messages/s, half of what it can do")
            figures.add(ROOMS, name, _without_times(found), doubtful=not found["steady"])
            times = {
                key: value
                for key, value in half.items()
                if key.endswith("_ms") and (half["cross_share"] or "cross" not in key)
            }
            times |= {"half_rate": rate, "half_load_cpu": half["load_cpu"]}
            # Half of what a slow machine can do would be too easy for it at its own pace.
            steady = found["steady"] and half["steady"]
            figures.add(ROOMS, name, times, doubtful=not steady)
            told(
                f"  {name}: {found['deliveries_per_s']:,.0f}/s, {found['per_cpu_s']:,.0f} per CPU "
                f"second; at half of it p99 {half['each_p99_ms']:.1f} ms, "
                f"to another worker {half['cross_p99_ms']:.1f} ms "
                f"({pace.last})"
            )


def _without_times(figures: dict[str, float]) -> dict[str, float]:
    """Those of a full load: what waits in its queues is no time of the server's."""
    return {key: value for key, value in figures.items() if not key.endswith("_ms")}


MEASURES = {ROOM: room, ROOMS: rooms}


def _clients(options: Options, server: Server, pace: Pace, **further: int) -> dict[str, float]:
    """Run publishers and subscribers to their end, at the machine's own pace; the figures that they
    printed.

    :param further: options of ``native/topics.c``, by name.
    :raises MeasureError: if they failed, or a message did.
    """
    given = {"seconds": options.seconds, "warmup": options.seconds / 4, "size": SIZE, **further}
    return pace.measured(lambda watch: _ran(server, {**given, **watch}), options.seconds)


def _ran(server: Server, given: Mapping[str, object]) -> dict[str, float]:
    """The same, with these options."""
    command = [str(BUILD / "topics")]
    for name, value in given.items():
        command += [f"--{name}", str(value)]
    with beside(server):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    try:
        out, err = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise MeasureError("the clients did not end") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise MeasureError(err.decode().strip() or str(process.returncode))
    figures: dict[str, float] = json.loads(out)
    if figures["errors"]:
        raise MeasureError(f"{figures['errors']:.0f} errors: {err.decode().strip()}")
    return figures
