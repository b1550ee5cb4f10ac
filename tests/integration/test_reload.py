"""A reload that works: nobody refused, everybody closed once, the count true all the while."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from tests.harness import kernel, processes
from tests.harness.clients import SERVICE_RESTART, Crowd, aside, ask, crowd, prober
from tests.harness.instance import Instance
from tests.harness.raw import CLOSE, Raw

Start = Callable[..., Instance]

#: Looks at the count once it agrees with the kernel: from then on it has to.
_LOOKS = 10


def _port(instance: Instance) -> int:
    return int(instance.address().rpartition(":")[2])


def _counts(instance: Instance, port: int) -> tuple[int, int]:
    return instance.status()["connections"]["open"], kernel.established(port)


async def _agrees(instance: Instance, port: int, expected: int) -> None:
    """The count becomes what the kernel has, and stays it while nothing is in flight."""
    await aside(
        processes.until,
        lambda: _counts(instance, port) == (expected, expected),
        20,
        f"count and kernel to say {expected}",
    )
    for _ in range(_LOOKS):
        assert await aside(_counts, instance, port) == (expected, expected)


async def _reload(instance: Instance) -> None:
    done = await aside(instance.run, "reload")
    assert done.returncode == 0, done.stdout + done.stderr


async def test_reload_under_load(start: Start) -> None:
    """1000 live connections are each closed once with 1012, nobody who connects meanwhile is
    refused, reset or kept waiting, and the count is true afterwards.
    """
    instance = start(settle=1.0, drain_window=1.5, drain_timeout=30)
    instance.running()
    url, port = instance.url(), _port(instance)
    async with crowd(url, 1000) as people:
        async with prober(url) as probing:
            before = len(probing.answers)
            await _reload(instance)
            during = len(probing.answers) - before
            await probing.rounds(4)
        await people.wait(lambda: sum(people.closed.values()) >= 1000, "everybody to be closed")
        assert probing.failures == []
        assert during > 0
        assert {answer.split()[1] for answer in probing.answers[-2:]} == {"2"}
        assert people.codes == {SERVICE_RESTART: 1000}
        assert set(people.closed.values()) == {1}
    async with crowd(url, 20):
        await _agrees(instance, port, 20)
    await _agrees(instance, port, 0)


async def test_nobody_is_closed_twice(start: Start) -> None:
    """With 8 slots and clients that come back at once, one reload closes each client once."""
    instance = start(workers=8, drain_window=1.0, drain_timeout=30)
    instance.running()
    async with crowd(instance.url(), 200, reconnect=True) as people:
        await _reload(instance)
        await people.wait(lambda: sum(people.closed.values()) >= 200, "everybody to be closed")
        await people.wait(lambda: len(people.live) == 200, "everybody to be back")
        assert set(people.closed.values()) == {1}
        assert people.codes == {SERVICE_RESTART: 200}


async def test_the_count_agrees_with_the_kernel(start: Start) -> None:
    """`open` is what the kernel has established, before a reload, while it settles, after it, and
    after kill -9 of a worker.
    """
    instance = start(settle=5.0)
    instance.running()
    url, port = instance.url(), _port(instance)
    async with crowd(url, 60, reconnect=True) as people:
        await _agrees(instance, port, 60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_reload, instance)
            await aside(instance.wait, _settling, "both slots to settle")
            seen = 0
            while _settling(await aside(instance.status)):
                counts = await aside(_counts, instance, port)
                if _settling(await aside(instance.status)):
                    assert counts == (60, 60)
                    seen += 1
            assert seen
        await people.wait(lambda: len(people.live) == 60, "everybody to be back")
        await _agrees(instance, port, 60)
        victim = instance.workers()[0]
        lost = _open_of(instance, victim)
        os.kill(victim, signal.SIGKILL)
        await people.wait(lambda: sum(people.closed.values()) == 60 + lost, "the killed to notice")
        await people.wait(lambda: len(people.live) == 60, "everybody to be back")
        await _agrees(instance, port, 60)
        assert instance.status()["connections"]["closed_by_reason"]["worker_died"] == lost
    await _agrees(instance, port, 0)


def _settling(status: dict[str, Any]) -> bool:
    return all(slot["state"] == "settling" for slot in status["slots"])


def _open_of(instance: Instance, pid: int) -> int:
    workers = [w for s in instance.status()["slots"] for w in s["workers"]]
    return next(int(w["open"]) for w in workers if w["pid"] == pid)


async def test_closes_are_spread_over_the_window(start: Start) -> None:
    """A drain closes its connections over drain_window, neither all at once nor in bursts."""
    instance = start(drain_window=4.0)
    instance.running()
    async with crowd(instance.url(), 120) as people:
        await _reload(instance)
        await people.wait(lambda: sum(people.closed.values()) == 120, "everybody to be closed")
    times = sorted(people.closed_at)
    assert times[-1] - times[0] > 1.0
    # An even spread closes 15 in each half second.
    crowded = max(sum(1 for t in times if begin <= t < begin + 0.5) for begin in times)
    assert crowded < 90


def test_a_silent_client_is_cut_off(start: Start) -> None:
    """A client that does not answer the close is cut off at drain_timeout and counted as such."""
    instance = start(drain_window=0.2, drain_timeout=4)
    instance.running()
    with Raw(instance.address()) as client:
        client.open()
        began = time.monotonic()
        done = instance.run("reload")
        lasted = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        assert lasted > 4
        opcode, payload = client.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, SERVICE_RESTART)
        assert client.frame() == (-1, b"")
    connections = instance.status()["connections"]
    assert connections["open"] == 0
    assert connections["closed_by_reason"]["deadline"] == 1


async def test_wait_leaves_connections_until_the_deadline(start: Start) -> None:
    """With on_reload = "wait" a reload is done while the old worker keeps its connections, and only
    the deadline closes what is left.
    """
    instance = start(workers=1, on_reload="wait", drain_timeout=10, drain_window=0.5, settle=0.1)
    instance.running()
    async with crowd(instance.url(), 10) as people:
        answer = await aside(instance.ask, "reload")
        assert answer["result"]["outcome"] == "done"
        assert not people.closed
        assert (await ask(instance.url(), "who")).split()[1] == "2"
        await people.wait(lambda: sum(people.closed.values()) == 10, "the deadline")
        assert people.codes == {SERVICE_RESTART: 10}
        (draining,) = instance.events("draining")
        now = trio.current_time()
        age = time.time() - dt.datetime.fromisoformat(draining["timestamp"]).timestamp()
        # Without waiting they would be closed within half a second.
        assert people.closed_at[0] > now - age + 6
    await aside(instance.wait, lambda s: len(s["slots"][0]["workers"]) == 1, "the old worker's end")


async def test_three_generations_live_at_most(start: Start) -> None:
    """While old workers wait, status shows all generations; another reload ends the wait of the
    oldest beyond three, and a worker whose last connection leaves ends at once.
    """
    instance = start(workers=1, on_reload="wait", drain_timeout=100, settle=0.1)
    instance.running()
    url = instance.url()
    async with crowd(url, 3) as first:
        await _reload(instance)
        async with crowd(url, 3) as second:
            await _reload(instance)
            async with crowd(url, 3) as third:
                (slot,) = instance.status()["slots"]
                assert [(w["generation"], w["role"]) for w in slot["workers"]] == [
                    (3, "current"),
                    (1, "retired"),
                    (2, "retired"),
                ]
                page = await aside(instance.run, "status")
                for worker in slot["workers"]:
                    assert f" {worker['pid']} " in page.stdout
                assert not first.closed
                await _reload(instance)
                await first.wait(lambda: sum(first.closed.values()) == 3, "the oldest to be closed")
                assert first.codes == {SERVICE_RESTART: 3}
                await _have_ended(instance, [2, 3, 4])
                assert not second.closed
                assert not third.closed
            await _have_ended(instance, [2, 4])
            assert not second.closed


def _generations(instance: Instance) -> list[int]:
    (slot,) = instance.status()["slots"]
    return sorted(w["generation"] for w in slot["workers"])


async def _have_ended(instance: Instance, left: list[int]) -> None:
    await aside(
        processes.until, lambda: _generations(instance) == left, 30, f"generations {left} alone"
    )


def test_max_surge_bounds_the_successors(start: Start) -> None:
    """max_surge = 1 starts each successor after the one before is ready; "all" starts them
    together.
    """
    instance = start(workers=3, max_surge=1, settle=0.1)
    instance.running()
    assert instance.run("reload").returncode == 0
    one_by_one = [(slot, what) for slot in range(3) for what in ("starts", "ready")]
    assert _starts(instance, 2) == one_by_one
    instance.reconfigure(max_surge="all")
    assert instance.run("reload").returncode == 0
    assert _starts(instance, 3)[:3] == [(slot, "starts") for slot in range(3)]


def _starts(instance: Instance, generation: int) -> list[tuple[int, str]]:
    """In the log's order: successors that were started and that were ready."""
    found: list[tuple[int, str]] = []
    for entry in instance.entries():
        if entry["event"] == "reload_started":
            current = entry["gen"]
            continue
        if entry["event"] == "slot" and entry["state"] == "replacing" and current == generation:
            found.append((entry["slot"], "starts"))
        if entry["event"] == "worker_ready" and entry["gen"] == generation:
            found.append((entry["slot"], "ready"))
    return found


async def test_a_second_reload_is_refused(start: Start) -> None:
    """--no-wait returns while the reload goes on; a second reload and a scaling are refused
    meanwhile, with that reason, and the first goes on to its end.
    """
    instance = start(settle=0.1, ready_timeout=100)
    instance.running()
    instance.hold_import()
    first = instance.run("reload", "--no-wait")
    assert first.returncode == 0, first.stderr
    assert "reload started" in first.stdout
    assert instance.status()["state"] == "reloading"
    assert instance.status()["reload"] == {"generation": 2}
    second = instance.run("reload")
    assert second.returncode == 1
    assert "a reload is under way (generation 2)" in second.stderr
    scale = instance.run("scale", "3")
    assert scale.returncode == 1
    assert "a reload is under way" in scale.stderr
    instance.signal(signal.SIGHUP)
    (refused,) = instance.wait_logged("signal_refused")
    assert "a reload is under way" in refused["reason"]
    instance.let_import()
    status = instance.wait(lambda s: s["last_reload"], "the first reload to end")
    assert status["last_reload"]["outcome"] == "done"
    assert (status["generation"], status["workers"]) == (2, 2)
    assert len(instance.events("reload_started")) == 1


async def test_a_client_that_vanishes_disturbs_no_reload(start: Start) -> None:
    """Killing `wssup reload` half-way leaves the reload going; SIGHUP starts the next; afterwards
    nothing runs and `wssup reload` says so with status 3.
    """
    instance = start(settle=3.0)
    instance.running()
    command = instance.launch("reload")
    instance.wait(lambda s: s["reload"], "the reload to begin")
    command.kill()
    command.communicate()
    status = instance.wait(lambda s: s["last_reload"], "the reload to end")
    assert status["last_reload"]["outcome"] == "done"
    instance.edit("original", "hung up")
    instance.signal(signal.SIGHUP)
    status = instance.wait(lambda s: s["last_reload"]["generation"] == 3, "the next reload to end")
    assert status["last_reload"]["outcome"] == "done"
    assert (await ask(instance.url(), "who")).endswith("hung up")
    assert instance.run("stop").returncode == 0
    assert instance.exited() == 0
    none = instance.run("reload")
    assert none.returncode == 3
    assert "no instance named 'test' runs" in none.stderr


async def test_unix_and_ipv6_binds_reload(start: Start, tmp_path: Path) -> None:
    """unix: and [::1] addresses serve everybody through a reload, by the new code afterwards."""
    path = f"unix:{tmp_path}/s"
    instance = start(bind=["[::1]:0", path])
    instance.running()
    v6 = instance.url()
    assert instance.status()["bind"][1] == path
    async with (
        crowd(v6, 10) as people6,
        crowd(path, 10) as people,
        prober(v6, 1) as probing6,
        prober(path, 1) as probing,
    ):
        await _reload(instance)
        for crowded in (people6, people):
            await _all_closed(crowded, 10)
        for probes in (probing6, probing):
            await probes.rounds(2)
            assert probes.failures == []
            assert probes.answers[0].split()[1] == "1"
            assert probes.answers[-1].split()[1] == "2"


async def _all_closed(people: Crowd, count: int) -> None:
    await people.wait(lambda: sum(people.closed.values()) == count, "everybody to be closed")
    assert people.codes == {SERVICE_RESTART: count}
