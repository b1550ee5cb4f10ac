"""The observer's life under the master, with real processes that play it: in a process of their
own, because the master's reaper takes every status there is.
"""

from __future__ import annotations

import textwrap

from tests.harness.fresh import reaping

#: What all observers begin with.
_PLAYER = """
import contextlib, os, signal, socket, sys, time
sys.path.append(sys.argv[1])
from wssup.start import CHANNEL
from wssup.status import lines
end = socket.socket(fileno=CHANNEL)
shown = socket.socket(fileno=CHANNEL + 1)
buffer, waiting = bytearray(), []
def hear():
    while not waiting:
        try:
            chunk = end.recv(1 << 20)
        except ConnectionResetError:  # it closed without having read what was said last
            return None
        if not chunk:
            return None
        buffer.extend(chunk)
        waiting.extend(lines.split(buffer))
    return lines.to_observer(waiting.pop(0))
def say(line):
    with contextlib.suppress(BrokenPipeError):  # the master is through with us; hear() ends, too
        end.sendall(lines.encode(line))
def tell(*words):
    sys.stdout.write(" ".join(map(str, words)) + chr(10))
    sys.stdout.flush()
"""

_SETTING = """
    import tempfile
    from types import SimpleNamespace
    import structlog.testing
    from tests.unit.observer.scenes import facts
    from wssup.config import load
    from wssup.errors import CommandError
    from wssup.supervisor import observer_link, observing, process
    from wssup.supervisor.lifecycle import Lifecycle
    from wssup.supervisor.observing import Observing
    directory = tempfile.mkdtemp()
    os.environ["GATE"] = directory + "/gate"
    loaded = load(
        cli={{"runtime_dir": directory, "backoff_min": "20ms", "backoff_max": "50ms",
              "hang_after": "{hang}", "stall_after": "100ms", "ready_timeout": "30s",
              "publish_token_file": {file!r}}},
        environ={{}}, cwd=directory,
    )
    known = facts()
    observer_link.facts = lambda master: known
    observer_link._TURN, observing._LOOK = 0.1, 0.05
    process._DUMP_GRACE, observing._END_GRACE = 0.05, 5
    published = []
    async def publish(topic, data, *, text):
        published.append((topic, data, text))
        if topic == "slow":
            await trio.sleep_forever()
        if topic == "bad":
            raise CommandError("bad_argument", "no such topic")
        return 7
    async def never():
        await trio.sleep_forever()
    master = SimpleNamespace(
        settings=loaded.settings,
        scoreboard=SimpleNamespace(name="wssup-board"),
        lifecycle=Lifecycle(),
        fleet=SimpleNamespace(wait_changed=never, publishing=SimpleNamespace(publish=publish)),
    )
    shown = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    shown.bind(directory + "/status.sock")
    shown.listen(5)
    made = Observing(master, [shown], processes=processes, boot={boot!r})
    def happen(number):
        master.lifecycle.record("info", {{"event": "e", "number": number}})
    def events():
        return [line["event"] for line in logged if line["log_level"] != "debug"]
    with structlog.testing.capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
"""


def play(observer: str, master: str, hang: str = "30s", file: str = "") -> list[str]:
    """What both print while a process plays the observer."""
    boot = _PLAYER + textwrap.dedent(observer)
    setting = textwrap.dedent(_SETTING).format(boot=boot, hang=hang, file=file)
    scene = textwrap.indent(textwrap.dedent(master), " " * 8)
    return reaping(setting + scene).splitlines()


def test_its_first_words_and_its_end() -> None:
    """An observer is told who the instance is, then what has happened, then the facts, and again
    only what is new; it has the status socket, and ends when the master closes the channel.
    """
    said = play(
        """
        begin = hear()
        tell(begin.version == lines.VERSION, begin.instance, begin.scoreboard, begin.token_file)
        tell(shown.getsockname().rpartition("/")[2])
        first = [hear() for _ in range(4)]
        say(lines.Ready())
        tell(*(type(line).__name__ for line in first))
        pings = news = 0
        while (line := hear()) is not None:
            if isinstance(line, lines.Ping):
                pings += 1
                say(lines.Pong(line.number))
            else:
                news += 1
                tell(type(line).__name__, getattr(line, "event", {}).get("number"))
            open(os.environ["GATE"] + f".{news}.{pings > 1}", "w").close()
        tell("end", pings > 1)
        """,
        """
        def heard(news, pinged):
            return lambda: os.path.exists(os.environ["GATE"] + f".{news}.{pinged}")
        happen(1)
        happen(2)
        await until(lambda: logged)
        happen(3)
        await until(lambda: heard(1, True)() or heard(1, False)())
        known = facts(generation=8)
        observer_link.facts = lambda master: known
        await until(heard(2, True))
        await made.end()
        print(made.pid, made.restarts, made.path.rpartition("/")[2], made.bind == "")
        [ready] = logged
        assert ready["event"] == "observer_ready" and ready["socket"] == made.path, logged
        """,
    )
    assert said == [
        "True default wssup-board ",
        "status.sock",
        "Ping Happened Happened News",
        "Happened 3",
        "News None",
        "end True",
        "None 0 status.sock True",
    ]


def test_it_is_started_again() -> None:
    """An observer that dies, says why it ends, speaks nonsense, or says more than it may, is
    started again, and the reason stands in the log.
    """
    said = play(
        """
        number = len(os.listdir(os.environ["GATE"])) if os.path.isdir(os.environ["GATE"]) else 0
        os.makedirs(os.environ["GATE"] + f"/{number}")
        hear()
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 1:
            say(lines.Failed("no board"))
        elif number == 2:
            end.sendall(b"nonsense" + bytes([10]))
        elif number == 3:
            with contextlib.suppress(OSError):
                end.sendall(b"x" * (1 << 20))
        if number < 4:
            sys.exit(3)
        while hear() is not None:
            pass
        """,
        """
        await until(lambda: made.restarts == 4 and made.pid)
        await made.end()
        for line in logged:
            if line["event"] == "observer_lost":
                print(line["reason"])
        assert set(events()) == {"observer_lost"}, logged
        """,
    )
    assert said[:2] == ["killed by SIGKILL", "no board"]
    assert said[2].startswith("a line of 8 bytes is not understood")
    assert said[3] == "a line longer than 524288 bytes"


def test_one_that_does_not_read() -> None:
    """For an observer that reads nothing, nothing piles up in the master, whatever happens
    meanwhile: when it reads again it hears of the last events and of the newest facts.
    """
    said = play(
        """
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        numbers, generation = [], 0
        while generation != 999 or numbers[-1] != 49999:
            line = hear()
            if isinstance(line, lines.Happened):
                numbers.append(line.event["number"])
            elif isinstance(line, lines.News):
                generation = line.facts.generation
        tell(numbers == sorted(set(numbers)), len(numbers) < 10_000)
        tell(*numbers[-3:])
        open(os.environ["GATE"] + ".done", "w").close()
        while hear() is not None:
            pass
        """,
        """
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        await until(lambda: made.pid)
        padding = "x" * 900
        for number in range(50_000):
            master.lifecycle.record("info", {"event": "e", "number": number, "text": padding})
            if number % 500 == 0:
                known = facts(60, generation=number)
                observer_link.facts = lambda master: known
                await trio.sleep(0.002)
            if number == 10_000:
                before = resident()
        grown = resident() - before
        assert grown < 4 << 20, grown
        known = facts(60, generation=999)
        observer_link.facts = lambda master: known
        open(os.environ["GATE"], "w").close()
        await until(lambda: os.path.exists(os.environ["GATE"] + ".done"))
        await made.end()
        assert not events(), logged
        """,
    )
    assert said == ["True True", "49997 49998 49999"]


def test_one_that_hangs() -> None:
    """An observer that does not answer is ended, with its stacks in the log if it can, also while
    there is no room to say anything to it; one that answers lives on.
    """
    said = play(
        """
        hear()
        if not os.path.exists(os.environ["GATE"]):
            open(os.environ["GATE"], "w").close()
            say(lines.Pong(0))
            time.sleep(60)
        while (line := hear()) is not None:
            if isinstance(line, lines.Ping):
                say(lines.Pong(line.number))
        """,
        """
        await until(lambda: made.restarts)
        await until(lambda: made.pid)
        survivor = made.pid
        await trio.sleep(5)
        assert made.pid == survivor and made.restarts == 1
        await made.end()
        [lost] = [line for line in logged if line["event"] == "observer_lost"]
        print(lost["reason"][:20])
        """,
        hang="4s",
    )
    assert said == ["it did not answer fo"]


def test_one_that_does_not_end() -> None:
    """An observer that goes on although its channel is closed is killed in the end, and a stop
    waits no longer for it.
    """
    said = play(
        """
        while hear() is not None:
            pass
        time.sleep(60)
        """,
        """
        observing._STOP_GRACE, observing._END_GRACE = 0.2, 60
        pid = await until(lambda: made.pid)
        began = trio.current_time()
        await made.end()
        await gone(pid)
        print(trio.current_time() - began < 20, made.restarts)
        """,
    )
    assert said == ["True 0"]


def test_publishing() -> None:
    """It may publish if there is a token, so many at a time; it is answered each, with the number
    of subscribers or the reason.
    """
    player = """
        hear()
        topics = enumerate(("a", "bad", *["slow"] * 40), 1)
        end.sendall(b"".join(lines.encode(lines.Publish(n, t, True, b"x")) for n, t in topics))
        answers = []
        while len(answers) < int(os.environ["ANSWERS"]):
            line = hear()
            if isinstance(line, lines.Published):
                answers.append((line.question, line.subscribers, line.code))
        open(os.environ["GATE"] + ".done", "w").close()
        tell(sorted(answers)[:2], len([a for a in answers if a[2] == "busy"]))
        while hear() is not None:
            pass
        """
    scene = """
        os.environ["ANSWERS"] = "{answers}"
        await until(lambda: os.path.exists(os.environ["GATE"] + ".done"))
        await made.end()
        print(sorted(published)[:1], len(published))
        """
    said = play(player, scene.format(answers=12), file="/some/file")
    assert said == [
        "[(1, 7, ''), (2, 0, 'bad_argument')] 10",
        "[('a', b'x', True)] 32",
    ]
    said = play(player, scene.format(answers=42))
    assert said == ["[(1, 0, 'forbidden'), (2, 0, 'forbidden')] 0", "[] 0"]


def test_a_mistake_of_ours() -> None:
    """An error while the facts are made ends the observer, and nothing else; another is started."""
    said = play(
        """
        while hear() is not None:
            pass
        """,
        """
        def wrong(master):
            raise RuntimeError("a mistake")
        right, observer_link.facts = observer_link.facts, wrong
        await until(lambda: made.restarts == 2)
        observer_link.facts = right
        await until(lambda: made.pid)
        await made.end()
        print("it goes on")
        assert set(events()) == {"observing_failed", "observer_lost"}, events()
        """,
    )
    assert said == ["it goes on"]


def test_none() -> None:
    """Without sockets there is no observer, and its end is no matter."""
    said = play(
        "",
        """
        other = Observing(master, [], processes=processes)
        await other.run()
        await other.end()
        print(other.pid, other.restarts, repr(other.path))
        await made.end()
        """,
    )
    assert said == ["None 0 ''"]
