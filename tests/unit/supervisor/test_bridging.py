"""The bridge's life under the master, with real processes that play it: in a process of their own,
because the master's reaper takes every status there is.
"""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest

from tests.harness.fresh import reaping
from wssup.config import load
from wssup.errors import UserError
from wssup.supervisor import bridging

_MARK = "pAssw0rd"

_FINISH = """
board.close()
board.unlink()
"""
#: What all bridges begin with.
_PLAYER = """
import os, signal, socket, sys, time
sys.path.append(sys.argv[1])
from wssup import channel
from wssup.messages import PROTOCOL, Bridge, Failed, Hello, Peers
from wssup.scoreboard import Scoreboard
from wssup.start import CHANNEL
end = socket.socket(fileno=CHANNEL)
order = channel.receive(end).message
"""

_SETTING = """
    import secrets, tempfile
    import structlog.testing
    from wssup.config import load
    from wssup.scoreboard import Scoreboard
    from wssup.supervisor import bridging as module, process
    from wssup.supervisor.bridging import Bridging
    directory = tempfile.mkdtemp()
    url = "redis://u:{mark}@127.0.0.1:1/0"
    loaded = load(
        cli={{"topics.bus": url, "runtime_dir": directory, "backoff_min": "20ms",
              "backoff_max": "50ms", "hang_after": "{hang}", "stall_after": "100ms",
              "ready_timeout": "{ready}"}},
        environ={{}}, cwd=directory,
    )
    board = Scoreboard.create("unit." + secrets.token_hex(6), directory, 2, 1)
    joined, left, serials = [], [], iter(range(7, 99))
    class Mesh:
        def join(self, node): joined.append(node)
        def leave(self, serial): left.append(serial)
    made = Bridging(
        lambda: loaded.settings, processes=processes, scoreboard=board, mesh=Mesh(),
        next_serial=lambda: next(serials), node="cafe0123", boot={boot!r},
    )
    module._LOOK = process._DUMP_GRACE = 0.05
    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
"""


def play(bridge: str, master: str, hang: str = "30s", ready: str = "30s") -> str:
    """What the master's side prints while a process plays the bridge."""
    boot = _PLAYER + textwrap.dedent(bridge)
    setting = textwrap.dedent(_SETTING).format(boot=boot, mark=_MARK, hang=hang, ready=ready)
    scene = textwrap.indent(textwrap.dedent(master), " " * 8)
    return reaping(setting + scene + _FINISH)


def test_its_first_words_and_its_end() -> None:
    """A bridge is told who and where it is, with the password that nobody else is told; it joins
    the mesh with its first word, and ends when the master closes the channel.
    """
    said = play(
        """
        assert isinstance(order, Bridge)
        topics = order.settings["topics"]
        known = (order.protocol == PROTOCOL, order.instance, order.node, order.serial)
        text = f"{known} {topics['bus']} {order.scoreboard}"
        writer = Scoreboard.attach(order.scoreboard).bridge_writer()
        writer.begin(order.serial)
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        assert channel.receive(end) is None
        sys.stdout.write(text + chr(10))
        """,
        """
        await until(lambda: joined)
        assert made.wanted and made.pid and not made.error
        print(joined[0].serial, board.bridge().serial, made.restarts, left)
        sys.stdout.flush()
        await made.end(20)
        print(made.pid, made.restarts, left, board.name)
        assert [line["event"] for line in logged] == ["bridge_started"], logged
        assert "pAssw0rd" not in str(logged)
        assert "redis://u:***@127.0.0.1:1/0" in str(logged)
        """,
    ).splitlines()
    assert said[0] == "7 7 0 []"
    name = said[2].split()[-1]
    assert said[1] == f"(True, 'default', 'cafe0123', 7) redis://u:{_MARK}@127.0.0.1:1/0 {name}"
    assert said[2].startswith("None 0 [7] ")


def test_it_is_started_again() -> None:
    """A bridge that dies, in whatever way, is started again, with a number of its own; why it died
    is known until the next one has said its name.
    """
    said = play(
        """
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        if order.serial == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        elif order.serial == 8:
            sys.exit(3)
        elif order.serial == 9:
            channel.send(end, Failed("it rains", ""))
            sys.exit(1)
        while channel.receive(end) is not None:
            pass
        """,
        """
        await until(lambda: len(joined) == 4)
        print([node.serial for node in joined], left, made.restarts, repr(made.error))
        print([line["reason"] for line in logged if line["event"] == "bridge_lost"])
        await made.end(20)
        """,
    ).splitlines()
    assert said == [
        "[7, 8, 9, 10] [7, 8, 9] 3 ''",
        "['killed by SIGKILL', 'exited with status 3', 'it rains']",
    ]


def test_one_with_old_settings_is_replaced() -> None:
    """After a change of the settings of topics the bridge is asked to end, and another one is
    started with the new ones; that counts as no loss. Other changes leave it alone.
    """
    said = play(
        """
        topics = order.settings["topics"]
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        assert channel.receive(end) is None
        sys.stdout.write(f"{order.serial} kept {topics['history']}" + chr(10))
        """,
        """
        await until(lambda: joined)
        made.renew()
        def again(**changes):
            return load(
                cli={"topics.bus": url, "runtime_dir": directory} | changes,
                environ={}, cwd=directory,
            )
        loaded = again(workers="3")
        made.renew()
        assert not made._renewing
        loaded = again(**{"topics.history": "5"})
        made.renew()
        made.renew()
        await until(lambda: len(joined) == 2)
        assert (made.restarts, made.error, left) == (0, "", [7])
        await made.end(20)
        print([line["event"] for line in logged])
        """,
    ).splitlines()
    assert said == [
        "7 kept 0",
        "8 kept 5",
        "['bridge_started', 'bridge_renewed', 'bridge_started']",
    ]


def test_one_that_speaks_another_language() -> None:
    """A bridge of another protocol is ended, joins nothing, and the reason is known."""
    said = play(
        """
        channel.send(end, Hello(PROTOCOL + 1, os.getpid()))
        time.sleep(60)
        """,
        """
        module._END_GRACE = 0.05
        await until(lambda: made.restarts)
        print(joined, made.error)
        await made.end(0.1)
        """,
    )
    assert said.startswith("[] it speaks protocol ")


def test_one_that_hangs_is_ended() -> None:
    """A bridge whose loop stands still is ended after hang_after and replaced; so is one that never
    says a word. One that beats stays.
    """
    said = play(
        """
        writer = Scoreboard.attach(order.scoreboard).bridge_writer()
        if order.serial == 8:
            time.sleep(60)
        writer.begin(order.serial)
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        writer.heartbeat(time.monotonic_ns())
        if order.serial == 7:
            time.sleep(60)
        end.setblocking(False)
        while True:
            try:
                if channel.receive(end) is None:
                    break
            except BlockingIOError:
                writer.heartbeat(time.monotonic_ns())
                time.sleep(0.02)
        """,
        """
        await until(lambda: [node.serial for node in joined] == [7, 9])
        await trio.sleep(5)  # Longer than hang_after, in which it must not be ended.
        print(made.restarts, left)
        print([line["reason"].partition(" for ")[0]
               for line in logged if line["event"] == "bridge_lost"])
        await made.end(20)
        """,
        hang="4s",
        ready="6s",
    ).splitlines()
    assert said == ["2 [7, 8]", "['its loop did not turn', 'its loop did not turn']"]


def test_one_that_does_not_end_is_killed() -> None:
    """At a stop a bridge gets its grace and is killed then."""
    said = play(
        """
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        while True:
            time.sleep(60)
        """,
        """
        await until(lambda: joined)
        pid = made.pid
        await made.end(0.1)
        print(made.pid, processes.alive(pid), [line["event"] for line in logged])
        """,
    )
    assert said == "None False ['bridge_started', 'bridge_overdue']\n"


def test_a_stop_between_two_bridges() -> None:
    """A stop while the next try is waited for does not wait for it."""
    said = play(
        "sys.exit(1)",
        """
        module.Backoff.lost = lambda *_, **__: 60.0
        await until(lambda: made.restarts)
        with trio.fail_after(10):
            await made.end(20)
        print(made.pid)
        """,
    )
    assert said == "None\n"


def test_one_that_does_not_read() -> None:
    """What a bridge with a full channel is told fails, for the mesh to try again; and what is sent
    to one that is gone is no error.
    """
    said = play(
        """
        channel.send(end, Hello(PROTOCOL, os.getpid()))
        time.sleep(60)
        """,
        """
        from wssup.messages import Peers
        await until(lambda: joined)
        try:
            while True:
                joined[0].post(Peers(list(range(10000))), [])
        except OSError as error:
            print(error.strerror)
        await made.end(0.1)
        joined[0].post(Peers([1]), [])
        """,
    )
    assert said == "the bridge does not read its messages\n"


def test_an_embedded_bus_has_none() -> None:
    """Without a server there is no process, at any time."""
    said = play(
        "",
        """
        loaded = load(cli={}, environ={}, cwd=directory)
        other = Bridging(
            lambda: loaded.settings, processes=processes, scoreboard=board, mesh=Mesh(),
            next_serial=lambda: 1 / 0, node="cafe0123",
        )
        await other.run()
        print(other.wanted, other.pid)
        await other.end(20)
        await made.end(0)
        """,
    )
    assert said == "False None\n"


def test_the_library_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without the library that speaks to it is an error of the configuration, which names
    what to install; the embedded bus needs none.
    """
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    bridging.check(load(cli={}, environ={}, cwd=str(tmp_path)).settings)
    settings = load(cli={"topics.bus": "redis://h"}, environ={}, cwd=str(tmp_path)).settings
    with pytest.raises(UserError, match=r"wssup\[redis\]"):
        bridging.check(settings)
