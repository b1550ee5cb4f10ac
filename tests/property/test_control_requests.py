"""Any bytes to the control socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.errors import CommandError
from wssup.supervisor.commands import COMMANDS
from wssup.supervisor.control import VERSION, parse

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(VERSION) | values,
        "command": st.sampled_from(sorted(COMMANDS)) | values,
        "workers": values,
    },
)


def check(line: bytes) -> None:
    try:
        request = parse(line)
    except CommandError as error:
        code, text = error.code, str(error)
    else:
        assert request["command"] in COMMANDS
        return
    assert code in {"bad_json", "bad_version", "unknown_command"}
    assert "\n" not in text


@settings(max_examples=75, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(line: bytes) -> None:
    """Whatever bytes a client sends are a known command or a CommandError of one line."""
    check(line)


@settings(max_examples=75, deadline=None)
@given(requests | values)
def test_any_json(document: Any) -> None:
    """Whatever JSON a client sends is a known command or a CommandError of one line."""
    check(json.dumps(document).encode())


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(COMMANDS)),
    st.dictionaries(st.text().filter(lambda key: key not in {"v", "command"}), st.text()),
)
def test_good_requests(command: str, arguments: dict[str, str]) -> None:
    """Every command comes through with whatever arguments it was sent."""
    line = json.dumps({"v": VERSION, "command": command, **arguments}).encode()
    assert parse(line) == {"command": command, **arguments}
