"""The dashboard in headless Chromium, driven by Playwright, on real instances: it shows what
``/status`` says, whatever happens meanwhile. `make e2e` installs both.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

from tests.e2e.common import Start
from tests.e2e.watching import Dashboard, Screens, Talk, Watched, screens, settled, value_at
from tests.harness import processes
from tests.harness.raw import request

#: Resumable: a reload moves its connections.
ECHO = """\
class App:
    def on_receive(self, ws, data):
        if data == "fail":
            raise ValueError("as you wish")
        ws.send_nowait(data)

app = App()
"""
#: Counters, which only rise.
_RISING = ("connections.accepted", "connections.closed_by_reason.client", "connections.refused")


def same(shown: dict[str, Any], status: dict[str, Any]) -> None:
    """All numbers on the page are those of the document."""
    expected = {path: value_at(status, path) for path in shown["values"]}
    assert shown["values"] == expected
    assert len(expected) > 9
    for path, text in shown["texts"].items():
        assert text == f"{value_at(status, path):,}", path
    assert shown["slots"] == [
        sum(worker["active"] for worker in slot["workers"]) for slot in status["slots"]
    ]


def knock(instance: Any, *headers: bytes) -> None:
    """Ask for a WebSocket with these headers, and go once there is an answer."""
    host, port = instance.address().rsplit(":", 1)
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(request("/", *headers))
        assert client.recv(1000).startswith(b"HTTP/1.1 403")


def test_values_are_those_of_the_status(start: Start) -> None:
    """Under load every counter that the page shows lies between what /status said before and after,
    and what does not change is equal; through a reload no look at the page sees a connection
    missing; at rest every number on the page is that of /status, also as people read it.
    """
    watched = Watched(
        start,
        ECHO,
        settle=3,
        heartbeat={"ping_interval": 1},
        limits={"origins": ["https://ours.test"]},
    )
    instance = watched.instance
    with Talk(instance.url(), 40) as talk, screens() as browser:
        page = browser.open(watched.address)
        for _ in range(3):
            knock(instance, b"Origin: https://theirs.test")
            before = watched.status()
            shown = page.shown(time.time())
            after = watched.status()
            for path in _RISING:
                low, high = value_at(before, path), value_at(after, path)
                assert low <= shown["values"].get(path, 0) <= high, path
            assert shown["values"]["connections.active"] == 40
            assert sum(shown["slots"]) == 40
        assert shown["headline"] == "All 2 slots accept connections"
        rates_are_right(page, watched)
        seen = through_a_reload(page, watched)
        assert {shown["values"]["connections.active"] for shown in seen} == {40}
        # Both of its workers count a connection that is moving in this very moment.
        assert all(40 <= sum(shown["slots"]) <= 80 for shown in seen)
        assert sum(seen[-1]["slots"]) == 40
        for shown in seen:
            of = [text.removeprefix("generation ")[1:] for text in shown["generations"]]
            assert sum(int(text.replace("–", "0")) for text in of) == 40, of
        heads = {shown["headline"].split(":")[0] for shown in seen}
        assert "Reloading" in heads
        assert any("generation 2 accepts on 2 of 2 slots" in shown["headline"] for shown in seen)
        both = [shown["generations"] for shown in seen if len(shown["generations"]) == 2]
        assert any("generation 140" in old for old, _ in both), both
        assert both[-1] == ["generation 1\N{EN DASH}", "generation 240"]
        talk.quiet()
        # Only who is silent is pinged.
        page.wait("() => document.getElementById('ping').textContent.endsWith('ms')")
        status = settled(watched)
        shown = page.shown(time.time())
        same(shown, status)
        assert shown["values"]["connections.refused_by_reason.origin"] == 3
        assert shown["values"]["generation"] == 2
        assert shown["values"]["handoff.moved"] == 40
        assert talk.lost == 0
        page.check()


def through_a_reload(page: Dashboard, watched: Watched) -> list[dict[str, Any]]:
    """What the page shows second by second while the instance reloads, and a little after."""
    reload = watched.instance.launch("reload")
    seen = [page.shown()]
    while reload.poll() is None or seen[-1]["words"] != ["ready", "ready"]:
        seen.append(page.shown(seen[-1]["at"]))
    assert reload.returncode == 0
    for _ in range(2):
        seen.append(page.shown(seen[-1]["at"]))
    return seen


def rates_are_right(page: Dashboard, watched: Watched) -> None:
    """The rate of messages is that of /status over the same seconds, give or take the seconds'
    edges.
    """
    page.shown(page.shown()["at"] + 4)
    before = watched.status()["connections"]["messages_in"]
    began = time.monotonic()
    page.shown(time.time() + 4)
    found = float(page.text("#messages-in"))
    rate = (watched.status()["connections"]["messages_in"] - before) / (time.monotonic() - began)
    assert 0.6 * rate < found < 1.7 * rate


def test_what_goes_wrong(start: Start) -> None:
    """A worker's death is seen: in the verdict, in the slot, among the events and the reasons, with
    the numbers of /status. A slot that is scaled away is no slot any more.
    """
    watched = Watched(start, ECHO, backoff_min=4)
    instance = watched.instance
    with Talk(instance.url(), 20) as talk, screens() as browser:
        page = browser.open(watched.address)
        page.shown()
        victim = instance.status()["slots"][1]["workers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        page.wait("() => document.getElementById('headline').textContent.includes('1 of 2 slots')")
        shown = page.shown()
        assert shown["verdict"] == "verdict is-warn"
        assert "Slot 1 lost its worker" in shown["problems"]
        assert shown["words"] == ["ready", "backoff"]
        assert "1 of 2 slots accept connections" in shown["news"]
        death = f"Worker lost: slot 1, generation 1, process {victim['pid']}"
        assert death in shown["events"]
        page.wait("() => document.getElementById('verdict').className === 'verdict is-ok'")
        processes.until(lambda: talk.lost, 60, "the clients to notice")
        instance.wait(lambda s: s["connections"]["active"] == 20, "the clients to be back")
        talk.quiet()
        status = settled(watched)
        shown = page.shown(time.time())
        same(shown, status)
        assert shown["values"]["restarts"] == 1
        lost = shown["values"]["connections.closed_by_reason.worker_died"]
        assert lost == talk.lost
        done = instance.run("scale", "1")
        assert done.returncode == 0, done.stderr
        page.wait("() => document.getElementById('slots-note').textContent.includes('1 parked')")
        page.wait("() => document.querySelectorAll('#slot-rows li').length === 1")
        assert page.text("#headline") == "The slot accepts connections"
        assert page.shown(time.time())["slots"] == [20]
        page.check()


def refused_first(browser: Screens, watched: Watched) -> None:
    """A page that the observer has no place for says so, and is there once it has."""
    page = browser.prepare()
    page.page.route("**/events", lambda route: route.fulfill(status=503), times=1)
    page.go(watched.address)
    page.wait("""() => document.getElementById('lost').checkVisibility()
        && document.getElementById('lost').innerText.includes('as many dashboards as it takes')""")
    page.wait("() => document.getElementById('live').textContent === 'live'")


def test_it_comes_back(start: Start) -> None:
    """When the observer is killed, or stands still, the page says that it is disconnected and how
    old its figures are, and is there again by itself with true figures, in the same page. The time
    between is a gap; nothing is drawn in it. A reader who does not want to wait need not. The same
    of a page that finds no place at first.
    """
    watched = Watched(start, ECHO, stall_after=2, hang_after=60)
    instance = watched.instance
    with Talk(instance.url(), 10) as talk, screens() as browser:
        page = browser.open(watched.address)
        page.page.evaluate("window.mine = 'the same page'")
        for _ in range(3):
            page.shown(page.shown()["at"])
        os.kill(watched.observer(), signal.SIGKILL)
        # All at once: it is back within a second.
        page.wait("""() => document.getElementById('live').textContent === 'disconnected'
            && document.getElementById('news').textContent === 'Disconnected from the observer'
            && document.getElementById('retry').checkVisibility()""")
        page.wait("() => document.getElementById('live').textContent === 'live'")
        assert page.text("#news") == "Connected again"
        assert not page.page.is_visible("#lost")
        pid = watched.observer()
        os.kill(pid, signal.SIGSTOP)
        try:
            page.wait("() => document.getElementById('live').textContent === 'disconnected'")
            page.wait("() => document.getElementById('lost').innerText.includes('figures are')")
            assert "stale" in str(page.page.get_attribute("body", "class"))
        finally:
            os.kill(pid, signal.SIGCONT)
        page.page.click("#retry")
        page.wait("() => document.getElementById('live').textContent === 'live'")
        talk.quiet()
        status = settled(watched)
        same(page.shown(time.time()), status)
        gaps = "document.querySelectorAll('#chart-connections .gaps rect').length"
        assert page.page.evaluate(gaps) >= 1
        assert page.page.evaluate("window.mine") == "the same page"
        assert page.page.evaluate("window.violations") == []
        events = page.text("#events").splitlines()
        assert sum("Runs with 2 workers" in line for line in events) == 1
        assert talk.lost == 0
        refused_first(browser, watched)
        # That a connection broke is the browser's own remark.
        assert not [text for text in page.complaints if "net::ERR" not in text]
