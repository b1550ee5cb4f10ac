"""The log when the journal is its output."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from wssup.journal import MESSAGE_IDS, Renderer, entry, fields, is_output, plain, prefixed


def parse(data: bytes) -> dict[str, str]:
    """A datagram of the journal's protocol, as journald reads it."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        found[name.decode()] = value.decode()
    return found


@given(st.lists(st.tuples(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text())))
def test_entries_come_back(pairs: list[tuple[str, str]]) -> None:
    """Whatever a value holds, line feeds too, it is read as it was."""
    told = {name: v.encode("utf-8", "backslashreplace").decode() for name, v in pairs}
    assert parse(entry(pairs)) == told


def test_a_long_value_is_cut() -> None:
    """An entry always fits into a datagram."""
    assert len(entry([("MESSAGE", "x" * 1_000_000)])) < 100_000


def test_fields() -> None:
    """An event of the instance's life has an id, a priority, and each of its fields."""
    event = {"level": "error", "event": "worker_lost", "slot": 1, "odd-näme": "v"}
    assert dict(fields(event, "text")) == {
        "MESSAGE": "text",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "wssup",
        "MESSAGE_ID": MESSAGE_IDS["worker_lost"],
        "WSSUP_EVENT": "worker_lost",
        "WSSUP_SLOT": "1",
        "WSSUP_ODD_N_ME": "v",
    }


def test_ids() -> None:
    """Every id is one of its own, of 128 bits, and in the reference."""
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    reference = Path(__file__).parents[2].joinpath("docs/reference/systemd.md").read_text()
    for name, number in MESSAGE_IDS.items():
        assert re.fullmatch("[0-9a-f]{32}", number)
        assert f"| `{name}` | `{number}` |" in reference


def test_lines() -> None:
    """A line says the event and its fields, quoted where they are not plain, and its level before
    each of its lines.
    """
    event = {"level": "error", "event": "cannot_start", "reason": "it broke", "exception": "a\nb"}
    assert plain(event) == 'cannot_start reason="it broke"\na\nb'
    assert prefixed(plain(event), "error") == '<3>cannot_start reason="it broke"\n<3>a\n<3>b'
    assert plain({"event": "x", "slot": 0, "bind": ["a"]}) == 'x slot=0 bind=["a"]'


def test_where_events_go(tmp_path: Path) -> None:
    """Events of the instance's life go to the journal's socket; others, and all when it does not
    answer, are lines.
    """
    path = str(tmp_path / "journal")
    render = Renderer(as_json=False, address=path)
    lost = {"level": "error", "event": "worker_lost", "slot": 1}
    assert render(None, "", lost) == "<3>worker_lost slot=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(10)
        with pytest.raises(structlog.DropEvent):
            render(None, "", lost)
        assert parse(journal.recv(65536))["MESSAGE"] == "worker_lost slot=1"
        assert render(None, "", {"level": "info", "event": "limits"}) == "<6>limits"
    render.close()


def test_which_output_is_the_journal() -> None:
    """It is the one of the device and inode that the service manager names."""
    reader, writer = os.pipe()
    found = os.fstat(writer)
    named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    assert is_output(named, writer)
    assert not is_output({}, writer)
    assert not is_output({"JOURNAL_STREAM": "1:2"}, writer)
    os.close(reader)
    os.close(writer)
    assert not is_output(named, writer)


@pytest.mark.parametrize("form", ["auto", "json"])
def test_a_process_whose_stderr_is_the_journal(form: str) -> None:
    """It is noticed when the log is set up; JSON stays JSON where it is asked for."""
    code = f"""
import os
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{{found.st_dev}}:{{found.st_ino}}"
from wssup import logs
logs.configure("info", {form!r})
logs.get(slot=0).warning("listeners_lent", to=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True
    )
    if form == "auto":
        assert done.stderr == "<4>listeners_lent slot=0 to=1\n"
    else:
        assert done.stderr.startswith('<4>{"timestamp": ')
