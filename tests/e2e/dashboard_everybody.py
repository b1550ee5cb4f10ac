"""The dashboard for everybody: with the keyboard, read aloud, on a phone, in the dark; with many
slots; and with a policy that lets nothing else in.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.e2e.common import Start
from tests.e2e.dashboard import ECHO
from tests.e2e.watching import Dashboard, Screens, Talk, Watched, screens
from tests.harness.observer import request

_CLOCK = re.compile(r"\d\d:\d\d:\d\d: generation 1 \d+")
#: What has the focus: its id, or what it is called.
_FOCUS = """() => {
    const node = document.activeElement;
    return node.id || node.getAttribute('aria-label') || node.textContent.trim();
}"""
#: Text that stands out too little from its ground (WCAG 2.2, 1.4.3), or is too small to read.
_UNREADABLE = """() => {
    const parts = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parts(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const box = node.getBoundingClientRect();
        if (!walker.currentNode.data.trim() || box.width < 2 || box.height < 2) continue;
        if (node.closest('.hidden, .skip, option, noscript, script')) continue;
        const style = getComputedStyle(node);
        const drawn = node.namespaceURI.endsWith('svg');
        const colours = [drawn ? style.fill : style.color].map(parts).concat([ground(node)]);
        // What is drawn on its own ground is not told by the elements around it.
        if (node.closest('.cursor')) continue;
        const [a, b] = colours.map(light).sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize);
        if (ratio < 4.5 || size < 10.4) {
            found.push(`${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}, ${size} px`);
        }
    }
    return [...new Set(found)];
}"""
#: What can be touched and is smaller than a finger finds (WCAG 2.2, 2.5.8).
_TOO_SMALL = """() => [...document.querySelectorAll('summary, select, button, .choice label')]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 24)
    .map((node) => node.textContent)"""
_SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"


def test_with_the_keyboard_and_read_aloud(start: Start) -> None:
    """Everything can be reached and done with the keyboard, shows where the focus is, and has a
    name and a role. A chart says the values of the moment that is pointed at; its table has them
    too.
    """
    watched = Watched(start, ECHO)
    with Talk(watched.instance.url(), 10), screens() as browser:
        page = browser.open(watched.address)
        for _ in range(4):
            page.shown(page.shown()["at"])
        walk(page)
        spoken = page.page.locator("body").aria_snapshot()
        for part in (
            'heading "wssup test" [level=1]',
            'radio "5 min" [checked]',
            'combobox "Colours"',
            'region "Verdict"',
            'meter "Capacity used"',
            'figure "Connections by generation"',
            'list "Recent events"',
            'slider "Loop lag: moment"',
            "listitem: Slot 0 ready gen 1",
            "status",
        ):
            assert part in spoken, spoken
        keys = page.page.keyboard
        page.page.focus("#chart-connections .plot")
        told = "#chart-connections .plot"
        assert str(page.page.get_attribute(told, "aria-valuetext")).startswith("now: generation 1")
        keys.press("ArrowLeft")
        page.wait("() => document.querySelectorAll('#chart-lag .cursor line').length === 1")
        assert _CLOCK.match(str(page.page.get_attribute(told, "aria-valuetext")))
        last = page.page.get_attribute(told, "aria-valuenow")
        keys.press("Home")
        page.wait(
            "(last) => document.querySelector('#chart-connections .plot').ariaValueNow < last", last
        )
        keys.press("Escape")
        page.wait("() => document.querySelectorAll('.cursor line').length === 0")
        keys.press("Tab")
        keys.press("Enter")
        page.wait("() => document.querySelectorAll('#chart-connections tbody tr').length > 2")
        assert page.text("#chart-connections thead").split() == ["Time", "generation", "1"]
        assert page.text("#chart-connections tbody tr:first-child td") == "10"
        page.page.focus("#slots-card summary")
        keys.press("Enter")
        page.wait("() => document.querySelectorAll('#workers tr').length === 2")
        page.page.focus("#spans input:checked")
        keys.press("ArrowRight")
        assert page.page.evaluate("document.activeElement.value") == "600"
        page.page.select_option("#theme", "dark")
        assert page.page.get_attribute("html", "data-theme") == "dark"
        page.page.reload(wait_until="domcontentloaded")
        assert page.page.get_attribute("html", "data-theme") == "dark"
        page.shown()
        page.check()


def walk(page: Dashboard) -> None:
    """Go through the page with the tabulator key: nothing is a trap, and the focus is seen."""
    seen: list[str] = []
    for _ in range(60):
        page.page.keyboard.press("Tab")
        name = page.page.evaluate(_FOCUS)
        if page.page.evaluate("document.activeElement === document.body"):
            break
        seen.append(name)
        ring = "getComputedStyle(document.activeElement).outlineStyle"
        label = "document.activeElement.nextElementSibling"
        ringed = page.page.evaluate(
            f"{ring} === 'solid' || getComputedStyle({label}).outlineStyle === 'solid'"
        )
        assert ringed, name
    assert seen[0] == "To the figures"
    assert {"theme", "events", "Connections by generation: moment", "Table of workers"} < set(seen)
    assert seen[-2:] == ["status", "metrics"]
    assert len(seen) < 40


def test_on_every_screen(start: Start) -> None:
    """From 320 pixels up nothing is cut off sideways; in light and in dark every text stands out
    from its ground and is large enough, also when much is wrong; who wants no motion gets none.
    """
    watched = Watched(start, ECHO)
    with Talk(watched.instance.url(), 10), screens() as browser:
        page = browser.open(watched.address, reduced_motion="reduce")
        page.shown()
        for width in (320, 360, 768, 1100, 1360, 2200):
            page.page.set_viewport_size({"width": width, "height": 800})
            page.shown(page.shown()["at"])
            assert page.page.evaluate(_SIDEWAYS) <= 0, width
            for scheme in ("light", "dark"):
                page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert page.page.evaluate(_UNREADABLE) == [], (width, scheme)
            assert page.page.evaluate(_TOO_SMALL) == [], width
        moving = """[...document.querySelectorAll('*')].filter((node) =>
            getComputedStyle(node).transitionDuration !== '0s'
            || getComputedStyle(node).animationName !== 'none').length"""
        assert page.page.evaluate(moving) == 0
        page.check()
        troubled(browser, watched)


def trouble(status: dict[str, Any], slots: int) -> dict[str, Any]:
    """A document of an instance with many slots, some of them in trouble.

    :param status: a real one of a healthy instance.
    """
    first = status["slots"][0]
    found = []
    for number in range(slots):
        worker = first["workers"][0] | {"pid": 1000 + number, "serial": number, "active": 900}
        found.append(first | {"slot": number, "workers": [worker]})
    found[3] |= {"state": "failed", "error": "<img src=x onerror=alert(1)>\nb", "workers": []}
    found[5]["workers"][0] |= {"stalled": True, "accepting": False, "lag_ms": 4000.0}
    found[5]["lent_to"] = 6
    found[7] |= {"state": "backoff", "workers": []}
    found[9]["workers"] += [found[9]["workers"][0] | {"pid": 1, "serial": 999, "generation": 2}]
    connections = status["connections"] | {"active": 900 * slots, "open": 900 * slots}
    return status | {
        "slots": found,
        "connections": connections,
        "capacity": 905 * slots,
        "mixed": True,
        "name": "a name " + "that is long " * 8,
        "last_reload": {
            "outcome": "refused",
            "generation": 2,
            "seconds": 1.5,
            "reason": "ImportError: " + "x" * 200,
            "traceback": None,
            "moved": None,
            "disconnected": None,
            "pause_p99_ms": None,
        },
    }


def troubled(browser: Screens, watched: Watched) -> None:
    """The same with 64 slots and everything wrong, from a document made up of a real one."""
    status = trouble(watched.status(), 64)
    lines = []
    for second in range(90):
        state = {"at": status["started_at"] + 100 + second, "status": status}
        lines.append(f"event: state\ndata: {json.dumps(state)}\n\n")
    event = {"seq": 1, "at": status["started_at"] + 120, "level": "error", "event": "slot_failed"}
    event |= {"slot": 3, "reason": "<b>no</b>"}
    lines.append(f"event: lifecycle\ndata: {json.dumps(event)}\n\n")
    page = browser.prepare(reduced_motion="reduce")
    page.page.route(
        "**/events",
        lambda route: route.fulfill(content_type="text/event-stream", body="".join(lines)),
    )
    page.go(watched.address)
    page.wait("() => document.querySelectorAll('#slot-tiles li').length === 64")
    assert "61 of 64 slots accept connections" in page.text("#headline")
    told = page.text("#problems")
    for part in ("Slot 3 failed", "<img src=x", "Slot 5 is stalled; slot 6 takes", "Slot 7 lost"):
        assert part in told
    assert "99% of the capacity is used" in told
    assert page.page.evaluate("document.images.length") == 0
    assert "Slot 3 failed: <b>no</b>" in page.text("#events")
    painted = """() => {
        const canvas = document.querySelector('#heat canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return new Set(data.filter((_, index) => index % 4 === 2)).size;
    }"""
    assert page.page.evaluate(painted) > 3
    for width in (320, 390, 1360):
        page.page.set_viewport_size({"width": width, "height": 800})
        page.page.wait_for_timeout(100)
        assert page.page.evaluate(_SIDEWAYS) <= 0, width
        for scheme in ("light", "dark"):
            page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            # While it is disconnected what it showed last is dimmed.
            page.page.evaluate("document.body.classList.remove('stale')")
            assert page.page.evaluate(_UNREADABLE) == [], (width, scheme)


def test_nothing_else_gets_in(start: Start) -> None:
    """The page asks for nothing but its own files and data, and its policy lets no script, style or
    picture of anybody else in.
    """
    watched = Watched(start, ECHO)
    with screens() as browser:
        page = browser.open(watched.address)
        asked: list[str] = []
        page.page.on("request", lambda request: asked.append(request.url))
        page.page.reload(wait_until="domcontentloaded")
        page.shown()
        assert len(asked) > 10
        assert [url for url in asked if not url.startswith(f"{watched.address}/")] == []
        page.check()
        page.page.evaluate("""() => {
            const add = (name, parts) =>
                document.body.append(Object.assign(document.createElement(name), parts));
            add('script', { text: 'window.hacked = 1' });
            add('script', { src: 'https://elsewhere.test/x.js' });
            add('style', { textContent: 'body { display: none }' });
            add('img', { src: 'https://elsewhere.test/x.png' });
            fetch('https://elsewhere.test/').catch(() => {});
        }""")
        page.wait("() => window.violations.length >= 5")
        assert page.page.evaluate("typeof window.hacked") == "undefined"
        assert page.page.evaluate("getComputedStyle(document.body).display") == "block"
        policy = request(watched.instance, "/").headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
