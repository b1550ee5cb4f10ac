"""What is done with connections when workers are parked or all end; rollouts are in
test_rolling.py.
"""

from __future__ import annotations

from pathlib import Path

from tests.harness.descriptors import open_descriptors
from tests.unit.supervisor.puppets import stage
from wssup.messages import Drain, HandOver


async def test_parked_workers_hand_over_to_those_that_stay(tmp_path: Path) -> None:
    """Fewer workers: those that go hand over to those that stay, as evenly as it goes, the last
    session without a quota, before they drain; those that stay get no more than they must.
    """
    async with stage(tmp_path) as made:
        await made.start(4)
        puppets = [made.puppet(n) for n in range(4)]
        for puppet, count in zip(puppets, (10, 40, 30, 20), strict=True):
            puppet.connect(count)
        made.fleet.scale(2)
        assert made.states()[2:] == ["parked"] * 2
        assert puppets[0].story == ["take", "take"]
        # 30 + 20 more, of which slot 0 gets 40 and slot 1 gets 10.
        assert puppets[1].story == ["take"]
        assert puppets[2].story == ["give", "drain"]
        assert puppets[3].story == ["give", "give", "drain"]
        assert [give.quota for give in puppets[2].got(HandOver)] == [0]
        assert [give.quota for give in puppets[3].got(HandOver)] == [10, 0]
        assert all(isinstance(p.heard[-1], Drain) for p in puppets[2:])


async def test_parked_workers_that_cannot_hand_over_drain(tmp_path: Path) -> None:
    """Without anybody to take them, the connections are closed as ever."""
    async with stage(tmp_path) as made:
        await made.start(2, resumable=False)
        parked = made.puppet(1)
        parked.connect(5)
        made.fleet.scale(1)
        assert parked.story == ["drain"]
        assert parked.got(Drain)[0].unmoved == "not_resumable"
        assert made.puppet(0).story == []


async def test_a_stop_recalls_what_moves(tmp_path: Path) -> None:
    """When the instance stops nothing moves any more: each worker closes what it has."""
    async with stage(tmp_path) as made:
        await made.start(2)
        made.fleet.handoffs.open(made.worker(0), made.worker(1), quota=0, failures=0)
        made.fleet.stop(Drain(1001, "server stops", 0, 1, final=True))
        assert made.puppets[1].story == ["give", "recall", "drain"]
        assert made.puppets[2].story == ["take", "drain"]


async def test_the_master_keeps_no_end(tmp_path: Path) -> None:
    """After a session has begun the master has as many descriptors as before."""
    async with stage(tmp_path) as made:
        await made.start(2)
        assert made.puppet(0).story == made.puppet(1).story == []
        before = _streams()
        session = made.fleet.handoffs.open(made.worker(0), made.worker(1), quota=3, failures=0)
        assert session is not None
        assert made.puppet(0).story == ["give"]
        assert made.puppet(1).story == ["take"]
        # Those of the two puppets, which live in this process too.
        assert _streams() == before + 2


def _streams() -> int:
    """The sockets of this process."""
    return sum(what.startswith("socket:") for what in open_descriptors().values())
