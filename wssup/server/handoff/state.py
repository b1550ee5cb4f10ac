"""``ws.state`` as bytes: what of an application's own data survives a move.

Pure. Strict: only what comes back exactly as it was is taken. A tuple would come back as a list, a
datetime as text, and the application would find out after a deploy; so both are errors before the
connection leaves its worker.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wssup.server.handoff.record import RecordError

__all__ = ["DEPTH", "StateError", "pack", "unpack"]

#: The most lists and dicts within one another, ``ws.state`` itself included.
DEPTH: Final = 64

_SURVIVE: Final = (
    "only None, bool, int, float, str, bytes, list and dict with str keys survive a move"
)
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN_ONLY = _PLAIN.issuperset
_STR_ONLY = frozenset({str}).issuperset
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class StateError(Exception):
    """``ws.state`` cannot move; says where in it and why."""


class _UnfitError(Exception):
    """Something does not survive; which, is worth a second look only then."""


def pack(state: dict[str, Any], most: int) -> bytes:
    """``ws.state`` as bytes; of an empty one none.

    :param most: the most bytes (``limits.state_bytes``).
    :raises StateError: something in it would not come back as it is, or it is too large.
    """
    if type(state) is not dict:
        raise StateError(f"state is {_a(state)}, and only a dict survives a move")
    if not state:
        return b""
    try:
        left = _walk(state, most, DEPTH)
        if left < 0:
            _explain(state, "state", [], set())  # a cycle is the better reason
            raise _too_large(f"at least {most - left}", most)
        data = _encode(state)
    except (_UnfitError, TypeError, ValueError, OverflowError) as error:
        _explain(state, "state", [], set())
        raise StateError(f"state cannot be encoded: {error}") from error
    if len(data) > most:
        raise _too_large(str(len(data)), most)
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """What was packed.

    :raises RecordError: ``data`` is nothing that `pack` makes.
    """
    if not data:
        return {}
    try:
        state = _decode(data)
        # MessagePack has keys that are no text, and times.
        _walk(state, len(data), DEPTH)
    except (_UnfitError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        problem = str(error) or _SURVIVE
        raise RecordError(f"a state of {len(data)} bytes is not understood: {problem}") from error
    return state


def _too_large(size: str, most: int) -> StateError:
    return StateError(f"state takes {size} bytes, more than limits.state_bytes ({most})")


def _walk(value: Any, left: int, depth: int) -> int:
    """Look for what does not survive, fast. Ranges and surrogates are left to the encoder.

    :param left: bytes that may be taken. Every item takes one or more, so this ends the walk even
        if lists contain the same lists again and again.
    :param depth: levels that may follow, this one included.
    :returns: what is left; negative: too large.
    :raises _UnfitError: something does not survive.
    """
    if not depth:
        raise _UnfitError
    items: Any = value
    if type(value) is dict:
        if not _STR_ONLY(map(type, value)):
            raise _UnfitError
        left -= len(value)
        items = value.values()
    elif type(value) is not list:
        raise _UnfitError
    left -= len(value)
    if left < 0 or _PLAIN_ONLY(map(type, items)):
        return left
    for item in items:
        if type(item) not in _PLAIN:
            left = _walk(item, left, depth - 1)
            if left < 0:
                break
    return left


def _explain(value: Any, path: str, around: list[Any], seen: set[tuple[int, int]]) -> None:
    """Say what does not survive, and where; nothing if everything does.

    :param path: where ``value`` is.
    :param around: the lists and dicts that it is in.
    :param seen: lists and dicts that survive, with the levels around them: one that is contained
        again and again is looked into once.
    :raises StateError: the first such thing.
    """
    kind = type(value)
    if kind is not list and kind is not dict:
        _explain_leaf(value, path)
        return
    if any(value is one for one in around):
        raise StateError(f"{path} contains itself, and a cycle does not survive a move")
    if len(around) == DEPTH:
        raise StateError(f"{path} is nested too deep: {DEPTH} levels survive a move")
    if (id(value), len(around)) in seen:
        return
    around.append(value)
    for key, item in value.items() if kind is dict else enumerate(value):
        if kind is dict:
            if type(key) is not str:
                raise StateError(f"{path} has a key that is {_a(key)}; {_SURVIVE}")
            _explain_text(key, f"{path} has a key")
        _explain(item, f"{path}[{_short(key)}]", around, seen)
    around.pop()
    seen.add((id(value), len(around)))


def _explain_leaf(value: Any, path: str) -> None:
    kind = type(value)
    if kind is str:
        _explain_text(value, f"{path} is a str")
    elif kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise StateError(f"{path} is an int of more than 64 bits; {_SURVIVE}")
    elif not any(kind is one for one in _PLAIN):  # a type's own __eq__ has no say
        raise StateError(f"{path} is {_a(value)}; {_SURVIVE}")


def _explain_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StateError(
            f"{what} with a lone surrogate at {error.start}, which is no text (UTF-8)"
        ) from None


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _short(key: str | int) -> str:
    """A key as it is written, of a length that a line in a log can bear."""
    return repr(f"{key[:60]}…" if isinstance(key, str) and len(key) > 60 else key)
