"""Processes that are killed: a worker, the zygote, the master; and workers that cannot start."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.harness import processes
from tests.harness.clients import aside, ask, prober
from tests.harness.instance import ECHO, Instance
from tests.harness.raw import ABNORMAL, Raw, endings, raw_clients, spread_clients

Start = Callable[..., Instance]

#: Its workers fail at boot: those of slot 1 while a file named "broken" is beside it, or all.
FRAGILE = (
    ECHO
    + """
from contextlib import asynccontextmanager
from pathlib import Path

@asynccontextmanager
async def lifespan():
    slot = wssup.current_worker().slot
    broken = Path(__file__).with_name("broken")
    if broken.exists() and str(slot) in broken.read_text():
        raise RuntimeError(f"slot {slot} finds no database")
    yield
"""
)


def _slot(status: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = status["slots"][index]
    return found


def _ready(status: dict[str, Any], index: int, besides: int | None) -> bool:
    slot = _slot(status, index)
    return slot["state"] == "ready" and [w["pid"] for w in slot["workers"]] != [besides]


def _who(address: str) -> list[str]:
    """Slot, generation, pid and mark of whoever takes a new connection."""
    with Raw(address) as client:
        answer = client.open().ask("who").split()
        client.close()
        return answer


@contextmanager
def _samples(instance: Instance) -> Iterator[list[dict[str, Any]]]:
    """The connection counts over and over again, in a thread beside the body."""
    found: list[dict[str, Any]] = []
    enough = threading.Event()

    def sample() -> None:
        while not enough.is_set():
            found.append(instance.status()["connections"])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        enough.set()
        thread.join()


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    """What may only grow."""
    gauges = {"open", "active"}
    flat = {k: v for k, v in counts.items() if k not in gauges and isinstance(v, int)}
    for group in ("closed_by_reason", "refused_by_reason", "handshake_failures_by_reason"):
        flat |= {f"{group}.{k}": v for k, v in counts[group].items()}
    return flat


def test_a_killed_worker_costs_its_own_connections_alone(start: Start) -> None:
    """Kill -9 of a worker ends the connections it held and no other; they are counted as
    worker_died and no total goes backwards; its listener is lent until its successor, of the same
    generation, serves.
    """
    instance = start(backoff_min=5)
    instance.running()
    address = instance.address()
    victim = instance.workers()[0]
    survivor = instance.workers()[1]
    with spread_clients(address, 2, 15) as clients:
        lost, kept = clients[0], clients[1]
        with _samples(instance) as samples:
            os.kill(victim, signal.SIGKILL)
            lent = instance.wait(lambda s: _slot(s, 0)["lent_to"] == 1, "the loan")
            assert _slot(lent, 0)["state"] in {"backoff", "starting"}
            assert "SIGKILL" in _slot(lent, 0)["error"]
            for _ in range(10):
                slot, _, pid, _ = _who(address)
                if slot == "0":
                    break  # the successor is quicker than we are
                assert (slot, int(pid)) == ("1", survivor)
            after = instance.wait(lambda s: _ready(s, 0, victim), "the successor")
        for earlier, later in pairwise(samples):
            before, now = _totals(earlier), _totals(later)
            assert {k: (before[k], now[k]) for k in now if now[k] < before[k]} == {}
        assert {e.code for e in endings(lost)} == {ABNORMAL}
        assert {c.ask("still there") for c in kept} == {"still there"}
        counts = after["connections"]
        assert counts["closed_by_reason"]["worker_died"] == len(lost)
        assert counts["handshake_failures_by_reason"]["worker_died"] == 0
        assert counts["open"] == counts["active"] == len(kept)
        assert _slot(after, 0)["workers"][0]["generation"] == 1
        assert _slot(after, 0)["lent_to"] is None
        assert _slot(after, 0)["error"] is None
        assert after["restarts"] == 1
        successor = str(_slot(after, 0)["workers"][0]["pid"])
        processes.until(lambda: _who(address)[:3] == ["0", "1", successor], 60, "the successor")
    [told] = instance.events("worker_lost")
    assert told["lost"] == len(lost)


async def test_a_prober_meets_no_refusal_when_workers_are_killed(start: Start) -> None:
    """New connections are never refused while workers are killed; each prober loses at most the one
    connection that the killed worker held.
    """
    instance = start(workers=3)
    await aside(instance.running)
    url = await aside(instance.url)
    kills, probers = 3, 3
    async with prober(url, probers) as probing:
        for slot in range(kills):
            await probing.rounds(5)
            victim = (await aside(instance.workers))[slot]
            os.kill(victim, signal.SIGKILL)
            await aside(instance.wait, lambda s, i=slot, v=victim: _ready(s, i, v), "the successor")
        await probing.rounds(5)
    assert len(probing.failures) <= kills * probers, probing.failures
    ends = ("ConnectionClosed", "HandshakeLostError")
    assert [f for f in probing.failures if not any(end in f for end in ends)] == []
    died = (await aside(instance.status))["connections"]
    lost = died["closed_by_reason"]["worker_died"]
    lost += died["handshake_failures_by_reason"]["worker_died"]
    assert lost <= kills * probers
    # A kill may come between accept(2) and its count.
    assert len(probing.failures) <= lost + kills


def test_killing_a_worker_again_and_again_backs_off_and_never_fails_the_slot(start: Start) -> None:
    """A worker that is killed after it was ready comes back each time, after waits that double up
    to backoff_max, however small the failure budget is.
    """
    instance = start(backoff_min=0.05, backoff_max=0.2, failure_budget=3)
    instance.running()
    waits = [0.05, 0.1, 0.2, 0.2, 0.2]
    for _ in waits:
        victim = instance.workers()[1]
        os.kill(victim, signal.SIGKILL)
        instance.wait(lambda s, v=victim: _ready(s, 1, v), "the successor")
    changes = [e for e in instance.events("slot") if e["slot"] == 1]
    assert "failed" not in {e["state"] for e in changes}
    times = {
        state: [datetime.fromisoformat(e["timestamp"]) for e in changes if e["on"] == state]
        for state in ("current_lost", "retry")
    }
    seen = [
        (tried - lost).total_seconds()
        for lost, tried in zip(times["current_lost"], times["retry"], strict=True)
    ]
    assert len(seen) == len(waits)
    # A sleep may take longer, never shorter; a millisecond is for the log's two clocks.
    assert all(w - 0.001 <= s < w + 5 for w, s in zip(waits, seen, strict=True)), seen


async def test_a_slot_that_cannot_boot_fails_after_its_budget_and_a_reload_revives_it(
    start: Start, tmp_path: Path
) -> None:
    """A slot whose workers fail at boot is FAILED after failure_budget tries and status says why;
    the others serve for it; a reload revives it.
    """
    broken = tmp_path / "broken"
    broken.write_text("1")
    instance = start(FRAGILE, failure_budget=3, backoff_max=0.1)
    failed = await aside(
        instance.wait,
        lambda s: s["slots"] and _slot(s, 1)["state"] == "failed",
        "the slot to fail",
    )
    assert "slot 1 finds no database" in _slot(failed, 1)["error"]
    assert _slot(failed, 1)["workers"] == []
    running = await aside(
        instance.wait,
        lambda s: s["state"] == "running" and _slot(s, 1)["lent_to"] == 0,
        "service by the other slot",
    )
    assert running["restarts"] == 3
    assert len(instance.events("slot_failed")) == 1
    failures = instance.events("application_failed")
    assert len(failures) == len(instance.events("worker_lost")) == 3
    for entry in failures:
        assert "RuntimeError: slot 1 finds no database" in entry["exception"]
        assert "wssup/" not in entry["exception"]
    url = await aside(instance.url)
    async with prober(url, 2) as probing:
        await probing.rounds(5)
        broken.unlink()
        reload = await aside(instance.run, "reload")
        assert reload.returncode == 0, reload.stdout + reload.stderr
        revived = await aside(instance.status)
    assert probing.failures == []
    assert [(s["state"], s["error"], s["lent_to"]) for s in revived["slots"]] == [
        ("ready", None, None)
    ] * 2
    assert {w["generation"] for s in revived["slots"] for w in s["workers"]} == {2}
    assert (await ask(url, "hello")) == "hello"


def _assert_never_started(instance: Instance) -> None:
    assert instance.exited() == 1
    assert [p.name for p in (instance.runtime_dir / instance.name).iterdir()] == ["lock"]
    with pytest.raises(FileNotFoundError):
        instance.segment()


def test_when_every_slot_fails_at_first_start_the_master_ends(start: Start, tmp_path: Path) -> None:
    """If no worker at all can be started, the master exits with status 1, says why, and leaves
    nothing behind.
    """
    (tmp_path / "broken").write_text("0 1")
    instance = start(FRAGILE, failure_budget=2, backoff_max=0.1)
    _assert_never_started(instance)
    [told] = instance.events("cannot_start")
    assert "finds no database" in told["reason"]
    assert len(instance.events("worker_lost")) == 4


def test_an_import_failure_at_first_start_ends_the_master_with_the_applications_traceback(
    start: Start,
) -> None:
    """An application that cannot be imported ends the master with status 1 and the application's
    own traceback, once and without a frame of wssup's.
    """
    instance = start("def connect():\n    return {}['database']\n\nconnect()\n")
    _assert_never_started(instance)
    [told] = instance.events("cannot_start")
    assert "importing application:app failed: KeyError: 'database'" in told["reason"]
    traceback = told["exception"]
    assert traceback.count("File ") == 2
    assert 'application.py", line 2, in connect' in traceback
    assert instance.logged().count("Traceback") == 1
    assert instance.events("worker_lost") == []


def test_a_killed_zygote_comes_back_with_the_same_code(start: Start) -> None:
    """A killed zygote is started again, a worker killed at the same time is respawned from it, and
    with unchanged files the generation is not mixed.
    """
    instance = start()
    instance.running()
    zygote, victim = instance.zygote(), instance.workers()[0]
    os.kill(zygote, signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    status = instance.wait(lambda s: _ready(s, 0, victim), "the worker")
    [restarted] = instance.wait_logged("zygote_restarted")
    assert restarted["pid"] == instance.zygote() != zygote
    assert status["mixed"] is False
    assert status["generation"] == _slot(status, 0)["workers"][0]["generation"] == 1
    assert instance.events("generation_mixed") == []
    [lost] = instance.events("zygote_lost")
    assert lost["reason"] == "killed by SIGKILL"


def test_a_zygote_that_finds_other_code_makes_the_generation_mixed(start: Start) -> None:
    """When the application's files changed before a killed zygote was started again, status and log
    say that the generation is mixed, its new workers run the new code, and a reload mends it.
    """
    instance = start()
    instance.running()
    instance.edit("original", "changed")
    os.kill(instance.zygote(), signal.SIGKILL)
    instance.wait_logged("zygote_restarted")
    instance.wait(lambda s: s["mixed"] is True, "the generation to be mixed")
    [told] = instance.events("generation_mixed")
    assert told["level"] == "warning"
    victim = instance.workers()[0]
    os.kill(victim, signal.SIGKILL)
    instance.wait(lambda s: _ready(s, 0, victim), "the worker")
    address = instance.address()
    marks: dict[str, str] = {}

    def both_seen() -> bool:
        slot, _, _, mark = _who(address)
        marks[slot] = mark
        return len(marks) == 2

    processes.until(both_seen, 60, "an answer of each slot")
    assert marks == {"0": "changed", "1": "original"}
    assert instance.run("reload").returncode == 0
    assert instance.status()["mixed"] is False


def test_a_killed_master_frees_its_port_at_once_and_a_new_one_takes_over(start: Start) -> None:
    """When the master is killed, workers close their listeners first, then their connections with
    1012 spread over a short window, and end by themselves; a new master of the same name starts on
    the same port meanwhile and removes what the dead one left.
    """
    window = 5.0
    instance = start(drain_window=window)
    instance.running()
    address = instance.address()
    # Whom the zygote has forked a worker through may be there, ended, for a moment.
    family = {pid for pid in processes.descendants(instance.pid) if processes.alive(pid)}
    assert len(family) == 3
    old_segment = instance.segment()
    with raw_clients(address, 20) as clients:
        instance.signal(signal.SIGKILL)
        killed = time.monotonic()
        instance.process.wait()
        host, _, port = address.rpartition(":")

        def bindable() -> bool:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, int(port)))
                    probe.listen()
                except OSError:
                    return False
                return True

        processes.until(bindable, 20, "the port to be free")
        waiting = [c for c in clients if not _has_ended(c)]
        assert waiting, "the port was free only after all connections had ended"
        assert (instance.runtime_dir / "test" / "control.sock").is_socket()
        assert instance.segment() == old_segment
        assert old_segment.exists()
        successor = start(bind=address)
        ends = endings(clients)
        assert {e.code for e in ends} == {1012}
        times = [e.at - killed for e in ends]
        assert max(times) - min(times) > window / 4, times
    processes.until(lambda: not any(processes.alive(p) for p in family), 60, "the orphans to end")
    successor.running()
    assert _who(successor.address())[3] == "original"
    assert not old_segment.exists()
    ours = old_segment.name.rpartition("-")[0]
    assert [p for p in old_segment.parent.iterdir() if p.name.startswith(ours)] == [
        successor.segment()
    ]


def _has_ended(client: Raw) -> bool:
    """Whether the server has closed, or has said that it will."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.socket.settimeout(60)
