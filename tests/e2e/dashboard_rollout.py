"""A rollout that takes its time, before one's eyes: the old generation drains beside the new one.
With PICTURES the page's looks are saved there.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.common import Start
from tests.e2e.dashboard import ECHO, knock
from tests.e2e.watching import Dashboard, Screens, Talk, Watched, screens

#: What each generation's legend and each slot's line of workers say.
_SIDE_BY_SIDE = """() => ({
    at: Number(document.documentElement.dataset.at),
    active: Number(document.getElementById('active').value),
    old: document.querySelector('#chart-connections .legend li:first-child b').textContent,
    new: document.querySelector('#chart-connections .legend li:last-child b').textContent,
    slots: [...document.querySelectorAll('#slot-rows .gens')].map((node) => node.innerText),
})"""
_DESK = {"width": 1360, "height": 940}
_LOOKS = {
    "dashboard-light": {"viewport": _DESK, "color_scheme": "light"},
    "dashboard-dark": {"viewport": _DESK, "color_scheme": "dark"},
    "dashboard-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
#: Seconds of load before the rollout, if pictures are wanted.
_PRELUDE = 75


def test_old_beside_new(start: Start) -> None:
    """While a reload closes the old workers' connections within its window, the page shows both
    generations with their connections, altogether and slot by slot: together they are all that
    there are, and the old ones become fewer until none is left.
    """
    watched = Watched(
        start,
        ECHO,
        name="chat",
        workers=4,
        on_reload="close",
        settle=2,
        drain_window=12,
        drain_timeout=40,
        heartbeat={"ping_interval": 1},
        limits={"origins": ["https://ours.test"]},
    )
    instance = watched.instance
    pictures = os.environ.get("PICTURES", "")
    talk = Talk(instance.url(), 240, every=2.5, stay=90 if pictures else 1e9)
    with talk, screens() as browser:
        page = browser.open(watched.address)
        page.shown()
        looks = open_looks(browser, watched) if pictures else {}
        if pictures:
            prelude(page, watched)
        reload = instance.launch("reload")
        page.wait("() => document.querySelectorAll('#chart-connections .legend li').length === 2")
        olds: list[int] = []
        draining = False
        while not olds or olds[-1] > 0:
            found = page.page.evaluate(_SIDE_BY_SIDE)
            old, new = (int(found[which].replace("–", "0")) for which in ("old", "new"))
            assert old + new == found["active"]
            olds.append(old)
            if 0 < old < 240:
                both = [text for text in found["slots"] if "gen 1" in text]
                assert both
                assert all("gen 2 ready" in text for text in both)
                draining |= any("gen 1 draining" in text for text in both)
            if old < 130:
                for name, look in looks.items():
                    save(look, Path(pictures) / f"{name}.png")
                looks = {}
            page.wait("(at) => Number(document.documentElement.dataset.at) > at", found["at"])
        assert olds == sorted(olds, reverse=True)
        assert len(set(olds)) > 5
        assert draining
        assert reload.wait(60) == 0
        page.wait("() => document.getElementById('verdict').className === 'verdict is-ok'")
        page.check()


def open_looks(browser: Screens, watched: Watched) -> dict[str, Dashboard]:
    """The page on each of the screens that get a picture."""
    return {
        name: browser.open(watched.address, reduced_motion="reduce", **screen)
        for name, screen in _LOOKS.items()
    }


def prelude(page: Dashboard, watched: Watched) -> None:
    """Some life before the rollout, so that there is something to see: a worker dies, too."""
    page.page.wait_for_timeout(_PRELUDE * 500)
    for _ in range(3):
        knock(watched.instance, b"Origin: https://theirs.test")
    os.kill(watched.instance.status()["slots"][2]["workers"][0]["pid"], signal.SIGKILL)
    page.page.wait_for_timeout(_PRELUDE * 500)


def save(page: Dashboard, path: Path) -> None:
    """Save what the page looks like."""
    page.page.screenshot(path=path)
    assert path.stat().st_size <= 200 * 1024, path
