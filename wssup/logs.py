"""Log events: one name per fact, its details as fields; pretty on a terminal, JSON lines elsewhere,
and as systemd's journal wants it there (journal.py).

A line up to PIPE_BUF (4096 bytes) is written with one write(2), so lines of several processes do
not mix; longer ones, with tracebacks, may. What the application
and libraries log through :mod:`logging` comes out in the same form.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

# Where rich is installed, structlog imports it for tracebacks that are not wanted here: that would
# be a seventh of the start of each process, and 4 MiB of it.
_missing = "rich" not in sys.modules
if _missing:
    sys.modules["rich"] = None  # type: ignore[assignment]  # "there is none" (importlib)
import structlog  # noqa: E402

if _missing:
    del sys.modules["rich"]

from wssup import journal  # noqa: E402

__all__ = [
    "Log",
    "bind",
    "configure",
    "configure_into",
    "get",
    "is_debug",
    "is_pretty",
    "listen",
    "show",
]

Log = structlog.typing.FilteringBoundLogger

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def is_pretty(form: str) -> bool:
    """Whether ``log_format`` means lines for people: ``auto`` asks whether stderr is a terminal."""
    return form == "pretty" or (form == "auto" and sys.stderr.isatty())


def _is_journal() -> bool:
    """Whether stderr goes to systemd's journal."""
    try:
        return journal.is_output(os.environ, sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False


def configure(level: str, form: str) -> None:
    """Set up logging for this process, to stderr."""
    number = _LEVELS[level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _without_nothing,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if is_pretty(form):
        shared[-1] = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)
        shared.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=24,
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    elif _is_journal():
        shared += [
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            _event_first,
            journal.Renderer(as_json=form == "json"),
        ]
    else:
        shared += [
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            _event_first,
            structlog.processors.JSONRenderer(default=str),
        ]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(_Lossy()),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(number, logging.INFO))
    # Says every frame at debug and every client's fault above it; the engine counts and logs those
    # itself.
    logging.getLogger("trio-websocket").setLevel(logging.CRITICAL)


def configure_into(logger: logging.Logger) -> None:
    """Give events to a logger of :mod:`logging`, which belongs to the program that we run in."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _without_nothing,
            structlog.processors.format_exc_info,
            _as_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logger.getEffectiveLevel()),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )


def is_debug() -> bool:
    """Whether events of level ``debug`` are logged: for those that are not even made otherwise."""
    return bool(get().is_enabled_for(logging.DEBUG))


def bind(**noun: object) -> None:
    """Have every line of this process name a process noun, the application's own lines too."""
    # In place: loggers that the application bound when it was imported share this list.
    structlog.get_config()["processors"].insert(0, _Noun(noun))


def listen(told: Callable[[str, Mapping[str, Any]], None]) -> None:
    """Have every event from ``info`` on told, whether it is logged or not, with its level. Loggers
    that were bound before do not know of it.
    """
    logged = min(n for n in _LEVELS.values() if get().is_enabled_for(n))
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(min(logged, logging.INFO))
    )
    structlog.get_config()["processors"].insert(0, _Listener(told, logged))


class _Listener:
    """A processor that tells events, and drops those that are not to be logged."""

    def __init__(self, told: Callable[[str, Mapping[str, Any]], None], logged: int) -> None:
        self._told = told
        self._logged = logged

    def __call__(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        level = {"exception": "error", "warn": "warning", "critical": "error"}.get(method, method)
        number = _LEVELS.get(level, logging.INFO)
        # What libraries say is no event of ours.
        if number >= logging.INFO and "logger" not in event:
            # A line of the log never fails, whatever is in it.
            with contextlib.suppress(Exception):
                self._told(level, event)
        if number < self._logged:
            raise structlog.DropEvent
        return event


class _Lossy:
    """stderr, for those who must go on when nobody reads it any more or the disk is full."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def show(text: str) -> None:
    """Write text for the person at the terminal, who may be gone."""
    out = _Lossy()
    out.write(text + "\n")
    out.flush()


def _without_nothing(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor that drops fields that have no value."""
    return {key: value for key, value in event.items() if value is not None}


def _event_first(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor that orders a line for those who read it without a tool."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _as_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """A processor that makes text of an event: ``draining open=3``, and a traceback below it."""
    name, traceback = event.pop("event"), event.pop("exception", "")
    fields = "".join(f" {key}={value}" for key, value in event.items())
    return f"{name}{fields}\n{traceback}" if traceback else f"{name}{fields}"


class _Noun:
    """A processor that adds fields that are not there."""

    def __init__(self, noun: dict[str, object]) -> None:
        self._noun = noun

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        # Whose line it is comes first, as where the noun was bound to the logger.
        return {**self._noun, **event}


def get(**noun: object) -> Log:
    """A logger whose lines name a process noun: ``slot=0 gen=2 pid=4711``."""
    log: Log = structlog.get_logger().bind(**noun)
    return log


class _ToStructlog(logging.Handler):
    """Passes records of :mod:`logging` on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # structlog knows the standard levels only; libraries have some of their own between.
            level = max(50 if record.levelno > 50 else record.levelno // 10 * 10, logging.DEBUG)
            structlog.get_logger().log(
                level, record.getMessage(), logger=record.name, exc_info=record.exc_info
            )
        except Exception:  # noqa: BLE001 - logging's own rule: a log line never raises into the application
            self.handleError(record)
