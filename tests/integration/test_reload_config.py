"""A reload reads the configuration again, and applies what can change while the service runs."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import trio

from tests.harness import kernel, processes
from tests.harness.clients import aside, ask, crowd, prober
from tests.harness.instance import ECHO, Instance

Start = Callable[..., Instance]

#: Addresses on which the kernel chooses the port, so that no other process is there.
_FIRST, _SECOND, _THIRD = "127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"


async def _reload(instance: Instance, *options: str) -> str:
    done = await aside(instance.run, "reload", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def _who(address: str, count: int) -> set[tuple[str, str]]:
    """Slot and generation of those who answer so many times."""
    answers = [await ask(f"ws://{address}/", "who") for _ in range(count)]
    return {(answer.split()[0], answer.split()[1]) for answer in answers}


async def test_an_added_address_is_served_at_once(start: Start) -> None:
    """A bind address that the file gained is served by the old workers while the new ones start,
    and then by each of the new ones on a listener of its own.
    """
    instance = start(bind=[_FIRST])
    instance.running()
    url = instance.url()
    gate = instance.home / "gate"
    instance.source.write_text(
        "from contextlib import asynccontextmanager\nimport trio\n\n@asynccontextmanager\n"
        f"async def lifespan():\n    while not os.path.exists({str(gate)!r}):\n"
        f"        await trio.sleep(0.01)\n    yield\n\n{ECHO}"
    )
    async with prober(url) as probing, trio.open_nursery() as nursery:
        instance.reconfigure(bind=[_FIRST, _SECOND])
        nursery.start_soon(_reload, instance)
        status = await aside(instance.wait, lambda s: len(s["bind"]) == 2, "the second address")
        first, second = status["bind"]
        assert f"ws://{first}/" == url
        # Each slot gets half of the connections.
        assert await _who(second, 30) == {("0", "1"), ("1", "1")}
        gate.touch()
        await aside(instance.wait, lambda s: s["last_reload"], "the reload to end")
        assert await _who(second, 30) == {("0", "2"), ("1", "2")}
        assert probing.failures == []
    listeners = kernel.listening(_port(second))
    assert len(listeners) == 2
    held = [kernel.holds(pid) & listeners for pid in instance.workers().values()]
    assert [len(h) for h in held] == [1, 1]
    assert held[0] != held[1]


class _End(NamedTuple):
    """How an address came to its end; times in seconds since the epoch."""

    last_answer: float
    failed: float
    error: Exception


async def _use_up(address: str) -> _End:
    """Connect until it fails."""
    answered = 0.0
    while True:
        try:
            await ask(f"ws://{address}/")
        except Exception as error:  # noqa: BLE001 - how it ends is looked at by the test
            return _End(answered, time.time(), error)
        answered = time.time()


async def test_a_removed_address_lingers_then_refuses(start: Start) -> None:
    """A bind address that the file lost is served for address_linger more, then refused; nobody is
    kept waiting or reset meanwhile, and the other address notices nothing.
    """
    instance = start(bind=[_FIRST, _SECOND], address_linger=4)
    instance.running()
    first, second = instance.status()["bind"]
    ends: list[_End] = []
    async with prober(f"ws://{first}/") as probing, trio.open_nursery() as nursery:

        async def use_up() -> None:
            ends.append(await _use_up(second))

        nursery.start_soon(use_up)
        instance.reconfigure(bind=[_FIRST])
        await _reload(instance)
        assert instance.status()["bind"] == [first]
        await aside(instance.wait_logged, "address_closed")
    assert probing.failures == []
    (end,) = ends
    assert "all attempts to connect" in str(end.error)
    retiring = instance.events("address_retiring")[0]
    assert retiring["bind"] == second
    assert end.last_answer - _seconds(retiring) > 0.5
    # It lingers until then; that it is closed is logged when it was.
    assert end.failed - _seconds(retiring) >= 0.9
    assert not kernel.listening(_port(second))
    assert len(kernel.listening(_port(first))) == 2
    assert instance.status()["retiring"] == []


async def test_a_removed_address_is_closed_by_who_gives_it_back(start: Start) -> None:
    """A worker that accepts for a stalled one at an address that is removed, and gives that back
    while the address ends, has it closed as everybody.
    """
    instance = start(
        bind=[_FIRST, _SECOND], address_linger=10, settle=0, stall_after=3, hang_after=300
    )
    instance.running()
    second = instance.status()["bind"][1]
    instance.reconfigure(bind=[_FIRST])
    await _reload(instance)
    stalled = instance.workers()[0]
    os.kill(stalled, signal.SIGSTOP)
    try:
        await aside(instance.wait, lambda s: s["slots"][0]["lent_to"] == 1, "the loan")
        await aside(instance.wait, lambda s: not s["retiring"], "the end of the linger")
    finally:
        os.kill(stalled, signal.SIGCONT)
    await aside(instance.wait, lambda s: s["slots"][0]["lent_to"] is None, "it to be given back")
    await aside(instance.wait_logged, "address_closed")
    port = _port(second)
    await aside(processes.until, lambda: not kernel.listening(port), 30, "it to be closed")


def _seconds(entry: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(entry["timestamp"]).timestamp()


async def test_a_lingering_address_can_come_back(start: Start) -> None:
    """An address that a second reload wants back, while it still lingers, stays for good, although
    its linger would have ended while that reload still imports.
    """
    instance = start(bind=[_FIRST, _SECOND, _THIRD], address_linger=12, settle=0.1)
    instance.running()
    _, second, third = instance.status()["bind"]
    async with prober(f"ws://{second}/") as probing, trio.open_nursery() as nursery:
        instance.reconfigure(bind=[_FIRST])
        await aside(instance.ask, "reload")
        assert instance.status()["retiring"] == [second, third]
        instance.hold_import()
        instance.reconfigure(bind=[_FIRST, _SECOND])
        nursery.start_soon(aside, instance.ask, "reload")
        # It was removed at the same moment: its end is that of the other's linger.
        (closed,) = await aside(instance.wait_logged, "address_closed")
        assert closed["bind"] == third
        instance.let_import()
        await aside(instance.wait, lambda s: s["generation"] == 3, "the second reload")
        await probing.rounds(4)
        assert probing.failures == []
    assert instance.status()["bind"][1] == second
    assert len(instance.events("address_closed")) == 1


async def test_an_address_in_use_refuses_the_reload(start: Start) -> None:
    """A new address that another process has refuses the reload, names it, and touches nothing: no
    process, no listener, no connection.
    """
    instance = start(bind=[_FIRST])
    instance.running()
    before = instance.status()
    async with crowd(instance.url(), 20) as people:
        family = processes.children(instance.pid)
        with socket.create_server(("127.0.0.3", 0)) as holder:
            taken = "{}:{}".format(*holder.getsockname())
            instance.reconfigure(bind=[_FIRST, _SECOND, taken], workers=3)
            done = await aside(instance.run, "reload")
        assert done.returncode == 1
        assert f"bind address {taken} is in use by pid {os.getpid()}" in done.stderr
        after = instance.status()
        assert after["last_reload"]["outcome"] == "refused"
        assert taken in after["last_reload"]["reason"]
        assert processes.children(instance.pid) == family
        for key in ("bind", "retiring", "generation", "workers", "state"):
            assert after[key] == before[key]
        assert not people.closed
        held = kernel.holds(instance.pid)
        assert held & kernel.listening(_port(before["bind"][0]))
        # Free by now: the same file is accepted.
        await _reload(instance)
        assert instance.status()["bind"][2] == taken
        assert instance.status()["workers"] == 3


async def test_an_address_that_is_taken_meanwhile_refuses_the_reload(start: Start) -> None:
    """An address that another process takes while the new code is imported refuses the reload."""
    instance = start(bind=[_FIRST])
    instance.running()
    with socket.create_server(("127.0.0.3", 0)) as probe:
        wanted = "{}:{}".format(*probe.getsockname())
    instance.hold_import()
    instance.reconfigure(bind=[_FIRST, _SECOND, wanted])
    async with trio.open_nursery() as nursery:
        results: list[dict[str, Any]] = []

        async def reload() -> None:
            results.append(await aside(instance.ask, "reload"))

        nursery.start_soon(reload)
        await aside(instance.wait_logged, "reload_phase")
        # SO_REUSEADDR lets others bind what is bound and does not listen yet (socket(7)).
        with socket.create_server(("127.0.0.3", _port(wanted))):
            instance.let_import()
            await aside(instance.wait, lambda s: s["last_reload"], "the reload to end")
    (answer,) = results
    assert answer["result"]["outcome"] == "refused"
    assert f"bind address {wanted} is in use by pid {os.getpid()}" in answer["result"]["reason"]
    status = instance.status()
    assert (status["generation"], len(status["bind"]), status["retiring"]) == (1, 1, [])
    await _reload(instance)
    assert instance.status()["bind"][2] == wanted


async def test_a_failed_reload_takes_its_address_back(start: Start) -> None:
    """An address that a reload added is retired when the reload is rolled back."""
    instance = start(bind=[_FIRST], address_linger=0.1)
    instance.running()
    first = instance.status()["bind"][0]
    instance.source.write_text(
        "from contextlib import asynccontextmanager\n\n@asynccontextmanager\n"
        "async def lifespan():\n    raise RuntimeError('no cache')\n    yield\n\n" + ECHO
    )
    instance.reconfigure(bind=[_FIRST, _SECOND], workers=3)
    done = instance.run("reload")
    assert done.returncode == 1
    (entry,) = instance.wait_logged("address_closed")
    assert entry["bind"].startswith("127.0.0.2:")
    status = instance.status()
    assert (status["bind"], status["retiring"]) == ([first], [])
    assert (status["workers"], status["generation"]) == (2, 1)
    assert await _who(first, 30) == {("0", "1"), ("1", "1")}


async def test_worker_count_applies(start: Start) -> None:
    """A reload goes by the file's number of workers, up and down, while everybody can connect."""
    instance = start(settle=0.1, drain_window=0.1)
    instance.running()
    async with prober(instance.url()) as probing:
        for count in (3, 1):
            instance.reconfigure(workers=count)
            await _reload(instance)
            status = await aside(
                instance.wait,
                lambda s, count=count: _serving(s) == set(range(count)),
                f"{count} workers alone",
            )
            assert status["workers"] == count
        await probing.rounds(4)
        assert probing.failures == []
        assert probing.answers[-1].split()[:2] == ["0", "3"]


def _serving(status: dict[str, Any]) -> set[int] | None:
    """The slots with a ready worker; None while other workers are there."""
    workers = [(s["slot"], w["state"]) for s in status["slots"] for w in s["workers"]]
    return {s for s, _ in workers} if {state for _, state in workers} == {"ready"} else None


def test_a_setting_that_needs_a_restart_is_named(start: Start) -> None:
    """A changed setting that cannot change live is named by the reload, which applies the rest."""
    instance = start(settle=0.1)
    instance.running()
    backlog = instance.status()["limits"]["backlog"]
    instance.reconfigure(backlog=7, drain_timeout=11)
    done = instance.run("reload")
    assert done.returncode == 0
    assert "backlog cannot change while the service runs; restart it for that" in done.stdout
    assert "drain_timeout" not in done.stdout
    assert instance.status()["limits"]["backlog"] == backlog
    in_force = {s["key"]: s["value"] for s in instance.ask("config")["result"]["settings"]}
    assert (in_force["drain_timeout"], in_force["backlog"]) == (11, 4096)


def test_a_bad_value_refuses_the_reload(start: Start) -> None:
    """A bad value in the file refuses the reload, whoever asks for it, with key, value and line."""
    instance = start()
    instance.running()
    workers = instance.workers()
    instance.reconfigure(settle="soon")
    line = next(
        number
        for number, text in enumerate(instance.config.read_text().splitlines(), 1)
        if text.startswith("settle")
    )
    said = rf"settle = 'soon' \(from \S*test\.toml:{line}\)"
    # The command reads the file too, to find the instance: a mistake in the command (status 2).
    by_file = instance.run("reload")
    assert by_file.returncode == 2
    assert re.search(said, by_file.stderr)
    assert "last_reload" not in by_file.stdout
    assert instance.status()["last_reload"] is None
    instance.signal(signal.SIGHUP)
    status = instance.wait(lambda s: s["last_reload"], "the reload to be refused")
    assert status["last_reload"]["outcome"] == "refused"
    assert re.search(said, status["last_reload"]["reason"])
    answer = instance.ask("reload")["result"]
    assert answer["outcome"] == "refused"
    assert re.search(said, answer["reason"])
    assert instance.workers() == workers
    assert instance.status()["state"] == "running"


def _release(home: Path, number: int) -> None:
    """A release as deployment tools make it: a directory, and a link that is replaced at once."""
    release = home / "releases" / str(number)
    release.mkdir(parents=True)
    (release / "application.py").write_text(ECHO.replace("original", f"release{number}"))
    fresh = home / "current.new"
    fresh.symlink_to(release)
    fresh.replace(home / "current")


async def _marks(instance: Instance, count: int = 16) -> set[str]:
    return {(await ask(instance.url(), "who")).split()[3] for _ in range(count)}


async def test_a_switched_link_waits_for_the_reload(start: Start, tmp_path: Path) -> None:
    """With app_dir behind a link that a deployment switches, a worker and a zygote that die before
    the reload come back with the old release's code, and the reload brings the new one.
    """
    _release(tmp_path, 1)
    instance = start(app_dir=str(tmp_path / "current"))
    instance.running()
    assert await _marks(instance) == {"release1"}
    _release(tmp_path, 2)
    for victim in (instance.workers()[0], instance.zygote(), instance.workers()[1]):
        os.kill(victim, signal.SIGKILL)
        processes.until(lambda pid=victim: not processes.alive(pid), 10, "the kill")
        instance.running()
    instance.wait(
        lambda s: all(x["state"] == "ready" for x in s["slots"]) and s["restarts"] == 2,
        "both workers to be back",
    )
    assert len(instance.wait_logged("zygote_restarted")) == 1
    assert await _marks(instance) == {"release1"}
    assert instance.status()["mixed"] is False
    await _reload(instance)
    assert await _marks(instance) == {"release2"}
