"""Which worker gets a new connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.harness.instance import Instance
from tests.harness.raw import Raw, spread_clients

Start = Callable[..., Instance]

WORKERS = 3
#: New connections within which an empty worker has nearly as many as the others; drawn alike it
#: would stay behind by what it lacks.
ENOUGH = 500


def _slot(client: Raw) -> int:
    return int(client.ask("who").split()[0])


def _met(address: str, source: str) -> int:
    """The slot that a connection from an address comes to."""
    with Raw(address, source=source) as client:
        slot = _slot(client.open())
        client.close()
        return slot


def test_who_gets_a_new_connection(start: Start, tmp_path: Path) -> None:
    """By source, connections from one address meet one slot, and those from others another one. A
    reload to "least" changes that: a worker that starts empty gets the new ones until it has its
    part. And where all accept from one queue, connections do not wait for the worker that has the
    fewest when it is stopped.
    """
    unix = f"unix:{tmp_path}/all.sock"
    bind = ["127.0.0.1:0", unix]
    instance = start(bind=bind, workers=WORKERS, steering="source", stall_after=300, hang_after=400)
    instance.running()
    address = instance.address()
    sources = [f"127.0.{n}.{3 * n + 2}" for n in range(12)]
    met = {source: {_met(address, source) for _ in range(3)} for source in sources}
    assert {len(slots) for slots in met.values()} == {1}, met
    assert len({slot for slots in met.values() for slot in slots}) > 1

    instance.reconfigure(steering="least")
    assert instance.run("reload").returncode == 0
    with spread_clients(address, WORKERS, 24) as clients:
        victim = instance.workers()[0]
        os.kill(victim, signal.SIGKILL)
        instance.wait(
            lambda s: (
                s["slots"][0]["state"] == "ready"
                and s["slots"][0]["workers"][0]["pid"] != victim
                and s["slots"][0]["lent_to"] is None
            ),
            "the successor",
        )
        has = {slot: len(clients[slot]) if slot else 0 for slot in range(WORKERS)}
        with ExitStack() as stack:
            for _ in range(ENOUGH):
                has[_slot(stack.enter_context(Raw(address)).open())] += 1
                if has[0] >= 0.9 * max(has.values()):
                    break
            else:
                raise AssertionError(f"the empty worker stayed behind: {has}")

        fresh_worker = instance.workers()[0]
        os.kill(fresh_worker, signal.SIGSTOP)
        try:
            with ExitStack() as stack:
                through = [stack.enter_context(Raw(unix)) for _ in range(4)]
                assert {_slot(client.open()) for client in through} <= {1, 2}
        finally:
            os.kill(fresh_worker, signal.SIGCONT)
