"""What workers are told of the instance's limits: a fleet whose workers are played."""

from __future__ import annotations

from pathlib import Path

from tests.unit.supervisor.puppets import Puppet, Stage, stage
from wssup.messages import Admit
from wssup.scoreboard import ClosedReason


def part(puppet: Puppet) -> int | None:
    """What a worker was told last."""
    return puppet.got(Admit)[-1].connections


def parts(made: Stage) -> list[int | None]:
    return [part(made.puppet(slot)) for slot in made.fleet.slots]


async def test_what_one_gives_up_is_given_when_it_has_heard(tmp_path: Path) -> None:
    """A worker that is to let in fewer may let in more until it says that it goes by that: nobody
    gets what has become free there before.
    """
    async with stage(tmp_path, max_connections=20) as made:
        await made.start(2)
        assert parts(made) == [10, 10]
        for slot in range(2):
            made.puppet(slot).connect(10)
            made.puppet(slot).row.admits(10)
        made.fleet.scale(3)
        await made.until(lambda: made.worker(2).serial in made.puppets)
        await made.until(lambda: made.puppet(2).got(Admit))
        assert parts(made) == [7, 7, 0]
        first = made.puppet(0)
        first.row.closed(ClosedReason.CLIENT, 1.0, by_client=True)
        made.fleet.admitting.look()
        assert parts(made) == [7, 7, 0]
        first.row.admits(7)
        made.fleet.admitting.look()
        assert parts(made) == [7, 7, 1]
