"""``wssup doctor`` beside processes that mean ill, instances that refuse, and own mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from control_peer import Peer

from wssup.cli import doctor
from wssup.cli.doctor import _fixes
from wssup.cli.main import group, main
from wssup.doctor.facts import Facts, Running

#: A command line that would be a section of a unit, a line of limits.d, and red.
EVIL = "x\n[Service]\nExecStartPre=/tmp/evil\n#\n* - nofile 7\n\x1b[31m"
LISTENS = """\
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def evil() -> Iterator[int]:
    """The process id of a server with that command line."""
    server = subprocess.Popen(
        [EVIL, "-I", "-S", "-c", LISTENS],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        server.stdout.readline()
        yield server.pid
    finally:
        server.kill()
        server.communicate()


def run(*arguments: str) -> Result:
    quick = ("doctor", "--seconds", "0", *arguments)
    return CliRunner().invoke(group, quick, standalone_mode=False)


def test_a_command_line_is_in_no_file(peer: Peer, evil: int) -> None:
    """What a process calls itself is neither a line of a file nor an escape sequence."""
    fix = run("--pid", str(evil), "--connections", "100000000", "--fix").stdout
    assert "LimitNOFILE=" in fix
    assert "evil" not in fix
    assert fix.count("[Service]") <= 1
    found = json.loads(run("--pid", str(evil), "--json", "--fix").stdout)
    assert len(found["fixes"]) == 3
    assert "evil" not in json.dumps(found["fixes"])
    shown = run("--pid", str(evil), "--connections", "100000000").stdout
    assert "\x1b[31m" not in shown
    assert "\n[Service]" not in shown
    assert r"x\n[Service]\nExec" in shown


def test_an_instances_name_is_in_no_file() -> None:
    """An instance says its own name; one that none can have is not believed."""
    for name, unit in ((EVIL, "NAME.service"), ("shop", "wssup@shop.service")):
        files = _fixes([], Facts(running=Running(name=name, pid=1, slots=1)), other=False)
        assert files[2].path == f"/etc/systemd/system/{unit}.d/60-doctor.conf"


def test_files_for_a_process_that_ended() -> None:
    """Its user is not known any more; there are files all the same."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        files = _fixes([], Facts(running=Running(name="x", pid=gone.pid, slots=1)), other=True)
    # Waited for: its id is free.
    assert files[2].path == "/etc/systemd/system/NAME.service.d/60-doctor.conf"


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": "forbidden", "message": "not yours"}},
        {"error": {"code": "refused", "message": "no"}},
        {"result": {"schema": 1, "slots": 7}},
        b"no JSON\n",
        b"",
    ],
)
def test_not_looked_at_is_no_warning(
    peer: Peer, capsys: pytest.CaptureFixture[str], answer: dict[str, object] | bytes
) -> None:
    """Where an instance does not let it look nothing was found: exit status 2, not 1."""
    peer.script["status"] = [answer]
    peer.lock().listen()
    assert main(["doctor", "--seconds", "0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot look at" in error


def test_a_fault_is_no_warning(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the doctor's own does not end with the status of "there are warnings"."""
    monkeypatch.setattr(doctor, "examine", None)
    assert main(["doctor", "--seconds", "0"]) == 2
    assert "TypeError" in capsys.readouterr().err
