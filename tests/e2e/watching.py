"""Chromium with the dashboard open, driven by Playwright, and clients that talk meanwhile."""

from __future__ import annotations

import math
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import trio

from tests.e2e.common import Start
from tests.harness import processes
from tests.harness.clients import PATIENCE, connected
from tests.harness.instance import Instance
from tests.harness.observer import request
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Milliseconds.
_WAIT = 60_000
#: Notes what the policy of the page forbade.
_NOTES = """
    window.violations = [];
    document.addEventListener('securitypolicyviolation',
        (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
#: All numbers that the page takes from the document as they are, by their path in it.
_SHOWN = """() => ({
    at: Number(document.documentElement.dataset.at),
    values: Object.fromEntries([...document.querySelectorAll('[data-path]')]
        .filter((node) => node.hasAttribute('value'))
        .map((node) => [node.dataset.path, Number(node.value)])),
    texts: Object.fromEntries([...document.querySelectorAll('[data-path]')]
        .map((node) => [node.dataset.path, node.textContent])),
    slots: [...document.querySelectorAll('#slot-rows data')].map((node) => Number(node.value)),
    generations: [...document.querySelectorAll('#chart-connections .legend li')]
        .map((node) => node.textContent),
    headline: document.getElementById('headline').textContent,
    verdict: document.getElementById('verdict').className,
    problems: document.getElementById('problems').innerText,
    news: document.getElementById('news').textContent,
    events: document.getElementById('events').innerText,
    words: [...document.querySelectorAll('#slot-rows .word')].map((node) => node.textContent),
})"""


class Watched:
    """An instance with an observer on a port of its own."""

    def __init__(self, start: Start, application: str = "", **settings: Any) -> None:
        port = free_port()
        self.instance: Instance = start(
            application, status=True, status_bind=f"127.0.0.1:{port}", **settings
        )
        self.instance.running()
        self.address = f"http://127.0.0.1:{port}"
        processes.until(self._answers, 60, "the observer")

    def _answers(self) -> bool:
        try:
            self.status()
        except OSError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """What ``/status`` says."""
        found: dict[str, Any] = request(self.instance, "/status").json()
        return found

    def observer(self) -> int:
        """The observer's process, once it runs."""
        status = self.instance.wait(lambda s: s["observer"]["pid"], "an observer")
        return int(status["observer"]["pid"])


class Dashboard:
    """The page.

    :ivar complaints: what the browser's console said in warning, and errors of scripts.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(_WAIT)
        page.add_init_script(_NOTES)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def go(self, address: str) -> Self:
        """Load it."""
        self.page.goto(f"{address}/", wait_until="domcontentloaded")
        return self

    def _heard(self, message: Any) -> None:
        if message.type in {"warning", "error"}:
            self.complaints.append(message.text)

    def wait(self, expression: str, argument: object = None) -> None:
        """Wait until an expression of JavaScript holds."""
        self.page.wait_for_function(expression, arg=argument)

    def shown(self, since: float = 0) -> dict[str, Any]:
        """What the page shows, of a state of after ``since`` (epoch)."""
        self.wait("(since) => Number(document.documentElement.dataset.at) > since", since)
        found: dict[str, Any] = self.page.evaluate(_SHOWN)
        return found

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.page.inner_text(selector)

    def module(self, name: str, expression: str) -> Any:
        """An expression over one of the page's modules, ``m``."""
        script = f"async () => {{ const m = await import('./assets/{name}.js'); {expression} }}"
        return self.page.evaluate(script)

    def check(self) -> None:
        """Nothing was complained of, and nothing forbidden was tried."""
        assert not self.complaints
        assert self.page.evaluate("window.violations") == []


class Screens:
    """Opens the dashboard on screens of any kind."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def open(self, address: str, **screen: Any) -> Dashboard:
        """Open it.

        :param screen: what Playwright knows of a browser's context: ``viewport``,
            ``color_scheme``, ``reduced_motion`` …
        """
        return self.prepare(**screen).go(address)

    def prepare(self, **screen: Any) -> Dashboard:
        """A tab in which nothing is loaded yet, on a screen as :meth:`open` knows it."""
        screen.setdefault("viewport", {"width": 1360, "height": 900})
        return Dashboard(self._browser.new_context(**screen).new_page())


@contextmanager
def screens() -> Iterator[Screens]:
    """Debian's Chromium; ended with all it started."""
    # It is no dependency of the other tests here.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            yield Screens(browser)
        finally:
            browser.close()


class Talk:
    """Clients in a thread that send, and wait for the echo, without a pause until told to. One that
    is disconnected connects again.

    :param every: seconds between two messages of a client.
    :param stay: seconds for which a client stays on average, before another takes its place.
    :ivar lost: how many were disconnected.
    """

    def __init__(self, url: str, count: int, every: float = 0.1, *, stay: float = math.inf) -> None:
        self._url = url
        self._count = count
        self._every = every
        self._stay = stay
        self._live = 0
        self._flying = 0
        self._quiet = False
        self.lost = 0
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._run,))

    def __enter__(self) -> Self:
        self._thread.start()
        processes.until(lambda: self._live == self._count, 60, f"{self._count} clients")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def quiet(self) -> None:
        """Have them say nothing more, and have heard all they have said."""
        self._quiet = True
        processes.until(lambda: not self._flying, 60, "the last echoes")

    def loud(self) -> None:
        """Have them talk again."""
        self._quiet = False

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for number in range(self._count):
                    nursery.start_soon(self._talk, number)

    async def _talk(self, number: int) -> None:
        while True:
            live = False
            try:
                async with connected(self._url) as ws:
                    self._live += 1
                    live = True
                    await trio.sleep(self._every * (number % 10) / 10)
                    with trio.move_on_after(random.expovariate(1) * self._stay):
                        await self._converse(ws)
                    await ws.aclose()
                    self._live -= 1
                    live = False
            except* Exception:  # noqa: BLE001 - however it ends, it is an end
                self._live -= live
                self.lost += live
            await trio.sleep(0.05)

    async def _converse(self, ws: Any) -> None:
        while True:
            if not self._quiet:
                await self._echo(ws)
            await trio.sleep(self._every)

    async def _echo(self, ws: Any) -> None:
        self._flying += 1
        try:
            with trio.fail_after(PATIENCE):
                await ws.send_message("x" * 100)
                await ws.get_message()
        finally:
            self._flying -= 1


def value_at(document: dict[str, Any], path: str) -> Any:
    """What a document has at a path of keys with dots between."""
    found: Any = document
    for key in path.split("."):
        found = found[key]
    return found


def settled(watched: Watched) -> dict[str, Any]:
    """A status in which no counter moves any more but that of pings."""
    seen: list[dict[str, Any]] = []

    def rests() -> bool:
        seen.append(watched.status())
        last = [status["connections"] | {"pings_sent": 0} for status in seen[-5:]]
        return len(last) == 5 and all(one == last[0] for one in last)

    processes.until(rests, 60, "the counters to rest")
    return seen[-1]
