"""Every exception that wssup raises on purpose.

::

    WssupError
    ├── UserError               somebody can mend it: says what, where and the remedy; exit status 2
    │   ├── ConfigError         a setting: names key, value, source and remedy
    │   ├── ApplicationError    the application cannot be loaded; carries its own traceback
    │   ├── ListenError         an address cannot be listened on
    │   ├── InstanceError       the runtime directory, or a second instance of the same name
    │   └── CommandError        a command that the control socket refuses; has a code
    ├── MessageError            another process sent what this one does not understand
    └── ScoreboardError         the shared-memory segment is not what it should be

A ``UserError`` is printed as one line (message and remedy) and never with a traceback of wssup's
own.
"""

from __future__ import annotations

__all__ = [
    "ApplicationError",
    "CommandError",
    "ConfigError",
    "InstanceError",
    "ListenError",
    "MessageError",
    "ScoreboardError",
    "UserError",
    "WssupError",
]


class WssupError(Exception):
    """The root of wssup's exceptions."""


class UserError(WssupError):
    """Something that the person who runs wssup can mend.

    :ivar message: what is wrong, and where (one line).
    :ivar remedy: what to do about it (one line, may be empty).
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class ConfigError(UserError):
    """A setting that cannot be used.

    :ivar key: the setting's name as written in ``wssup.toml``.
    :ivar value: what was given.
    :ivar source: where it was given (``wssup.toml``, ``WSSUP_WORKERS``, ``--workers``…).
    """

    def __init__(
        self, key: str, value: object, source: str, problem: str, remedy: str = ""
    ) -> None:
        super().__init__(f"{key} = {value!r} (from {source}): {problem}", remedy)
        self.key = key
        self.value = value
        self.source = source
        self.problem = problem


class ApplicationError(UserError):
    """The application cannot be loaded or started.

    :ivar traceback: the application's own traceback, without wssup's frames; empty if there is
        none.
    """

    def __init__(self, message: str, remedy: str = "", traceback: str = "") -> None:
        super().__init__(message, remedy)
        self.traceback = traceback


class ListenError(UserError):
    """An address cannot be listened on."""


class InstanceError(UserError):
    """The runtime directory cannot be used, or another instance uses it."""


class CommandError(UserError):
    """A command that the control socket refuses.

    :ivar code: a stable word for programs: ``busy``, ``bad_json``, ``unknown_command``…
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.code = code


class MessageError(WssupError):
    """A message from another process that cannot be decoded, or came without its descriptors."""


class ScoreboardError(WssupError):
    """The shared-memory segment is missing, too small, or of another layout."""
