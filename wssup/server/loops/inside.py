"""What the compiled core may look at inside of trio, if it is as it was when this was written.

The names are not public. Each stands for a public function that costs a call of Python per message
more: `current_task`, `reschedule` and `checkpoint_if_cancelled`, which are used wherever anything
here is not as it is known; a test holds that both ways do the same.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import trio.lowlevel

__all__ = ["run_context"]

#: What the public functions are made of.
_KNOWN: Final = {
    "current_task": {"GLOBAL_RUN_CONTEXT", "task", "AttributeError", "RuntimeError"},
    "reschedule": {"GLOBAL_RUN_CONTEXT", "runner", "reschedule", "AttributeError", "RuntimeError"},
    "checkpoint_if_cancelled": {
        "current_task",
        "_cancel_status",
        "effectively_cancelled",
        "_runner",
        "main_task",
        "ki_pending",
        "_core",
        "checkpoint",
        "AssertionError",
        "_cancel_points",
    },
}


def run_context(functions: Any = trio.lowlevel) -> Any:
    """The object that has the running ``task`` and its ``runner``; ``None``: trio is another one.

    Whose ``reschedule`` must not be interrupted by KeyboardInterrupt, called by itself.

    :param functions: the public ones.
    """
    try:
        for name, names in _KNOWN.items():
            if set(getattr(functions, name).__code__.co_names) != names:
                return None
        known: dict[str, Any] = functions.current_task.__globals__
        context, runner = known["GLOBAL_RUN_CONTEXT"], known["Runner"]
        if functions.reschedule.__globals__["GLOBAL_RUN_CONTEXT"] is not context:
            return None
        if list(inspect.signature(runner.reschedule).parameters) != ["self", "task", "next_send"]:
            return None
        trio.lowlevel.enable_ki_protection(runner.reschedule)
    except (AttributeError, KeyError):
        return None
    return context
