"""Which worker is to be ended because its loop stands still."""

from __future__ import annotations

from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.supervisor.puppets import stage
from wssup.messages import Ready
from wssup.supervisor.watch import Look, hung


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
    stalled = [look for look in workers.values() if look.age > look.stall_after]
    hangs = {serial for serial, look in workers.items() if look.age > look.hang_after}
    machine = len(stalled) > 1 and 2 * len(stalled) >= len(workers)
    assert (victim in hangs) if hangs and not machine else victim is None
