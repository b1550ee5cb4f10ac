"""What all tests of handoffs do: reload, and compare what was counted and noted."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from tests.harness import kernel, processes
from tests.harness.instance import Instance
from tests.harness.oracle import Oracle
from tests.harness.oracle_sockets import accounts, counts, family, holders, inodes
from wssup.scoreboard import Counts

__all__ = [
    "Note",
    "ended",
    "exact",
    "journal",
    "lives_in_the_new",
    "nothing_left",
    "reload",
    "same",
]


class Note(NamedTuple):
    """What happened to a connection, and where."""

    what: str
    generation: int
    pid: int


def reload(instance: Instance, outcome: str = "done") -> str:
    """Reload, to this outcome; what the command says."""
    done = instance.run("reload")
    status = instance.status()["last_reload"]
    assert status["outcome"] == outcome, done.stdout + done.stderr + instance.logged()
    assert (done.returncode == 0) is (outcome == "done")
    return done.stdout + done.stderr


def journal(instance: Instance) -> dict[int, list[Note]]:
    """What the application has noted, by the connection's id, in its order, without a line that is
    still being written.
    """
    found = defaultdict(list)
    for line in (instance.home / "journal").read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        what, number, generation, pid = line.split()
        found[int(number)].append(Note(what, int(generation), int(pid)))
    return dict(found)


def same(people: Oracle, before: dict[int, str]) -> None:
    """The clients that live have the sockets at the server that they had."""
    now = inodes(people.server_port, people.ports)
    assert now == {port: before[port] for port in people.ports}


def lives_in_the_new(instance: Instance, people: Oracle, old: set[int]) -> None:
    """Each client's socket is in exactly one process, a current worker, and the old processes are
    gone.
    """
    new = set(instance.workers().values())
    assert not old & new
    assert not [pid for pid in old if processes.alive(pid)]
    held = holders(family(instance), inodes(people.server_port, people.ports).values())
    assert len(held) == len(people.living)
    for name, pids in held.items():
        assert len(pids) == 1, f"{name} is in {pids}"
        assert pids <= new, f"{name} is in {pids}, the workers are {new}"


def exact(instance: Instance, people: Oracle, earlier: int = 0) -> Counts:
    """Wait until the counts are exactly what the clients and the kernel know; the counts then.

    :param earlier: connections that came and went before.
    """
    total = len(people.clients) + earlier

    def agrees() -> bool:
        found = counts(instance)
        living = len(people.living)
        return (
            found.accepted == found.upgraded == total
            and found.open == found.active == living
            and found.closed == total - living
            and kernel.established(people.server_port) == living
        )

    try:
        processes.until(agrees, 20, "the counts to be exact")
    except AssertionError as error:
        raise AssertionError(
            f"{error}: {len(people.living)} of {total} live, "
            f"{kernel.established(people.server_port)} are established; "
            f"{ended(counts(instance))}; {instance.status()['connections']}"
        ) from None
    return counts(instance)


def nothing_left(instance: Instance, before: dict[int, Counter[str]]) -> None:
    """Master and workers have open what they had before, besides connections.

    :param before: what accounts() has said.
    """
    try:
        processes.until(lambda: accounts(instance) == before, 20, "the descriptors to be as before")
    except AssertionError as error:
        raise AssertionError(f"{error}: {before} before, {accounts(instance)} now") from None


def ended(found: Counts) -> dict[str, int]:
    """How connections have ended, and how often handing over was refused (``not: …``)."""
    kinds = (
        found.closed_by_reason,
        found.refused_by_reason,
        found.handshake_failures_by_reason,
        {f"not: {name}": count for name, count in found.handoff_refused_by_reason.items()},
    )
    return {name: count for kind in kinds for name, count in kind.items() if count}
