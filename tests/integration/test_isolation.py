"""What processes share and what they do not, as /proc shows it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.harness import fresh, kernel, processes
from tests.harness.instance import ECHO, Instance
from tests.harness.raw import Raw

Start = Callable[..., Instance]

_TWO_ADDRESSES = ["127.0.0.1:0", "127.0.0.2:0"]
#: Every worker has what the application opened at import.
_OPENER = f"opened = open(__file__)\n{ECHO}"


def _loop() -> Counter[str]:
    """What a trio loop that takes signals has open, found out in a Python of its own."""
    names = fresh.python("""
        def names():
            found = {}
            for number in os.listdir("/proc/self/fd"):
                try:
                    found[number] = os.readlink(f"/proc/self/fd/{number}")
                except FileNotFoundError:
                    pass  # that of listdir() itself
            return found

        before = names()

        async def main():
            with trio.open_signal_receiver(signal.SIGTERM):
                print(json.dumps([name for n, name in names().items() if n not in before]))

        trio.run(main)
    """)
    return Counter("stream" if name.startswith("socket:") else name for name in json.loads(names))


def _replaced(slot: int, pid: int, status: dict[str, Any]) -> bool:
    """Whether the slot is served by another worker than this one, which is gone."""
    found = status["slots"][slot]
    return found["state"] == "ready" and pid not in [w["pid"] for w in found["workers"]]


def _ports(instance: Instance) -> list[int]:
    return [int(address.rpartition(":")[2]) for address in instance.status()["bind"]]


def _kinds(instance: Instance, pid: int, ports: list[int]) -> Counter[str]:
    """The descriptors of a process by what they are; what is not expected keeps its name."""
    known = {
        "/dev/null": "null",
        str(instance.log): "log",
        str(instance.segment()): "scoreboard",
        str(instance.source): "application's",
    }
    for port in ports:
        known |= dict.fromkeys(kernel.listening(port), f"listener {port}")
    known |= {name: kind for name, (kind, path) in kernel.unix_sockets().items() if not path}
    return Counter(known.get(name, name) for name in kernel.descriptors(pid).values())


def _expected_of_worker(instance: Instance, ports: list[int]) -> Counter[str]:
    return (
        Counter({"null": 1, "log": 2, "application's": 1, "seqpacket": 1})
        + Counter(f"listener {port}" for port in ports)
        # shared_memory may keep a descriptor beside the mapping's own.
        + Counter({"scoreboard": _scoreboards(instance.zygote(), instance)})
        + _loop()
        # The pump's own epoll, and what wakes it.
        + Counter({"anon_inode:[eventpoll]": 1, "anon_inode:[eventfd]": 1})
        # A link to each other worker, and what wakes a worker whose threads publish.
        + Counter({"stream": len(instance.workers()) - 1, "anon_inode:[eventfd]": 1})
    )


def _scoreboards(pid: int, instance: Instance) -> int:
    found = list(kernel.descriptors(pid).values()).count(str(instance.segment()))
    assert found in {1, 2}
    return found


def _until_workers_have(
    instance: Instance, ports: list[int], expected: Counter[str]
) -> dict[int, set[str]]:
    """Wait until every worker has just these descriptors; its sockets by slot.

    Listeners that were lent while a slot started are returned a moment after it is ready.
    """
    seen: list[Counter[str]] = []

    def fact() -> bool:
        seen[:] = [_kinds(instance, pid, ports) for pid in instance.workers().values()]
        return all(kinds == expected for kinds in seen)

    try:
        processes.until(fact, 60, "the descriptors")
    except AssertionError:
        # These say what is different.
        assert seen == [expected] * len(seen)
    return {slot: kernel.holds(pid) for slot, pid in instance.workers().items()}


def _check_listeners(ports: list[int], sockets: dict[int, set[str]]) -> None:
    """Each slot has a listener per address, and no two have the same."""
    for port in ports:
        listening = kernel.listening(port)
        assert [len(held & listening) for held in sockets.values()] == [1] * len(sockets)
        assert set().union(*(held & listening for held in sockets.values())) == listening


def test_a_worker_has_its_own_descriptors_alone(start: Start) -> None:
    """A worker has open: standard input and output, the listeners of its slot, its channel, the
    scoreboard, its loop's, what the application opened at import; and nothing else.
    """
    instance = start(_OPENER, bind=_TWO_ADDRESSES, workers=3)
    instance.running()
    ports = _ports(instance)
    zygote = instance.zygote()
    sockets = _until_workers_have(instance, ports, _expected_of_worker(instance, ports))
    _check_listeners(ports, sockets)
    # A worker may serve before the zygote is through with its fork.
    of_workers = set().union(*map(kernel.holds, instance.workers().values()))
    processes.until(lambda: not kernel.holds(zygote) & of_workers, 10, "the last fork's end")
    for pid in instance.workers().values():
        standard = [kernel.descriptors(pid)[number] for number in range(3)]
        assert standard == ["/dev/null", str(instance.log), str(instance.log)]
        # No end of a zygote's channel, no end of the master's, and no control socket.
        assert kernel.holds(pid) & kernel.holds(zygote) == set()
        listening = set().union(*map(kernel.listening, ports))
        assert kernel.holds(pid) & kernel.holds(instance.pid) <= listening
    # Listeners that passed through the zygote would stay alive in it.
    expected = Counter(
        {
            "null": 1,
            "log": 2,
            "application's": 1,
            "seqpacket": 1,
            "scoreboard": _scoreboards(zygote, instance),
        }
    )
    processes.until(lambda: _kinds(instance, zygote, ports) == expected, 10, "the last fork's end")


def test_a_returned_loan_leaves_no_descriptors(start: Start) -> None:
    """A worker that accepted from another slot's listeners has none of them once they were
    returned.
    """
    instance = start(_OPENER, bind=_TWO_ADDRESSES, backoff_min=6)
    instance.running()
    ports = _ports(instance)
    expected = _expected_of_worker(instance, ports)
    before = _until_workers_have(instance, ports, expected)
    victim, borrower = instance.workers()[0], instance.workers()[1]
    os.kill(victim, signal.SIGKILL)
    lent = set().union(*map(kernel.listening, ports)) & before[0]
    assert len(lent) == 2
    processes.until(lambda: lent <= kernel.holds(borrower), 60, "the loan")
    instance.wait(
        lambda s: s["slots"][0]["state"] == "ready" and s["slots"][0]["lent_to"] is None,
        "the return",
    )
    assert instance.workers()[0] != victim
    after = _until_workers_have(instance, ports, expected)
    # The link to the other worker is another one, as that is another worker.
    assert [len(after[1] - before[1]), len(before[1] - after[1])] == [1, 1]
    assert not lent & after[1]
    assert lent <= after[0]
    _check_listeners(ports, after)


def test_parents_and_sessions(start: Start) -> None:
    """The master is the parent of all workers and of the zygote, and neither is in its session, so
    that a terminal's signals reach the master alone.
    """
    instance = start()
    instance.running()
    workers = list(instance.workers().values())
    zygote = instance.zygote()
    assert processes.children(instance.pid) == {zygote, *workers}
    # A worker may serve before the zygote has reaped whom it came through.
    processes.until(lambda: processes.children(zygote) == set(), 10, "the last fork's end")
    for pid in (zygote, *workers):
        assert os.getsid(pid) != os.getsid(instance.pid)
        assert os.getpgid(pid) != os.getpgid(instance.pid)


def test_random_numbers_differ_between_workers(start: Start) -> None:
    """Workers that were forked from one process do not draw the same random numbers."""
    instance = start("""\
import os
import random

random.random()
drawn = None

async def app(request):
    global drawn
    drawn = drawn or random.random()
    ws = await request.accept()
    await ws.send_message(f"{os.getpid()} {drawn}")
""")
    instance.running()
    pids = set(instance.workers().values())
    drawn: dict[int, str] = {}

    def both_drew() -> bool:
        with Raw(instance.address()) as client:
            pid, number = client.open().frame()[1].decode().split()
            client.ending()
        drawn.setdefault(int(pid), number)
        return set(drawn) == pids

    processes.until(both_drew, 60, "an answer of each worker")
    assert len(set(drawn.values())) == 2


def test_no_zombies(start: Start) -> None:
    """After a reload, and after kills of a worker and of the zygote, nobody is left unreaped."""
    instance = start(settle=0.05, drain_window=0.05)
    instance.running()
    first = instance.workers()
    assert instance.ask("reload")["result"]["outcome"] == "done"
    worker, zygote = instance.workers()[0], instance.zygote()
    os.kill(zygote, signal.SIGKILL)
    instance.wait_logged("zygote_restarted")
    os.kill(worker, signal.SIGKILL)
    instance.wait(partial(_replaced, 0, worker), "the successor")
    family: dict[int, str] = {}

    def reaped() -> bool:
        family.clear()
        family.update({pid: processes.state(pid) for pid in processes.descendants(instance.pid)})
        return len(family) == 3 and "Z" not in family.values()

    processes.until(reaped, 60, "two workers and a zygote")
    assert not {worker, zygote, *first.values()} & set(family)


def test_the_master_loses_no_descriptors(start: Start) -> None:
    """After ten killed workers and three reloads the master has the same descriptors as before, and
    so have the workers.
    """
    instance = start(
        settle=0.05, drain_window=0.05, backoff_min=0.01, failure_budget=100, bind=_TWO_ADDRESSES
    )
    instance.running()
    ports = _ports(instance)
    before = _settled(instance, ports)
    at_first = _kinds(instance, instance.workers()[0], ports)
    for _ in range(3):
        assert instance.ask("reload")["result"]["outcome"] == "done"
    for number in range(10):
        slot = number % 2
        victim = instance.workers()[slot]
        os.kill(victim, signal.SIGKILL)
        instance.wait(partial(_replaced, slot, victim), "the successor")
    assert instance.status()["restarts"] == 10
    seen: list[Counter[str]] = []

    def same() -> bool:
        seen[:] = [_settled(instance, ports)]
        return seen == [before]

    try:
        processes.until(same, 60, "the descriptors")
    except AssertionError:
        assert seen == [before]
    _until_workers_have(instance, ports, at_first)


def _settled(instance: Instance, ports: list[int]) -> Counter[str]:
    """The master's descriptors once it has let go of our last request and of ended processes."""

    def conversations() -> int:
        control = str(instance.runtime_dir / instance.name / "control.sock")
        held = kernel.holds(instance.pid)
        paths = [path for name, (_, path) in kernel.unix_sockets().items() if name in held]
        return paths.count(control) - 1

    processes.until(lambda: conversations() == 0, 60, "the end of the last request")
    kinds = _kinds(instance, instance.pid, ports)
    # The listener of the control socket has a path, and is named by its number.
    return Counter({kind.partition(":[")[0]: count for kind, count in kinds.items()})


def test_memory_is_shared(start: Start) -> None:
    """What the application built at import is not copied into a worker by a garbage collection: its
    objects are frozen, and the worker's private memory is far below the zygote's.
    """
    instance = start(
        """\
import gc

data = [[number] for number in range(400_000)]

async def app(request):
    ws = await request.accept()
    gc.collect()
    await ws.send_message(str(gc.get_freeze_count()))
""",
        workers=1,
    )
    instance.running()
    with Raw(instance.address()) as client:
        assert int(client.open().frame()[1]) > 400_000
        client.ending()
    zygote = _memory(instance.zygote(), "Rss")
    worker = _memory(instance.workers()[0], "Private_Dirty")
    # The lists alone are 400 000 times 64 bytes and more.
    assert zygote > 40 * (1 << 20)
    assert worker < zygote / 3


def _memory(pid: int, key: str) -> int:
    """Bytes of one kind of memory (smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {key} in smaps_rollup")
