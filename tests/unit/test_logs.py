"""Log lines as they are written, by processes of their own: logging is set up once per process."""

from __future__ import annotations

import json
from typing import Any

from tests.harness.fresh import python

_HEAD = """
import logging
from wssup import logs
sys.stderr = sys.stdout
"""


def lines(code: str) -> list[dict[str, Any]]:
    """The JSON lines that a piece of code logs; each must be a line of its own."""
    return [json.loads(line) for line in python(_HEAD + code).splitlines()]


def test_json_lines() -> None:
    """An event is one line of JSON with time, level and name first; fields follow, and what cannot
    be JSON is told as text; line feeds and text that is no Unicode stay inside the line.
    """
    (line, odd) = lines(
        "logs.configure('info', 'json')\n"
        "logs.get(slot=0, gen=2).info('worker_ready', seconds=1.5, path=os)\n"
        "logs.get().warning('odd', text='a\\nb\\udcff')\n"
    )
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    del line["timestamp"]
    assert line.pop("path").startswith("<module 'os'")
    expected = {"level": "info", "event": "worker_ready", "slot": 0, "gen": 2, "seconds": 1.5}
    assert line == expected
    assert odd["text"] == "a\nb\udcff"


def test_fields() -> None:
    """Whose line it is comes before what it says, wherever that was bound; a field without a value
    is left out.
    """
    (bound, whole) = lines(
        "logs.configure('info', 'json')\n"
        "logs.get(slot=1).info('one', first=1, none=None, zero=0, empty='')\n"
        "logs.bind(slot=2, gen=None)\n"
        "logs.get().info('two', first=1, slot=3)\n"
    )
    assert list(bound)[3:] == ["slot", "first", "zero", "empty"]
    assert list(whole)[3:] == ["slot", "first"]
    assert whole["slot"] == 3


def test_levels() -> None:
    """What is less important than the level is not logged, neither by us nor by the application;
    debug records of libraries never are: they tell of every frame.
    """
    found = lines(
        "names = ('debug', 'info', 'warning', 'error')\n"
        "for level in names:\n"
        "    logs.configure(level, 'json')\n"
        "    for name in names:\n"
        "        getattr(logs.get(at=level), name)('ours')\n"
        "        getattr(logging.getLogger(level), name)('theirs')\n"
    )
    names = ["debug", "info", "warning", "error"]
    for number, level in enumerate(names):
        ours = [line["level"] for line in found if line.get("at") == level]
        assert ours == names[number:]
        theirs = [line["level"] for line in found if line.get("logger") == level]
        assert theirs == names[max(1, number) :]


def test_what_is_logged_through_logging() -> None:
    """Records of logging come out in the same form, with the logger's name, its arguments put in,
    and tracebacks; also those of levels that only logging knows, and with odd arguments.
    """
    found = lines(
        "logs.configure('info', 'json')\n"
        "log = logging.getLogger('app.db')\n"
        "log.warning('%d rows, 100 %%', 7)\n"
        "log.warning('100 % sure {braces}')\n"
        "log.log(25, 'notice')\n"
        "log.critical('end')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('failed')\n"
    )
    assert [line["event"] for line in found] == [
        "7 rows, 100 %",
        "100 % sure {braces}",
        "notice",
        "end",
        "failed",
    ]
    assert {line["logger"] for line in found} == {"app.db"}
    assert [line["level"] for line in found] == ["warning", "warning", "info", "critical", "error"]
    assert "exception" not in found[0]
    assert "ZeroDivisionError: division by zero" in found[4]["exception"]


def test_the_library_says_nothing() -> None:
    """What trio-websocket logs of every client's fault is left to the engine."""
    code = "logs.configure('debug', 'json')\nlogging.getLogger('trio-websocket').error('x')\n"
    assert lines(code) == []


def test_bound_nouns() -> None:
    """After bind() every line names the process, the application's too; what a line says itself
    goes first.
    """
    found = lines(
        "logs.configure('info', 'json')\n"
        "early = logs.get()\n"
        "logs.bind(slot=1, pid=7)\n"
        "early.info('a')\n"
        "logs.get(pid=8).info('b')\n"
        "logging.getLogger('app').warning('c')\n"
    )
    assert [(line["slot"], line["pid"]) for line in found] == [(1, 7), (1, 8), (1, 7)]


def test_tracebacks_as_text() -> None:
    """A traceback that is given as text is a field, and none is no field."""
    found = lines(
        "logs.configure('info', 'json')\n"
        "logs.get().error('a', exception='Traceback…')\n"
        "logs.get().error('b', exception=None)\n"
    )
    assert [line.get("exception", "none") for line in found] == ["Traceback…", "none"]


def test_for_people() -> None:
    """The pretty form has the event, its fields and whole tracebacks in plain text; no colours
    where stderr is no terminal.
    """
    said = python(
        _HEAD + "logs.configure('info', 'pretty')\n"
        "logs.get(slot=0).info('worker_ready', seconds=1.5)\n"
        "logs.get().error('failed', exception='Traceback (most recent call last): …')\n"
    )
    first, *rest = said.splitlines()
    assert "worker_ready" in first
    assert "slot=0" in first
    assert "seconds=1.5" in first
    assert "\x1b" not in said
    assert any("Traceback (most recent call last): …" in line for line in rest)


def test_auto_means_json_where_nobody_looks() -> None:
    """Without a terminal ``auto`` is JSON lines."""
    (line,) = lines("logs.configure('info', 'auto')\nlogs.get().info('hello')\n")
    assert line["event"] == "hello"


def test_lines_of_several_processes_do_not_mix() -> None:
    """A line is written at once: what four processes log at the same time are whole lines."""
    found = lines(
        "sys.stderr = sys.__stderr__\n"
        "os.dup2(1, 2)\n"
        "logs.configure('info', 'json')\n"
        "for n in range(4):\n"
        "    if os.fork() == 0:\n"
        "        for _ in range(200): logs.get(n=n).info('x' * 300)\n"
        "        os._exit(0)\n"
        "for _ in range(4): os.wait()\n"
    )
    assert sorted(line["n"] for line in found) == sorted([0, 1, 2, 3] * 200)


def test_nobody_reads_any_more() -> None:
    """When whoever read stderr has left, logging goes on without an error."""
    said = python(
        """
        import logging
        from wssup import logs
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        logs.configure("info", "json")
        os.close(reader)
        os.close(writer)
        logs.get().info("to nobody")
        logging.getLogger("app").warning("to nobody")
        print("still here")
        sys.stdout.flush()
        os._exit(0)
        """
    )
    assert said == "still here\n"


def test_who_listens() -> None:
    """Who listens is told of every event from ``info`` on with its level, also of those that the
    log leaves out; of no line of a library; and nothing that it does wrong harms the log.
    """
    said = lines("""
told = []
logs.configure("error", "json")
logs.listen(lambda level, event: told.append((level, dict(event))))
log = logs.get(slot=1)
log.debug("too_small")
log.info("ready", seconds=2)
log.error("lost", reason="x")
logging.getLogger("library").error("words")
try:
    raise ValueError
except ValueError:
    log.exception("failed")
assert [(level, event["event"]) for level, event in told] == [
    ("info", "ready"), ("error", "lost"), ("error", "failed"),
], told
assert told[0][1] == {"slot": 1, "event": "ready", "seconds": 2}
logs.configure("info", "json")
logs.listen(lambda level, event: 1 / 0)
logs.get().info("still")
""")
    assert [line["event"] for line in said] == ["lost", "words", "failed", "still"]


def test_events_go_to_a_logger() -> None:
    """Inside another program an event is a line of that program's log: its name, its fields, and a
    traceback below; less important ones than that logger takes are not made.
    """
    told = python(
        _HEAD
        + """
log = logging.getLogger("gunicorn.error")
log.addHandler(logging.StreamHandler(sys.stdout))
log.setLevel(logging.INFO)
log.propagate = False
logs.configure_into(log)
logs.get().info("draining", open=3, exception=None)
logs.get().debug("closed")
try:
    1 / 0
except ZeroDivisionError as error:
    logs.get(slot=1).error("failed 100%", exc_info=error)
"""
    ).splitlines()
    assert told[:3] == [
        "draining open=3",
        "failed 100% slot=1",
        "Traceback (most recent call last):",
    ]
    assert told[-1] == "ZeroDivisionError: division by zero"
