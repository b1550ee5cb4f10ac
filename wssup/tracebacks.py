"""An application's errors, told without wssup's frames."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

from wssup.errors import ApplicationError

__all__ = ["LONGEST_TRACEBACK", "import_failed", "own_traceback", "summary"]

#: A traceback travels in one message; what is longer is cut in the middle.
LONGEST_TRACEBACK: Final = 32 * 1024
#: Characters of an exception's own text that are shown.
LONGEST_SUMMARY: Final = 1000


def import_failed(name: str, error: BaseException) -> ApplicationError:
    """What is told of an application that raised when it was imported, or made."""
    if isinstance(error, SystemExit):
        what = f"importing {name} ended the process: sys.exit({error.code!r})"
    else:
        what = f"importing {name} failed: {summary(error)}"
    first = what[:LONGEST_SUMMARY].splitlines()[0]
    return ApplicationError(first, "see the traceback", own_traceback(error))


def own_traceback(error: BaseException) -> str:
    """The traceback of ``error`` from the application's first frame on, at most 32 KiB."""
    kept = error.__traceback__
    while kept is not None and _is_ours(kept):
        kept = kept.tb_next
    text = "".join(traceback.format_exception(type(error), error, kept))
    if len(text) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def summary(error: BaseException) -> str:
    """The error in one line; what nurseries have wrapped once or more is unwrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_SUMMARY else text[:LONGEST_SUMMARY] + "…"


def _is_ours(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    if module.startswith("wssup.examples"):
        return False
    return module.partition(".")[0] in {
        "wssup",
        "importlib",
        "trio",
        "trio_websocket",
        "contextlib",
        "uvicorn",
    }
