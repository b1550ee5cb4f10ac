"""The chat's page in headless Chromium: people on two workers, and on two instances that share a
Redis, talk while workers are replaced and killed. `make e2e` installs both.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.e2e.chromium import FLAGS
from tests.e2e.common import Start
from tests.e2e.example_page import Tab
from tests.harness import processes
from tests.harness.instance import Instance
from tests.harness.ports import free_port

#: Of the page: what was said, in the order in which it is shown; who is there; notes between.
_SAID = "[...document.querySelectorAll('#log .said')].map(l => l.querySelector('p').textContent)"
_WAITING = "document.querySelectorAll('#log .how').length"
_NAMES = "[...document.querySelectorAll('#names li')].map(l => l.textContent)"
_NOTES = "[...document.querySelectorAll('#log .note')].map(l => l.textContent)"
_HISTORY = "document.getElementById('history').textContent"
_SERVED = "document.getElementById('served').textContent"
_STATE = "document.getElementById('state')?.textContent ?? ''"
#: Says something four times a second, without a pause, until it is told to stop.
_TALK = """
    window.spoken = 0;
    window.talking = setInterval(() => say(`{0} ${{++window.spoken}}`), 250);
"""
#: A tab that is not in front is not put to sleep: its timers are part of the claim.
_AWAKE = ["--disable-background-timer-throttling", "--disable-renderer-backgrounding"]
_PATIENCE = 60.0


class Browser:
    """Chromium, with any number of pages."""

    def __init__(self, address: str, path: str, stack: ExitStack) -> None:
        self._address = address
        self._stack = stack
        self._itself = self._tab(path)

    def open(self, url: str) -> Tab:
        """Open a page."""
        page = self._itself.call("Target.createTarget", url=url)["targetId"]
        return self._tab(f"/devtools/page/{page}")

    def _tab(self, path: str) -> Tab:
        url = f"ws://{self._address}{path}"
        return Tab(self._stack.enter_context(connect(url, max_size=1 << 26, proxy=None)))


@contextmanager
def browser(home: Path, *instances: Instance) -> Iterator[Browser]:
    """Chromium, beside these instances; ended with all it started."""
    before = processes.descendants()
    profile = home / "profile"
    options = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--window-size=900,640"]
    with (home / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["chromium", *FLAGS, *_AWAKE, *options, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        port_file = profile / "DevToolsActivePort"
        processes.until(
            lambda: port_file.exists() and "/" in port_file.read_text(), 60, "the browser"
        )
        with ExitStack() as stack:
            port, path = port_file.read_text().split()
            yield Browser(f"127.0.0.1:{port}", path, stack)
    finally:
        # Some of its processes leave their parents and become children of this one.
        theirs = set(before)
        for instance in instances:
            theirs |= {instance.pid} | processes.descendants(instance.pid)
        while ours := {pid for pid in processes.descendants() - theirs if processes.alive(pid)}:
            processes.end(ours)
        process.wait(10)


class Chat:
    """The example as an instance, and its page's address."""

    def __init__(self, start: Start, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        port = free_port()
        # Each instance is started with its own.
        monkeypatch.setenv("PAGE_PORT", str(port))
        topics = {"history": 100} | settings.pop("topics", {})
        self.instance = start(app="wssup.examples.chat:app", topics=topics, **settings)
        self.instance.running()
        self.page = f"http://127.0.0.1:{port}/?ws={self.instance.url()}"

    def url(self, name: str) -> str:
        """The page of somebody."""
        return f"{self.page}&name={name}#lobby"


def enter(pages: Browser, url: str) -> Tab:
    """Open a page that joins by itself."""
    page = pages.open(url)
    shows(page, _STATE, lambda text: "connected as" in text, "to be in")
    return page


def two_workers(pages: Browser, chat: Chat) -> tuple[Tab, Tab]:
    """Ada and Ben, on two workers."""
    ada = enter(pages, chat.url("Ada"))
    for _ in range(50):
        ben = enter(pages, chat.url("Ben"))
        if ben.value(_SERVED) != ada.value(_SERVED):
            return ada, ben
        ben.call("Page.close")
    raise AssertionError("all pages are on one worker")


def write(page: Tab, text: str) -> None:
    """Type a line where the page has put the cursor, and press Enter."""
    page.call("Page.bringToFront")
    page.call("Input.insertText", text=text)
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            text="\r" if kind == "keyDown" else "",
            windowsVirtualKeyCode=13,
        )


def run(page: Tab, script: str) -> None:
    """Run a script in the page, whatever its value is."""
    assert "exceptionDetails" not in page.call("Runtime.evaluate", expression=script)


def shows(page: Tab, expression: str, fact: Any, what: str) -> Any:
    """Wait until the page shows this; what it shows."""
    seen: list[Any] = [None]

    def look() -> bool:
        seen[0] = page.value(expression)
        return bool(fact(seen[0]) if callable(fact) else seen[0] == fact)

    try:
        processes.until(look, _PATIENCE, what)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen[0]}, {page.value(_STATE)}") from None
    return seen[0]


#: What each says at least, however short what happens is.
_SPOKEN = 6


class Talk:
    """All talk without a pause while something happens.

    :param about: what they say, in one word.
    """

    def __init__(self, about: str, *pages: Tab) -> None:
        self._about = about
        self._pages = pages

    def __enter__(self) -> None:
        for number, page in enumerate(self._pages):
            run(page, _TALK.format(f"{self._about} {number}"))

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        for page in self._pages:
            if failed is None:
                shows(page, "window.spoken", lambda n: n >= _SPOKEN, "enough to be said")
            run(page, "clearInterval(window.talking)")

    def heard(self) -> int:
        """Wait until all pages show all that all have said, each once and in its order."""
        counts = [page.value("window.spoken") for page in self._pages]
        for page in self._pages:
            shows(page, _WAITING, 0, "everything to be sent")
            for number, count in enumerate(counts):
                head = f"{self._about} {number} "
                expected = [f"{head}{n + 1}" for n in range(count)]

                heard = f"{_SAID}.filter(text => text.startsWith('{head}'))"
                shows(
                    page, f"{heard}.length", lambda n, least=count: n >= least, "all that was said"
                )
                assert page.value(heard) == expected
        return sum(counts)


def test_two_people_on_two_workers(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pages on two workers talk without a pause through a reload, and nothing is lost, shown
    twice, or noticed; then one's worker is killed: the page comes back and shows what it missed.
    With PICTURES the page's look is saved there.
    """
    chat = Chat(start, monkeypatch)
    with browser(tmp_path, chat.instance) as pages:
        ada, ben = two_workers(pages, chat)
        write(ada, "Is anybody here?")
        shows(ben, _SAID, ["Is anybody here?"], "what Ada says")
        write(ben, "Me! On another worker, <b>as</b> it seems.")
        shows(ada, _SAID, lambda texts: len(texts) == 2, "what Ben says")
        for page, names in ((ada, ["Ada (you)", "Ben"]), (ben, ["Ada", "Ben (you)"])):
            shows(page, _NAMES, names, "both")
        talk = Talk("reload", ada, ben)
        with talk:
            done = chat.instance.run("reload")
            assert done.returncode == 0, done.stdout + done.stderr
            for page in (ada, ben):
                shows(page, _HISTORY, "moved 1 ×, reconnected 0 ×", "the move")
        assert talk.heard() >= 2 * _SPOKEN
        # The death of Ben's worker; Ada, if hers is another, does not notice.
        talk = Talk("death", ada, ben)
        with talk:
            pid = int(ben.value("$('served').title").removeprefix("process "))
            os.kill(pid, signal.SIGKILL)
            shows(ben, _HISTORY, "moved 1 ×, reconnected 1 ×", "Ben to come back")
            shows(ben, _STATE, lambda text: "connected as Ben" in text, "Ben to be back")
        talk.heard()
        assert not [x for x in ben.value(_NOTES) if "missing" in x]
        for page, names in ((ada, ["Ada (you)", "Ben"]), (ben, ["Ada", "Ben (you)"])):
            shows(page, _NAMES, names, "both again")
        picture(pages, chat, ada, ben)


def picture(pages: Browser, chat: Chat, ada: Tab, ben: Tab) -> None:
    """Save what the page looks like, with something sensible in it."""
    folder = os.environ.get("PICTURES")
    if not folder:
        return
    page = enter(pages, chat.url("Cy").replace("#lobby", "#tea"))
    for one in (ada, ben):
        one.call("Page.bringToFront")
        run(one, "go('tea')")
        shows(one, _STATE, lambda text: "connected as" in text, "the other room")
    write(ada, "The kettle is on. Who wants some?")
    shows(ben, _SAID, lambda texts: len(texts) == 1, "what Ada says")
    write(ben, "Me, please! Which worker are you on?")
    shows(ada, _SAID, lambda texts: len(texts) == 2, "what Ben says")
    write(ada, "I have been on three since this morning, and did not notice.")
    shows(page, _SAID, lambda texts: len(texts) == 3, "what Ada says")
    done = chat.instance.run("reload")
    assert done.returncode == 0, done.stdout + done.stderr
    shows(page, _HISTORY, "moved 1 ×, reconnected 0 ×", "the move")
    write(page, "Nor did I, just now ☕")
    shows(page, _WAITING, 0, "what Cy says")
    page.call("Page.bringToFront")
    page.picture(Path(folder) / "chat.png")
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    phone(page)
    page.picture(Path(folder) / "chat-phone.png")
    page.call("Page.close")


def phone(page: Tab) -> None:
    """Have the page on a phone's screen."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=844,
        deviceScaleFactor=1,
        mobile=True,
    )


def test_for_everybody(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page can be used with the keyboard alone and on a phone; its parts have names and roles
    for who does not see it; and its policy lets no script run that is not its own.
    """
    chat = Chat(start, monkeypatch)
    with browser(tmp_path, chat.instance) as pages:
        page = pages.open(chat.page)
        shows(page, "document.activeElement?.id ?? ''", "name", "the cursor in the first field")
        write(page, "Ada")
        shows(page, _STATE, "connected as Ada", "to be in")
        assert page.value("document.activeElement.id") == "text"
        assert page.value("location.hash") == "#lobby"
        write(page, "<img src=x onerror='window.hacked = 1'>")
        shows(page, _WAITING, 0, "what was said")
        assert page.value(_SAID) == ["<img src=x onerror='window.hacked = 1'>"]
        assert page.value("document.images.length") == 0
        hack = "document.body.append(Object.assign(document.createElement('script'), {text: '%s'}))"
        run(page, hack % "window.hacked = 1")
        assert page.value("typeof window.hacked") == "undefined"
        assert page.value("getComputedStyle(document.body).display") == "grid"
        found = page.call("Accessibility.getFullAXTree")["nodes"]
        parts = {
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in found
            if not node["ignored"]
        }
        assert {
            ("log", "What is said"),
            ("textbox", "Your message"),
            ("button", "Send"),
            ("navigation", "Rooms"),
            ("complementary", "1 here"),
            ("status", ""),
        } <= parts
        phone(page)
        size = page.value("[document.documentElement.scrollWidth, innerWidth, scrollY]")
        assert size == [390, 390, 0]
        bottom = page.value(
            "document.querySelector('#compose button').getBoundingClientRect().bottom"
        )
        assert bottom <= 844
        # Another room, and back by the browser's own button.
        run(page, "document.querySelector('nav a[href=\"#tea\"]').click()")
        shows(page, "document.title", "tea: chat", "the other room")
        shows(page, _SAID, [], "an empty room")
        run(page, "history.back()")
        shows(page, _SAID, lambda texts: len(texts) == 1, "the first room, with its history")
        # One that is not in the list.
        run(page, "document.getElementById('other').click()")
        assert page.value("document.activeElement.id") == "name"
        run(page, "document.getElementById('room').select()")
        write(page, "Caf\N{LATIN SMALL LETTER E WITH ACUTE} 9")
        shows(
            page, "document.title", "caf\N{LATIN SMALL LETTER E WITH ACUTE} 9: chat", "a new room"
        )
        shows(page, _STATE, "connected as Ada", "to be in")
        shows(page, _NAMES, ["Ada (you)"], "who is there")


@contextmanager
def redis(home: Path) -> Iterator[str]:
    """A Redis of its own; its address."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (home / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            ["redis-server", *options], cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    try:
        processes.until(answers, _PATIENCE, "redis-server")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_two_people_on_two_instances(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same page of two instances that share a Redis: both hear all, also while one of them is
    reloaded.
    """
    with redis(tmp_path) as bus:
        settings = {"workers": 1, "topics": {"bus": bus}}
        east = Chat(start, monkeypatch, name="east", **settings)
        west = Chat(start, monkeypatch, name="west", **settings)
        with browser(tmp_path, east.instance, west.instance) as pages:
            ada, ben = enter(pages, east.url("Ada")), enter(pages, west.url("Ben"))
            assert "east" in ada.value(_SERVED)
            assert "west" in ben.value(_SERVED)
            write(ada, "Is anybody in the west?")
            shows(ben, _SAID, ["Is anybody in the west?"], "what Ada says")
            write(ben, "I am.")
            shows(ada, _SAID, lambda texts: len(texts) == 2, "what Ben says")
            talk = Talk("reload", ada, ben)
            with talk:
                done = west.instance.run("reload")
                assert done.returncode == 0, done.stdout + done.stderr
                shows(ben, _HISTORY, "moved 1 ×, reconnected 0 ×", "the move")
            assert talk.heard() >= 2 * _SPOKEN
            assert ada.value(_HISTORY) == "moved 0 ×, reconnected 0 ×"
