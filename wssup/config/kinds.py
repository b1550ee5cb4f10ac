"""The kinds of values that settings have: how each is read, shown and described.

A kind reads two spellings of a value: what TOML gives (numbers, lists, booleans), and text from an
environment variable or the command line. It raises `BadValueError` for
what it cannot use; who reads knows the key and the source, and adds them.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from abc import abstractmethod
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import msgspec

from wssup.config.addresses import parse_bind
from wssup.config.values import BadValueError

__all__ = [
    "MAX_BINDS",
    "Binds",
    "Choice",
    "Directory",
    "Flag",
    "Given",
    "Kind",
    "Names",
    "Number",
    "Permissions",
    "Text",
    "text_of",
]

MAX_BINDS: Final = 64
"""Addresses of one instance: each costs a listener per slot, held open for the master's life."""

MAX_NAMES: Final = 100
"""Entries of a list that is looked through for each handshake."""

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_INTEGER: Final = re.compile("-?[0-9]{1,18}")
_TOML_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
    (dt.date, "a date"),
    (dt.time, "a time"),
)


def _named(value: object) -> str:
    """What TOML calls the type of `value`."""
    return next((name for kind, name in _TOML_NAMES if isinstance(value, kind)), "something else")


def text_of(value: object, remedy: str) -> str:
    """`value` as text that UTF-8 can carry: messages between processes and JSON are UTF-8."""
    if not isinstance(value, str):
        raise BadValueError(f"{_named(value)} where a string is expected", remedy)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadValueError("not UTF-8", remedy) from None
    return value


class Given(NamedTuple):
    """How a value was given.

    :ivar text: whether it comes from the environment or the command line, where all is text.
    :ivar base: the absolute directory that relative paths start from.
    """

    text: bool
    base: str


class Kind(msgspec.Struct, frozen=True):
    """How a setting's value is read, shown and described."""

    @property
    def metavar(self) -> str:
        """The placeholder in the help of the command line."""
        return self._metavar()

    @property
    def description(self) -> str:
        """The values that are allowed, for the reference."""
        return self._description()

    def read(self, value: object, given: Given) -> object:
        """The value as a setting holds it.

        :raises BadValueError: if the setting cannot have this value.
        """
        return self._read(value, given)

    def show(self, value: object) -> str:
        """`value` as TOML that `read` reads back."""
        return self._show(value)

    def public(self, value: object) -> object:
        """`value`, which may be none that `read` takes, as everybody may see it."""
        return self._public(value)

    @abstractmethod
    def _metavar(self) -> str: ...

    @abstractmethod
    def _description(self) -> str: ...

    @abstractmethod
    def _read(self, value: object, given: Given, /) -> object: ...

    def _public(self, value: object, /) -> object:
        return value

    def _show(self, value: object) -> str:
        # JSON's strings are TOML's, but TOML wants DEL escaped, and people what they cannot see.
        return "".join(
            char if char.isprintable() else f"\\U{ord(char):08x}"
            for char in json.dumps(value, ensure_ascii=False)
        )


class Text(Kind, frozen=True):
    """Text of a given form."""

    pattern: str
    form: str
    example: str
    placeholder: str

    def _metavar(self) -> str:
        return self.placeholder

    def _description(self) -> str:
        return f"text: {self.form}"

    def _read(self, value: object, _given: Given, /) -> str:
        remedy = f'write {self.form}: "{self.example}"'
        value = text_of(value, remedy)
        if re.fullmatch(self.pattern, value, re.DOTALL) is None:
            raise BadValueError(f"not {self.form}", remedy)
        return value


class Directory(Kind, frozen=True):
    """A directory: made absolute, and never resolved, so that a symbolic link stays one."""

    def _metavar(self) -> str:
        return "DIR"

    def _description(self) -> str:
        return "directory"

    def _read(self, value: object, given: Given, /) -> str:
        value = text_of(value, "write a path: /srv/app")
        if not value or "\0" in value:
            raise BadValueError("not a path", "write a path: /srv/app")
        # PurePosixPath drops "." and doubled slashes, but not "..": its meaning depends on links.
        return str(PurePosixPath(given.base, value))


class Binds(Kind, frozen=True):
    """A list of addresses to listen on, in canonical form and without duplicates."""

    def _metavar(self) -> str:
        return "ADDRESS"

    def _description(self) -> str:
        return (
            f"1 to {MAX_BINDS} addresses: `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`; "
            "in the environment separated by commas"
        )

    def _read(self, value: object, given: Given, /) -> tuple[str, ...]:
        remedy = 'write ["127.0.0.1:8000"]'
        if isinstance(value, str):
            # A comma may stand in the path of a unix socket, so only a variable is split.
            value = [part.strip() for part in value.split(",")] if given.text else [value]
        if not isinstance(value, list | tuple):
            raise BadValueError(f"{_named(value)} where an array of strings is expected", remedy)
        if not 1 <= len(value) <= MAX_BINDS:
            raise BadValueError(f"{len(value)} addresses; there must be 1 to {MAX_BINDS}", remedy)
        addresses: list[str] = []
        for item in value:
            name = text_of(item, remedy)
            try:
                address = str(parse_bind(name))
            except BadValueError as error:
                if len(value) == 1:
                    raise
                raise BadValueError(f"{name!r}: {error.problem}", error.remedy) from None
            if address in addresses:
                raise BadValueError(f"{address} is named twice", "name each address once")
            addresses.append(address)
        return tuple(addresses)


class Names(Kind, frozen=True):
    """A list of texts of a given form, or one word in its place; in lower case, each once."""

    pattern: str
    form: str
    example: str
    placeholder: str
    least: int = 0
    word: str | None = None

    def _metavar(self) -> str:
        return f"{self.placeholder}|{self.word}" if self.word else self.placeholder

    def _description(self) -> str:
        word = f', or "{self.word}"' if self.word else ""
        return (
            f"{self.least} to {MAX_NAMES} texts: {self.form}{word}; in the environment separated "
            "by commas"
        )

    def _read(self, value: object, given: Given, /) -> tuple[str, ...] | str:
        remedy = f"write {self.example}" + (f' or "{self.word}"' if self.word else "")
        if self.word and isinstance(value, str) and value.strip().lower() == self.word:
            return self.word
        if isinstance(value, str):
            value = value.split(",") if given.text else [value]
        if not isinstance(value, list | tuple):
            raise BadValueError(f"{_named(value)} where an array of strings is expected", remedy)
        names: list[str] = []
        for item in value:
            name = text_of(item, remedy).strip().lower()
            if not name and given.text:
                continue
            if re.fullmatch(self.pattern, name, re.DOTALL) is None:
                raise BadValueError(f"{name!r} is not {self.form}", remedy)
            if name == self.word:
                raise BadValueError(f'"{name}" stands alone, not in a list', remedy)
            if name not in names:
                names.append(name)
        if not self.least <= len(names) <= MAX_NAMES:
            problem = f"{len(names)} of them; there must be {self.least} to {MAX_NAMES}"
            raise BadValueError(problem, remedy)
        return tuple(names)


class Number(Kind, frozen=True):
    """A whole number in a range, or one word in its place."""

    least: int
    most: int | None = None
    word: str | None = None

    def _metavar(self) -> str:
        return f"N|{self.word}" if self.word else "N"

    @property
    def _range(self) -> str:
        end = f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"
        return f'{end}, or "{self.word}"' if self.word else end

    def _description(self) -> str:
        return f"whole number: {self._range}"

    def _read(self, value: object, given: Given, /) -> int | str:
        remedy = f"write {self._range}"
        if self.word is not None and value == self.word:
            return self.word
        if given.text and isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            problem = (
                "not a whole number"
                if given.text
                else f"{_named(value)} where a number is expected"
            )
            raise BadValueError(problem, remedy)
        if value < self.least or (self.most is not None and value > self.most):
            raise BadValueError(f"not in the range {self._range}", remedy)
        return value


class Flag(Kind, frozen=True):
    """Yes or no."""

    def _metavar(self) -> str:
        return ""

    def _description(self) -> str:
        return "`true` or `false`; in the environment also 1, 0, yes, no, on, off"

    def _read(self, value: object, given: Given, /) -> bool:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if given.text and isinstance(value, str) else ""
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise BadValueError("neither true nor false", "write true or false")


class Choice(Kind, frozen=True):
    """One word of a few."""

    words: tuple[str, ...]

    def _metavar(self) -> str:
        return "|".join(self.words)

    def _description(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def _read(self, value: object, _given: Given, /) -> str:
        if not isinstance(value, str) or value not in self.words:
            words = ", ".join(self.words[:-1])
            raise BadValueError("not one of its values", f"write {words} or {self.words[-1]}")
        return value


class Permissions(Kind, frozen=True):
    """The permissions of a file, as octal text of four digits."""

    def _metavar(self) -> str:
        return "MODE"

    def _description(self) -> str:
        return "octal text: 0000 to 0777"

    def _read(self, value: object, _given: Given, /) -> str:
        # An integer is refused: 660 in TOML would be octal 1224.
        if not isinstance(value, str) or re.fullmatch("0?[0-7]{3}", value) is None:
            raise BadValueError("not permissions as octal text", 'write "0660"')
        return value.zfill(4)
