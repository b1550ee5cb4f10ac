"""Each limit in turn is the lowest: it is named first, with exactly the count that follows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.unit.doctor.plenty import (
    GIB,
    MIB,
    PLENTY,
    WANTED,
    by_name,
    facts,
    failing,
    group,
    replaced,
    running,
    worker,
)
from wssup.config.plan import descriptors_needed
from wssup.doctor.checks import examine
from wssup.doctor.facts import Facts, Holder
from wssup.doctor.findings import Verdict, binding, ordered, overall
from wssup.doctor.plan import COSTS, Plan

TASK = COSTS["task"]
#: A connection in a worker, and in the kernel when it is idle.
EACH = 3073 + 3789
AT_REST = TASK.base + 4 * TASK.worker


def test_plenty() -> None:
    """Where nothing is short nothing is found."""
    found = examine(PLENTY, WANTED)
    assert not failing(found)
    assert overall(found) is Verdict.OK


#: What is short, in facts and plan; the check that says so; the count that follows.
SHORT: list[tuple[dict[str, Any], dict[str, Any], str, int]] = [
    ({"descriptors": {"hard": 10_064}}, {}, "descriptors per worker", 40_000),
    ({"descriptors": {"nr_open": 5_064}}, {}, "descriptors per worker", 20_000),
    ({"descriptors": {"file_max": 60_000}}, {}, "open files of the machine", 50_000 - 4 * 128),
    ({}, {"total": 77_777}, "max_connections", 77_777),
    ({}, {"per_worker": 7_000}, "worker_connections", 28_000),
    (
        {"memory": {"available": AT_REST + 5_000 * EACH}},
        {},
        "memory of the machine",
        5_000,
    ),
    (
        {"memory": {"group": group(AT_REST + 6_000 * EACH + MIB, MIB)}},
        {},
        "memory of the control group",
        6_000,
    ),
    (
        {"memory": {"group": group(AT_REST + 6_000 * (3073 + 1480), 0, version=1)}},
        {},
        "memory of the control group",
        6_000,
    ),
    (
        {"memory": {"address_space": TASK.virtual + 1_000 * 3073}},
        {},
        "address space per worker",
        4_000,
    ),
    (
        # Three helpers, two workers, one that is passing; four are somebody else's.
        {"tasks": {"group": group(10, 4), "others": 4}},
        {},
        "processes of the control group",
        2 * ((1 << 20) - 64),
    ),
    (
        {"network": {"conntrack_max": 31_000}},
        {},
        "connection tracking",
        30_000,
    ),
    (
        {"network": {"ports": 28_000}},
        {"proxies": ("127.0.0.1", "127.0.0.2")},
        "ports of the proxy",
        56_000,
    ),
]


@pytest.mark.parametrize(("short", "more", "check", "count"), SHORT)
def test_what_is_short_comes_first(
    short: dict[str, Any], more: dict[str, Any], check: str, count: int
) -> None:
    """The lowest limit is the first finding, fails, and has the count; without a number to carry it
    is the limit all the same.
    """
    wanted = replaced(WANTED, connections=5_000_000, **more)
    if check == "descriptors per worker":
        wanted = replaced(wanted, connections=100_000)
    found = ordered(examine(facts(**short), wanted))
    lowest = binding(found)
    assert lowest is not None
    assert (found[0].check, found[0].predicted) == (check, count)
    assert lowest is found[0]
    assert found[0].verdict is Verdict.FAIL
    assert found[0].remedy
    assert found[0].needed != "-"
    assert overall(found) is Verdict.FAIL

    asked = ordered(examine(facts(**short), replaced(wanted, connections=None)))
    lowest = binding(asked)
    assert lowest is not None
    assert (lowest.check, lowest.predicted) == (check, count)
    assert asked[0] is lowest


@pytest.mark.parametrize("even", [True, False])
def test_a_hash_needs_more_descriptors(even: bool) -> None:  # noqa: FBT001 - a case
    """What fits on average and not with five deviations: steering warns, a hash fails."""
    wanted = replaced(WANTED, connections=40_000, even=even)
    need = descriptors_needed(40_000, 4, 64)
    exact = by_name(examine(facts(descriptors={"hard": need}), wanted), "descriptors per worker")
    short = by_name(
        examine(facts(descriptors={"hard": need - 1}), wanted), "descriptors per worker"
    )
    assert exact.verdict is Verdict.OK
    assert short.verdict is (Verdict.WARN if even else Verdict.FAIL)
    assert "LimitNOFILE" in short.remedy


def test_no_limit_above_the_ceiling() -> None:
    """A number that is rounded up stays within fs.nr_open: beyond it nobody could log in. What
    needs more raises that, too.
    """
    wanted = Plan(connections=1_040_000, workers=1)
    here = facts(descriptors={"hard": 1024, "nr_open": 1_048_576})
    found = by_name(examine(here, wanted), "descriptors per worker")
    assert {change.value for change in found.changes} == {"1048576"}
    assert "LimitNOFILE=1048576 " in found.remedy
    beyond = examine(here, replaced(wanted, connections=1_060_000))
    (nr_open,) = by_name(beyond, "fs.nr_open").changes
    found = by_name(beyond, "descriptors per worker")
    assert {change.value for change in found.changes} == {nr_open.value} == {"1100000"}


def test_soft_limit() -> None:
    """Its soft limit is raised by wssup, and not by other servers."""
    few = facts(descriptors={"soft": 1024})
    ours = by_name(examine(few, WANTED), "descriptors per worker")
    assert ours.predicted == 4 * ((1 << 20) - 64)
    assert "raised" in ours.found
    theirs = by_name(
        examine(few, replaced(WANTED, ours=False, reserve=24)), "descriptors per worker"
    )
    assert theirs.predicted == 4 * 1000


def test_a_running_instance_is_measured() -> None:
    """Its connections are part of what is in use, and its limits and memory are its own."""
    workers = [
        worker(2_000, descriptors=2_070, soft=9_064, resident=50 * MIB, anonymous=30 * MIB),
        worker(2_000, descriptors=2_030, soft=9_064, resident=50 * MIB, anonymous=30 * MIB),
    ]
    instance = running(*workers, zygote_anonymous=26 * MIB)
    wanted = replaced(WANTED, workers=2, queues=2)
    base = Facts(
        descriptors=replaced(PLENTY.descriptors, soft=9_064, hard=1 << 20, file_used=14_000),
        memory=replaced(PLENTY.memory, available=1_000 * EACH),
        network=replaced(PLENTY.network, conntrack_count=4_500),
        counters=PLENTY.counters,
        running=instance,
    )
    found = examine(base, wanted)
    assert by_name(found, "descriptors per worker").predicted == 18_000
    assert by_name(found, "memory of the machine").predicted == 5_000
    assert by_name(found, "connection tracking").predicted == 100_000_000 - 500
    assert by_name(found, "open files of the machine").predicted == (1 << 40) - 10_000 - 256
    other = by_name(found, "descriptors for other things")
    assert (other.verdict, other.found) == (Verdict.WARN, "up to 70 in a worker")


def test_unknown() -> None:
    """What cannot be read is said to be unknown, and is neither good nor bad."""
    found = examine(Facts(), WANTED)
    assert {f.verdict for f in found} == {Verdict.UNKNOWN}
    assert overall(found) is Verdict.OK
    assert binding(found) is None


def test_memory_for_busy_connections() -> None:
    """Memory that is enough for idle connections and not for busy ones is a warning."""
    room = AT_REST + 100_000 * EACH + MIB
    found = by_name(examine(facts(memory={"available": room}), WANTED), "memory of the machine")
    assert found.verdict is Verdict.WARN


def test_workers_that_do_not_exist_yet() -> None:
    """Beside an instance that runs, what more workers take counts, too."""
    here = replaced(
        facts(memory={"available": 2 * TASK.worker + 1_000 * EACH}),
        running=running(worker(10), worker(10)),
    )
    found = by_name(examine(here, replaced(WANTED, workers=4)), "memory of the machine")
    assert found.predicted == 20 + 1_000


def test_reload_in_waves() -> None:
    """With max_surge as many workers are there twice, and their connections."""
    grown = AT_REST + 100_000 * EACH
    wave = 2 * TASK.resident + 50_000 * 3073
    wanted = replaced(WANTED, surge=2)
    enough = examine(facts(memory={"available": grown + wave}), wanted)
    short = examine(facts(memory={"available": grown + wave - 1}), wanted)
    assert by_name(enough, "memory while reloading").verdict is Verdict.OK
    assert by_name(short, "memory while reloading").verdict is Verdict.WARN
    one = by_name(
        examine(facts(memory={"available": grown}), replaced(WANTED, surge=1)),
        "memory while reloading",
    )
    assert one.remedy == "more memory"
    # Three helpers, four workers, one more and its passing one, and one that passes anyway.
    limits = {"group": group(10, 0)}
    for surge, verdict in ((1, Verdict.OK), (2, Verdict.WARN), (0, Verdict.WARN)):
        found = examine(facts(tasks=limits), replaced(WANTED, surge=surge))
        assert by_name(found, "processes of the control group").verdict is verdict


def test_another_server_is_not_doubled() -> None:
    """Only wssup is known to have two generations of workers at a time."""
    theirs = replaced(WANTED, ours=False)
    limits = {"group": group(8, 0), "nproc": 8}
    found = examine(facts(tasks=limits), theirs)
    assert by_name(found, "processes of the control group").verdict is Verdict.OK
    assert by_name(found, "processes of the user").verdict is Verdict.OK


def test_what_the_user_runs_already() -> None:
    """RLIMIT_NPROC is of all that the user runs (getrlimit(2))."""
    needed = 4 + 4 + 1 + 3 + 1
    for nproc, verdict in ((100 + needed, Verdict.OK), (99 + needed, Verdict.FAIL)):
        found = examine(facts(tasks={"nproc": nproc, "users": 100}), WANTED)
        assert by_name(found, "processes of the user").verdict is verdict


def test_no_more_workers_than_there_may_be() -> None:
    """Where more workers would do it, it is said that their number has a limit, too."""
    here = facts(descriptors={"hard": 1024})
    found = by_name(examine(here, replaced(WANTED, most=64)), "descriptors per worker")
    assert re.search(r"or --workers ([0-9]+) with max_workers = \1$", found.remedy)
    found = by_name(examine(here, replaced(WANTED, most=1000)), "descriptors per worker")
    assert re.search("or --workers [0-9]+$", found.remedy)
    found = by_name(examine(here, replaced(WANTED, ours=False, most=1000)), "fs.nr_open")
    assert "--workers" not in found.remedy


def test_a_socket_unit() -> None:
    """The service manager listens for a service that is not running: nothing is in the way."""
    holder = (Holder("0.0.0.0:80", "pid 1 (/sbin/init)", unit=True),)
    found = by_name(examine(replaced(PLENTY, holders=holder), WANTED), "other listener")
    assert (found.verdict, found.predicted) == (Verdict.OK, None)
    assert "a socket unit listens for it" in found.found


def test_reload_needs_memory_twice() -> None:
    """Two generations must fit: workers, and what each connection has in them."""
    grown = AT_REST + 100_000 * EACH
    twice = 4 * TASK.resident + 100_000 * 3073
    enough = examine(facts(memory={"available": grown + twice}), WANTED)
    short = examine(facts(memory={"available": grown + twice - 1}), WANTED)
    assert by_name(enough, "memory while reloading").verdict is Verdict.OK
    assert by_name(short, "memory while reloading").verdict is Verdict.WARN


def test_processes_while_reloading() -> None:
    """All workers may be there, and not twice as many."""
    limits = {"group": group(12, 1), "others": 1}
    found = by_name(examine(facts(tasks=limits), WANTED), "processes of the control group")
    assert (found.verdict, found.predicted) == (Verdict.WARN, None)
    assert "TasksMax=" in found.remedy


def test_somebody_else_listens() -> None:
    """Before a start nothing will run; beside an instance he takes some of its connections."""
    holder = (Holder("0.0.0.0:80", "pid 7 (nginx)"),)
    before = ordered(examine(replaced(PLENTY, holders=holder), WANTED))
    assert (before[0].check, before[0].verdict, before[0].predicted) == (
        "other listener",
        Verdict.FAIL,
        0,
    )
    beside = examine(replaced(PLENTY, holders=holder, running=running(worker(0))), WANTED)
    assert by_name(beside, "other listener").predicted is None


@given(
    hard=st.integers(100, 1 << 20),
    workers=st.integers(1, 64),
    total=st.integers(0, 100_000),
    each=st.integers(0, 50_000),
    available=st.integers(0, 100 * GIB),
)
@examples(max_examples=25)
def test_the_first_is_the_lowest(
    hard: int, workers: int, total: int, each: int, available: int
) -> None:
    """Whatever the limits are: the one that is named is the lowest, and what it says is carried
    exactly.
    """
    wanted = Plan(workers=workers, total=total, per_worker=each)
    here = facts(descriptors={"hard": hard}, memory={"available": available})
    lowest = binding(examine(here, wanted))
    assert lowest is not None
    count = lowest.predicted
    assert count is not None
    found = examine(here, replaced(wanted, connections=max(1, count)))
    limits = [f for f in found if f.predicted is not None and f.of == "connections"]
    if count:
        assert not [f.check for f in limits if f.verdict is Verdict.FAIL and f.predicted < count]
    beyond = ordered(examine(here, replaced(wanted, connections=count + 1)))
    assert (beyond[0].verdict, beyond[0].predicted) == (Verdict.FAIL, count)
