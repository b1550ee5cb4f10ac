"""One ASGI application on wssup's two classes of workers and on the servers that it runs on
otherwise: WebSocket echo, memory of idle connections, plain HTTP. ``make bench-asgi``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.engine import machine, native, peers
from benchmarks.engine.bars import Bar, judged
from benchmarks.engine.figures import Figures
from benchmarks.engine.measures import attempt, told
from benchmarks.engine.servers import Running, Server, serving
from benchmarks.engine.tables import Column, main_figure, table
from tests.harness import processes

_APP = {"echo": "asgi_echo:app"}
SERVERS = (
    Server("wssup-uvicorn", "wssup, class uvicorn", app=_APP, settings={"worker": "uvicorn"}),
    Server("wssup-trio", "wssup, trio", app=_APP),
    Server("uvicorn", "uvicorn websockets-sansio, uvloop", peer="asgi_uvicorn.py"),
    Server("hypercorn", "hypercorn, trio", peer="asgi_hypercorn.py"),
    Server("granian", "granian, uvloop", peer="asgi_granian.py"),
)
MEASUREMENTS = ("echo", "memory", "http")
#: Numbers of connections of the echo, and of HTTP.
ECHOING, ASKING = (50, 1000), 50
#: Seconds of one figure, and to warm up before it.
SECONDS, WARMUP = 3.0, 0.75
#: Connections that a server opens and closes before its memory is measured, and seconds until it
#: has done what there is to do.
WARMING, SETTLED = 400, 3.0
_CONDITIONS = (
    "- one worker each, all with the same application; no compression, no access log, no "
    "middleware; texts of 32 B, a browser's handshake; HTTP: a GET of 400 B, 13 B of text come back"
)


def main() -> int:
    """Measure and print; 1 if something could not be measured."""
    wanted = _parsed()
    machine.prepared()
    native.build()
    peers.install()
    figures = Figures()
    began = time.monotonic()
    company = machine.Company()
    servers = [server for server in SERVERS if server.name in wanted.servers]
    for number in range(1, wanted.runs + 1):
        told(f"run {number} of {wanted.runs} ({(time.monotonic() - began) / 60:.1f} min)")
        if {"echo", "http"} & set(wanted.only):
            _busy(servers, wanted.only, figures)
        if "memory" in wanted.only:
            _idle(servers, wanted.held, figures)
    took = (
        f"- medians of {wanted.runs} interleaved runs, in {(time.monotonic() - began) / 60:.0f} "
        f"minutes, while others took {company.share():.0%} of the processors"
    )
    lines = [
        "## ASGI applications",
        "",
        *machine.described(peers.versions()),
        took,
        _CONDITIONS,
        "",
    ]
    lines += _tables(figures, wanted.held)
    text = "\n".join(lines)
    print(text)
    if wanted.output:
        wanted.output.write_text(text + "\n")
    return 1 if figures.notes else 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asgi", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds; default 5")
    parser.add_argument(
        "--only", type=_list, default=MEASUREMENTS, metavar="A,B", help=", ".join(MEASUREMENTS)
    )
    names = tuple(server.name for server in SERVERS)
    parser.add_argument(
        "--servers", type=_list, default=names, metavar="A,B", help=", ".join(names)
    )
    parser.add_argument(
        "--held", type=int, default=5000, metavar="N", help="idle connections; default 5000"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    return parser.parse_args()


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@contextmanager
def _serving(server: Server) -> Iterator[Running]:
    """Run a server; granian serves in a child."""
    with serving(server) as running:
        if server.name != "granian":
            yield running
            return
        (child,) = processes.children(running.pid)
        yield Running(server, running.port, child)


def _busy(servers: Sequence[Server], only: Sequence[str], figures: Figures) -> None:
    """Echo and HTTP: all servers side by side, but only one at a time is busy."""
    with ExitStack() as stack:
        running: list[Running] = []
        for server in servers:
            with attempt(figures, "start", server):
                running.append(stack.enter_context(_serving(server)))
        if "echo" in only:
            for connections in ECHOING:
                _each(running, f"echo {connections}", figures, _echo(connections))
        if "http" in only:
            _each(running, "http", figures, lambda one: _http(one.port, one.pid, keep=1))
            _each(running, "http closed", figures, lambda one: _http(one.port, one.pid, keep=0))


def _each(
    running: Sequence[Running],
    what: str,
    figures: Figures,
    measure: Callable[[Running], dict[str, float]],
) -> None:
    for one in running:
        with attempt(figures, what, one.server):
            found = measure(one)
            machine.quiet(one.pid)
            figures.add(what, one.server.name, found)
            told(f"  {what}, {one.server.name}: {next(iter(found.values())):,.0f}/s")


def _echo(connections: int) -> Callable[[Running], dict[str, float]]:
    def measure(one: Running) -> dict[str, float]:
        found = native.load(
            "echo", one.port, SECONDS, warmup=WARMUP, connections=connections, size=32, pid=one.pid
        )
        return {"messages_per_s": found.pop("messages_per_s"), **found}

    return measure


def _http(port: int, pid: int, *, keep: int) -> dict[str, float]:
    command = [str(native.BUILD / "http"), "--port", str(port), "--pid", str(pid)]
    command += ["--keep", str(keep), "--connections", str(ASKING)]
    command += ["--seconds", str(SECONDS), "--warmup", str(WARMUP)]
    with machine.pinned(machine.processors()[1]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise native.MeasureError(done.stderr.strip() or f"http ended with {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _idle(servers: Sequence[Server], held: int, figures: Figures) -> None:
    """Memory, of each server in turn."""
    for server in servers:
        with attempt(figures, "memory", server), _serving(server) as running:
            native.load("handshakes", running.port, 30, count=WARMING)
            time.sleep(SETTLED)
            before = processes.pss(running.pid)
            with native.holding(running.port, held) as holding:
                time.sleep(SETTLED)
                holding.intact()
                each = (processes.pss(running.pid) - before) / held
            figures.add("memory", server.name, {"bytes": each, "base": before / 1024 / 1024})
            told(f"  memory, {server.name}: {each:,.0f} bytes per connection")


def _over(figure: str, form: str = ".2f") -> Column:
    return Column("÷ uvicorn", figure, form, "uvicorn")


def _rates(title: str, figure: str) -> tuple[Column, ...]:
    return (
        *main_figure(title, figure),
        _over(figure),
        Column("p50 µs", "p50_us"),
        Column("p99 µs", "p99_us"),
        Column("server's CPU µs each", "server_cpu_us", ".1f"),
    )


_MEMORY = (
    *main_figure("bytes per connection", "bytes"),
    _over("bytes", ".3f"),
    Column("MiB without connections", "base", ".1f"),
)


def _bars() -> Iterator[Bar]:
    for name, title in (("wssup-uvicorn", "class uvicorn"), ("wssup-trio", "trio")):
        for connections in ECHOING:
            text = f"{title}, echo, {connections} connections: × uvicorn"
            yield Bar(text, f"echo {connections}", "messages_per_s", name, "uvicorn", 1.2)
        text = f"{title}, bytes per idle connection: × uvicorn"
        yield Bar(text, "memory", "bytes", name, "uvicorn", 0.4, most=True)
    text = "class uvicorn, HTTP requests/s: × uvicorn"
    yield Bar(text, "http", "requests_per_s", "wssup-uvicorn", "uvicorn", 0.97)


def _tables(figures: Figures, held: int) -> list[str]:
    parts: list[tuple[str, str, Sequence[Column]]] = [
        (
            f"WebSocket echo, {number} connections",
            f"echo {number}",
            _rates("messages/s", "messages_per_s"),
        )
        for number in ECHOING
    ]
    parts += [
        (f"Memory (PSS) of {held} idle WebSockets", "memory", _MEMORY),
        (f"HTTP, {ASKING} kept-alive connections", "http", _rates("requests/s", "requests_per_s")),
        (
            f"HTTP, a connection per request, {ASKING} at a time",
            "http closed",
            _rates("requests/s", "requests_per_s"),
        ),
    ]
    lines: list[str] = []
    for heading, what, columns in parts:
        if figures.measured(what):
            lines += [f"### {heading}", "", *table(figures, what, columns, SERVERS), ""]
    lines += judged(figures, tuple(_bars()))
    if figures.notes:
        lines += ["### Not measured", "", *(f"- {note}" for note in figures.notes), ""]
    return lines[:-1]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
