"""When the garbage collector runs: in processes of their own, whose collector they may set up."""

from __future__ import annotations

from tests.harness.fresh import python


def test_old_objects_are_looked_through_for_a_reason_only() -> None:
    """The old generation is collected when as many connections have gone as are there, and not
    before; and half as often each time nothing is found.
    """
    said = python(
        """
        import gc
        from wssup import logs
        from wssup.server.collecting import Collecting
        logs.configure("info", "json")
        collecting = Collecting()
        assert gc.get_threshold()[2] > 1_000_000
        rounds = []
        gc.callbacks.append(
            lambda phase, info: rounds.append(info) if (phase, info["generation"]) == ("start", 2)
            else None
        )
        gone = 0
        at = []
        for _ in range(4):
            while not rounds:
                gone += 1000
                collecting.look(10_000, gone)
            at.append(gone)
            rounds.clear()
        print(*at)
        """
    )
    assert said.split() == ["10000", "30000", "70000", "150000"]


def test_what_is_found_makes_it_look_again() -> None:
    """A cycle that an application leaves behind is freed, and the next look comes early again."""
    said = python(
        """
        import gc, weakref
        from wssup import logs
        from wssup.server.collecting import Collecting

        class Session:
            pass

        logs.configure("info", "json")

        collecting = Collecting()
        collecting.look(0, 5_000)
        one, other = Session(), Session()
        one.other, other.other = other, one
        gone = weakref.ref(one)
        # In the old generation, as what belongs to a long connection is.
        gc.collect(1)
        del one, other
        collecting.look(0, 10_000)
        print(gone() is None)
        collecting.look(0, 15_000)
        print(gone() is None)
        rounds = []
        gc.callbacks.append(lambda *_: rounds.append(gone))
        collecting.look(0, 19_999)
        print(len(rounds))
        collecting.look(0, 20_000)
        print(len(rounds))
        """
    )
    assert said.split() == ["False", "True", "0", "2"]
