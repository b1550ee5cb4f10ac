"""The settings about how many workers there are: a number, one that follows from the connections to
be held, or one that follows the load. Part of the table of settings, and written like it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from wssup.config.kinds import Given, Kind, Number
from wssup.config.quantities import Duration
from wssup.config.spec import Spec
from wssup.config.values import BadValueError

__all__ = ["AUTO", "MAX_WORKERS", "Autoscale", "Connections", "ScaleDownAfter", "Workers"]

AUTO: Final = "auto"
"""As many workers as there are processors to run them."""

MAX_WORKERS: Final = 1000
"""The most slots that an instance can have."""

MAX_CONNECTIONS: Final = 100_000_000
"""The most connections that can be planned for: more than machines carry."""

_COUNT: Final = Number(1, MAX_WORKERS, AUTO)
_KEYS: Final = ("min", "max", "connections_per_worker")
_NUMBERS: Final[Mapping[str, Number]] = {
    "min": Number(1, MAX_WORKERS),
    "max": Number(1, MAX_WORKERS),
    "connections_per_worker": Number(1, 10_000_000),
}
_REMEDY: Final = "write {min = 2, max = 8, connections_per_worker = 5000}"
_REMEDY_TEXT: Final = "write min=2,max=8,connections_per_worker=5000"


class Autoscale(msgspec.Struct, frozen=True):
    """The number of workers follows the load.

    :ivar min: workers at least, and at the start; ``max``: at most.
    :ivar connections_per_worker: what a worker is to carry.
    """

    min: int
    max: int
    connections_per_worker: int


class WorkerCount(Kind, frozen=True):
    """A number of workers, ``auto``, or the bounds between which it follows the load."""

    def _metavar(self) -> str:
        return f"{_COUNT.metavar}|AUTOSCALE"

    def _description(self) -> str:
        return (
            f"{_COUNT.description}, or a table `{{min = 2, max = 8, connections_per_worker = "
            "5000}`; in the environment and on the command line "
            "`min=2,max=8,connections_per_worker=5000`"
        )

    def _read(self, value: object, given: Given, /) -> object:
        if isinstance(value, dict):
            return _autoscale(value, given, _REMEDY)
        if given.text and isinstance(value, str) and "=" in value:
            return _autoscale(_pairs(value), given, _REMEDY_TEXT)
        return _COUNT.read(value, given)

    def _show(self, value: object) -> str:
        table = self._public(value)
        if isinstance(table, dict):
            pairs = (f"{key} = {json.dumps(item)}" for key, item in table.items())
            return f"{{{', '.join(pairs)}}}"
        return _COUNT.show(value)

    def _public(self, value: object, /) -> object:
        return msgspec.structs.asdict(value) if isinstance(value, Autoscale) else value


def _pairs(text: str) -> dict[str, str]:
    """What text such as ``min=2,max=8`` says.

    :raises BadValueError: if a part is no pair, or a key comes twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise BadValueError(f"{part.strip()!r} is not KEY=N", _REMEDY_TEXT)
        if key in found:
            raise BadValueError(f"{key} is given twice", _REMEDY_TEXT)
        found[key] = value
    return found


def _autoscale(table: Mapping[str, object], given: Given, remedy: str) -> Autoscale:
    for key in table:
        if key not in _KEYS:
            raise BadValueError(f"{key!r} is none of {', '.join(_KEYS)}", remedy)
    numbers: dict[str, int] = {}
    for key in _KEYS:
        if key not in table:
            raise BadValueError(f"{key} is missing", remedy)
        try:
            number = _NUMBERS[key].read(table[key], given)
        except BadValueError as error:
            raise BadValueError(f"{key}: {error.problem}", error.remedy) from None
        assert isinstance(number, int)
        numbers[key] = number
    if numbers["min"] > numbers["max"]:
        raise BadValueError(f"min = {numbers['min']} is more than max = {numbers['max']}", remedy)
    return Autoscale(**numbers)


Workers = Annotated[
    int | Literal["auto"] | Autoscale,
    Spec(
        WorkerCount(),
        "Workers",
        "How many workers run. auto: as many as the CPU affinity and the cgroup's quota allow, or "
        "more if `connections` needs them. With bounds the number follows the load: more before "
        "workers have `connections_per_worker`, fewer when they have long been idle.",
    ),
]
Connections = Annotated[
    int,
    Spec(
        Number(0, MAX_CONNECTIONS),
        "Workers",
        "How many connections the instance is to hold: the number of workers follows from it and "
        "from the limit of open files. It does not start where they do not fit. 0: workers says "
        "how many there are.",
    ),
]
ScaleDownAfter = Annotated[
    float,
    Spec(
        Duration(),
        "Workers",
        "How long workers that follow the load must have been too many before one of them goes.",
    ),
]
