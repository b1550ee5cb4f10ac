"""Where trio is looked into, and where it is not."""

from __future__ import annotations

from types import SimpleNamespace

import trio
import trio.testing

from wssup.server.loops import inside


def test_another_trio_is_not_looked_into() -> None:
    """Where a public function is not made as it was, or something is missing, it is called."""
    public = SimpleNamespace(
        current_task=trio.lowlevel.current_task,
        reschedule=trio.lowlevel.reschedule,
        checkpoint_if_cancelled=trio.lowlevel.checkpoint_if_cancelled,
    )
    assert inside.run_context(public) is not None
    for name in vars(public):
        other = SimpleNamespace(**vars(public) | {name: trio.lowlevel.checkpoint})
        assert inside.run_context(other) is None
    assert inside.run_context(SimpleNamespace()) is None
