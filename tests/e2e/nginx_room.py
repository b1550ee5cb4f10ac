"""What convinces an operator: a FastAPI room behind the real nginx, full of people, and deploys.

``make e2e`` does it with 9 000 people and four reloads, and installs nginx, tcpdump and Chromium;
``make e2e-room`` with twenty. ``WSSUP_PEOPLE`` and ``WSSUP_ROOM_RELOADS`` say otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

import wssup.examples
from tests.e2e.chat_page import browser, shows
from tests.e2e.common import Start
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.nginx import PATH, errors, nginx

PEOPLE = int(os.environ.get("WSSUP_PEOPLE", "9000"))
RELOADS = int(os.environ.get("WSSUP_ROOM_RELOADS", "4"))
#: Seconds between two messages to everybody.
_PAUSE = 0.5
_PATIENCE = 120.0
_EXAMPLES = Path(wssup.examples.__file__).parent


def application(version: str, *, fails: bool = False) -> str:
    """The example's source, as a version of it is deployed: its people hear what is said to
    everybody, too.
    """
    text = (_EXAMPLES / "fastapi_room.py").read_text()
    text = text.replace('VERSION: Final = "1"', f'VERSION: Final = "{version}"')
    text = text.replace(
        "Path(__file__).with_suffix", f"Path({str(_EXAMPLES / 'fastapi_room.py')!r}).with_suffix"
    )
    subscribe = '            extension["subscribe"](topic)\n'
    assert subscribe in text
    text = text.replace(subscribe, subscribe + subscribe.replace("topic", '"everybody"'))
    accept = "    await ws.accept()\n"
    assert accept in text
    broken = '    raise LookupError("what only the new code looks for")\n'
    return text.replace(accept, broken + accept) if fails else text


class People:
    """The crowd's process."""

    def __init__(self, address: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.crowd", address, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def tell(self, command: str) -> Any:
        """Tell them something; what they answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        return json.loads(self._process.stdout.readline() or "null")

    def end(self) -> None:
        """They leave."""
        with self._process:
            self._process.kill()


class Capture:
    """tcpdump, which notes whom nginx closes or resets: the ports of clients on 127.0.0.1."""

    def __init__(self, home: Path, port: str) -> None:
        self._out, self._log = home / "packets", home / "tcpdump.log"
        what = f"src port {port} and dst host 127.0.0.1 and tcp[tcpflags] & (tcp-fin|tcp-rst) != 0"
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    shutil.which("tcpdump", path=PATH) or "",
                    "-i",
                    "lo",
                    "-n",
                    "-l",
                    "-B",
                    "65536",
                    what,
                ],
                stdout=out,
                stderr=log,
            )
        processes.until(lambda: "listening on" in self._log.read_text(), 20, "tcpdump")

    def end(self) -> set[int]:
        """Whom it has seen."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        assert "\n0 packets dropped by kernel" in self._log.read_text(), self._log.read_text()
        return {int(port) for port in re.findall(r"> 127\.0\.0\.1\.(\d+): ", self._out.read_text())}

    def kill(self) -> None:
        """End it, whatever it has seen."""
        self._process.kill()
        self._process.wait(20)


class Speaker(threading.Thread):
    """Says numbers to everybody, through the master.

    :ivar said: the last one.
    :ivar quiet: held while nothing may be said.
    """

    def __init__(self, instance: Instance) -> None:
        super().__init__(daemon=True)
        self._instance = instance
        self._over = threading.Event()
        self.said = 0
        self.quiet = threading.Lock()
        self.failures: list[str] = []

    def run(self) -> None:
        """Until the end."""
        while not self._over.wait(_PAUSE):
            with self.quiet:
                try:
                    answer = self._instance.ask(
                        "publish", topic="everybody", data=f"n {self.said + 1}"
                    )
                except OSError as error:
                    answer = {"error": str(error)}
                if "result" in answer:
                    self.said += 1
                else:
                    self.failures.append(repr(answer))

    def end(self) -> int:
        """Say no more; the last number."""
        self._over.set()
        self.join(60)
        return self.said


class Newcomers(threading.Thread):
    """Come in by nginx all the time, from another address than all others; some ask for the page.

    :ivar wrong: what was no welcome.
    """

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._over = threading.Event()
        self.welcome = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until the end."""
        host, _, port = self._address.rpartition(":")
        while not self._over.wait(0.02):
            try:
                sock = socket.create_connection(
                    (host, int(port)), timeout=20, source_address=("127.0.0.2", 0)
                )
                url = f"ws://{self._address}/ws?name=new&room=new"
                with connect(url, sock=sock, proxy=None, close_timeout=5) as ws:
                    assert str(ws.recv(timeout=20)).startswith("served ")
                if self.welcome % 10 == 0:
                    self._page(host, int(port))
                self.welcome += 1
            except (OSError, AssertionError, HTTPException, WebSocketException) as error:
                self.wrong.append(repr(error))

    @staticmethod
    def _page(host: str, port: int) -> None:
        asking = HTTPConnection(host, port, timeout=20, source_address=("127.0.0.2", 0))
        with contextlib.closing(asking):
            asking.request("GET", "/")
            assert b"<title>A room</title>" in asking.getresponse().read()

    def end(self) -> None:
        """No more of them."""
        self._over.set()
        self.join(60)


@contextmanager
def scene(start: Start, home: Path, count: int) -> Iterator[tuple[Instance, str, People]]:
    """An instance behind nginx, with all people in."""
    instance = start(
        application("1"),
        worker="uvicorn",
        asgi_resumable=True,
        workers=2,
        bind=f"unix:{home}/ws",
        trusted_proxies=["unix"],
        settle=1.0,
        log_level="info",
    )
    instance.running()
    with nginx(instance, "--connections", str(count + 50)) as address:
        people = People(address, count)
        try:
            everybody = lambda: people.tell("report")["inside"] == count  # noqa: E731
            processes.until(everybody, _PATIENCE, "everybody to be in")
            yield instance, address, people
        finally:
            people.end()


@pytest.mark.timeout(1800)
def test_deploys_behind_nginx(start: Start, tmp_path: Path) -> None:
    """People in rooms talk and hear numbered messages through reloads, one of them to code that
    fails when somebody comes in, and the death of a worker. Those whom that worker served are
    disconnected, once, and come again. Nobody else is; nothing is lost or comes twice; and tcpdump
    sees no FIN and no RST to anybody else. Newcomers are let in all the time, but for those whom
    the failing code met. (In the moment of the kill nothing is said to everybody: what a worker is
    just passing on dies with it.)
    """
    with contextlib.ExitStack() as stack, scene(start, tmp_path, PEOPLE) as found:
        instance, address, people = found
        capture = Capture(tmp_path, address.rpartition(":")[2])
        stack.callback(capture.kill)
        speaker, newcomers = Speaker(instance), Newcomers(address)
        for thread in (speaker, newcomers):
            thread.start()
            stack.callback(thread.end)
        people.tell("talk 20")
        began = time.monotonic()
        expected_losses, killed, good = set[int](), 0, 0
        for number in range(1, RELOADS + 1):
            fails = number == max(1, RELOADS // 3)
            if number == max(1, 2 * RELOADS // 3):
                wrong = len(newcomers.wrong)
                killed = _kill_one(instance, people, speaker, expected_losses)
                # At most one came in at a time.
                del newcomers.wrong[wrong : wrong + 1]
            wrong = len(newcomers.wrong)
            instance.source.write_text(application(str(number + 1), fails=fails))
            told = instance.run("reload", timeout=_PATIENCE)
            said = told.stdout + told.stderr
            assert told.returncode == int(fails), said
            if fails:
                assert "handlers raised" in said, said
                # Those who met the failing code.
                del newcomers.wrong[wrong:]
            else:
                good += 1
                assert "0 disconnected" in said, said
        seconds = time.monotonic() - began
        people.tell("talk 0")
        last = speaker.end()
        processes.until(lambda: people.tell(f"heard {last}"), _PATIENCE, "all to have heard all")
        newcomers.end()
        _wait_at_home(instance, people)
        report = people.tell("report")
        ports = capture.end()
        print(  # noqa: T201 - make e2e shows figures
            f"\n{PEOPLE} people, {RELOADS} reloads in {seconds:.0f} s, {last} messages to all, "
            f"{report['said']} in rooms, {newcomers.welcome} newcomers, "
            f"{len(expected_losses)} on the killed worker"
        )
        assert report["problems"] == []
        assert not speaker.failures
        assert not newcomers.wrong
        assert newcomers.welcome > RELOADS
        assert report["inside"] == PEOPLE
        assert report["versions"] == [str(RELOADS + 1)]
        assert {served for served, _, _ in report["losses"]} == {killed}
        lost = {port for _, port, _ in report["losses"]}
        assert lost == expected_losses
        # They got theirs, so it would have seen those of others, too.
        assert ports == lost
        assert report["least_moves"] >= good - 2 * RELOADS // 3
        _assert_counted(instance)
        broken = "while proxying upgraded connection"
        assert not [line for line in errors(tmp_path) if broken not in line]
        assert len(errors(tmp_path)) <= len(lost) + 1


def _kill_one(instance: Instance, people: People, speaker: Speaker, losses: set[int]) -> int:
    """Kill a worker, and wait until those are in again whom it served; their ports are noted."""
    pid = instance.workers()[0]
    _wait_at_home(instance, people)
    with speaker.quiet:
        processes.until(
            lambda: people.tell(f"heard {speaker.said}"), _PATIENCE, "all to have heard all"
        )
        people.tell("talk 0")
        before = people.tell("report")
        os.kill(pid, signal.SIGKILL)
    count = before["served"][str(pid)]
    assert count

    def again() -> bool:
        now = people.tell("report")
        return now["inside"] == PEOPLE and len(now["losses"]) >= count

    processes.until(again, _PATIENCE, "them to come again")
    found = people.tell("report")["losses"]
    assert len(found) == count, (count, found)
    losses |= {port for _, port, _ in found}
    instance.running()
    people.tell("talk 20")
    return pid


def _wait_at_home(instance: Instance, people: People) -> None:
    """Wait until everybody has been told by whom it is served."""
    pids = {str(pid) for pid in instance.workers().values()}
    processes.until(
        lambda: set(people.tell("report")["served"]) <= pids, _PATIENCE, "all to be at home"
    )


def _assert_counted(instance: Instance) -> None:
    """Every connection is accounted for, and who is in is open."""
    status = instance.wait(
        lambda s: s["connections"]["active"] == PEOPLE, "the newcomers to be gone"
    )
    counts = status["connections"]
    by_reason = counts["closed_by_reason"]
    assert by_reason["worker_died"] > 0
    assert not {reason for reason in ("drain", "deadline", "slow") if by_reason.get(reason)}
    assert (
        counts["accepted"]
        == counts["open"]
        + sum(
            sum(counts[kind].values())
            for kind in ("closed_by_reason", "refused_by_reason", "handshake_failures_by_reason")
        )
        + counts["http_closed"]
    ), counts
    assert status["handoff"]["refused_by_reason"].get("resume_failed", 0) == 0


_LOG = "[...document.querySelectorAll('#log .said')].map(l => l.textContent)"
_STATE = "document.getElementById('state')?.textContent ?? ''"
_LOSSES = "Number(document.getElementById('state').dataset.losses || 0)"


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not here (tests/skips.md)")
def test_a_browser_chats_across_a_reload(start: Start, tmp_path: Path) -> None:
    """Two pages of the room, opened through nginx, hear each other before, during and after a
    reload; neither is disconnected, and both are served by the new version then.
    """
    with scene(start, tmp_path, 30) as (instance, address, _), browser(tmp_path, instance) as tabs:
        ada, ben = (tabs.open(f"http://{address}/?name={name}") for name in ("Ada", "Ben"))
        for page in (ada, ben):
            shows(page, _STATE, lambda text: "served by version 1" in text, "to be in")
        ada.call("Runtime.evaluate", expression="say('hello')")
        shows(ben, _LOG, ["Ada: hello"], "hello")
        ben.call(
            "Runtime.evaluate", expression="window.n = 0; setInterval(() => say(`${++n}`), 100)"
        )
        instance.source.write_text(application("2"))
        assert instance.run("reload").returncode == 0
        for page in (ada, ben):
            shows(page, _STATE, lambda text: "served by version 2" in text, "the new version")
        said = shows(ada, _LOG, lambda lines: len(lines) > 20, "what Ben counts")
        assert said == ["Ada: hello", *(f"Ben: {n}" for n in range(1, len(said)))]
        assert ada.value(_LOSSES) == ben.value(_LOSSES) == 0
