"""Which worker is to be ended because its loop stands still."""

from __future__ import annotations

from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.supervisor.puppets import stage
from wssup.messages import Ready
from wssup.supervisor.watch import Look, hung, many_stall, pause


def ask(*ages: float) -> int | None:
    """Who is to be ended, of workers whose loops have not turned for so long."""
    return hung({number: Look(age, 2, 30) for number, age in enumerate(ages)})


def test_nobody_hangs() -> None:
    """Without workers, and with workers that turn or merely stall, nobody is ended."""
    assert ask() is None
    assert ask(0, 1) is None
    assert ask(0, 0, 3) is None
    assert ask(0, 0, 30) is None


def test_the_only_worker_may_be_ended() -> None:
    """One stalled worker is not the machine's fault, also when it is the only one."""
    assert ask(31) == 0


def test_one_at_a_time() -> None:
    """Of two that hang the one that hangs longest is ended first."""
    assert ask(0, 40, 0, 50, 0) == 3


def test_when_half_of_them_stall_the_machine_is_the_problem() -> None:
    """While several workers, at least half of all, stall, none is ended."""
    assert ask(40, 3) is None
    assert ask(40, 3, 0, 0) is None
    assert ask(40, 3, 0, 0, 0) == 0


def test_each_by_its_own_limits() -> None:
    """A worker hangs and stalls by the limits of its own generation; of several that hang the one
    that is furthest beyond its own goes first.
    """
    assert hung({1: Look(8, 1, 5), 2: Look(8, 10, 20), 3: Look(0, 1, 5)}) == 1
    assert hung({1: Look(8, 10, 20), 2: Look(8, 10, 20)}) is None
    turning = {number: Look(0, 1, 9) for number in (3, 4, 5)}
    assert hung({1: Look(50, 1, 40), 2: Look(30, 1, 10)} | turning) == 2


def test_many() -> None:
    """The machine is the problem when at least half of the workers stall, but not for one."""
    assert not many_stall([])
    assert not many_stall([Look(9, 2, 30)])
    assert not many_stall([Look(9, 2, 30), Look(0, 2, 30)])
    assert many_stall([Look(9, 2, 30), Look(9, 2, 30)])
    assert many_stall([Look(9, 2, 30), Look(9, 2, 30), Look(0, 2, 30), Look(0, 2, 30)])


def test_the_next_look_is_when_somebody_may_count_as_stalled() -> None:
    """Workers that have just turned are looked at after the pause that is asked for; one that has
    not is looked at within 20 ms of its stall_after; and one that stalls in half of that.
    """
    assert pause([], 1.0) == 1.0
    assert pause([Look(0.4, 2, 30), Look(0.1, 2, 30)], 1.0) == 1.0
    assert 0 < 1.5 + pause([Look(1.5, 2, 30), Look(0.1, 2, 30)], 1.0) - 2 < 0.02
    assert pause([Look(1.5, 2, 30)], 0.1) == 0.1
    assert pause([Look(2, 2, 30)], 1.0) == pause([Look(1.99, 2, 30)], 1.0) == 0.02
    assert pause([Look(5, 1.2, 30)], 1.0) == 0.6


@given(st.floats(0.02, 60), st.integers(0, 100))
def test_an_idle_instance_is_left_alone(stall_after: float, late: int) -> None:
    """Whatever stall_after is, looks at a worker that beats as it should follow one another after
    half of that at the soonest, or after a second.
    """
    beat = min(0.5, stall_after / 4)
    since = beat * late / 100
    assert pause([Look(since, stall_after, 60)], 1.0) >= min(1.0, stall_after / 2)


async def test_a_worker_whose_first_beat_was_not_seen(tmp_path: Path) -> None:
    """A worker that has said that it is ready turns, although the copy of its row is still one from
    before its first beat: it was in the middle of a write (a stale copy has no heartbeat).
    """
    async with stage(tmp_path, stall_after=30.0) as made:
        made.fleet.scale(1)
        await made.until(lambda: made.puppets)
        made.puppet(0).say(Ready(0.0))
        await made.worker(0).booted.wait()
        (view,) = made.board.snapshot().rows
        assert view.heartbeat_ns == 0
        looked = trio.Event()
        made.watch.tell(lambda _: looked.set())
        made.nursery.start_soon(made.watch.run)
        await looked.wait()
        assert not made.worker(0).stalled


looks = st.builds(Look, st.floats(0, 100), st.floats(0.1, 10), st.floats(11, 60))


@given(st.dictionaries(st.integers(1, 99), looks, max_size=12))
def test_who_is_ended_hangs(workers: dict[int, Look]) -> None:
    """Whoever is chosen has not turned for its hang_after, and fewer than half of the workers stall
    or it is the only one that does; if nobody is chosen, none hangs or several stall, half or more.
    """
    victim = hung(workers)
    hangs = {serial for serial, look in workers.items() if look.age > look.hang_after}
    machine = many_stall(workers.values())
    assert (victim in hangs) if hangs and not machine else victim is None
