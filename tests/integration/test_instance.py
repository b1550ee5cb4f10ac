"""One instance of a name, its addresses, and what is wrong before anything starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.clients import ask
from tests.harness.instance import Instance

Start = Callable[..., Instance]


def refused(instance: Instance, *, status: int = 2) -> str:
    """Wait for an instance that cannot start; what it said, which has no traceback of ours."""
    assert instance.exited() == status
    said = instance.logged()
    assert "Traceback" not in said, said
    return said


async def test_second_instance_is_refused(start: Start) -> None:
    """A second master of a name ends with 2 and names the first one's pid; that one serves on."""
    first = start()
    first.running()
    url = first.url()
    second = start(bind="127.0.0.1:0")
    said = refused(second)
    assert f"pid {first.pid}" in said
    assert "'test'" in said
    assert "--name" in said
    assert await ask(url, "still there") == "still there"


async def test_two_names_live_side_by_side(start: Start) -> None:
    """Instances of different names in one runtime directory do not know of each other."""
    one, other = start(name="one"), start(name="other")
    one.running()
    other.running()
    assert one.url() != other.url()
    assert one.run("stop").returncode == 0
    assert await ask(other.url(), "here") == "here"


def test_port_in_use(start: Start) -> None:
    """A port that another process listens on is refused, naming the process."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(start(bind=f"127.0.0.1:{port}"))
    assert f"127.0.0.1:{port} is in use by pid {os.getpid()}" in said


def test_port_held_by_an_orphan(start: Start) -> None:
    """A port that a stopped orphan of a killed master still holds is refused, naming the orphan."""
    first = start(workers=1, bind="127.0.0.1:0")
    status = first.running()
    bind = status["bind"][0]
    (orphan,) = first.workers().values()
    os.kill(orphan, signal.SIGSTOP)
    processes.until(lambda: processes.state(orphan) == "T", 10, "the worker to stop")
    first.signal(signal.SIGKILL)
    first.process.wait(10)
    said = refused(start(bind=bind))
    assert f"{bind} is in use by pid {orphan}" in said
    processes.end({orphan})


BAD = {
    "unknown key": ({"wokers": 2}, "wokers", "workers"),
    "bad value": ({"settle": "soon"}, "settle", "soon"),
    "contradiction": ({"drain_window": 20, "drain_timeout": 10}, "drain_timeout", "drain_window"),
    "bad address": ({"bind": ":8000"}, "bind", "0.0.0.0:8000"),
    "no such address": ({"bind": "192.0.2.1:0"}, "192.0.2.1:0", "ip address"),
    "too many workers": ({"workers": 100}, "workers", "max_workers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(start: Start, case: str) -> None:
    """A setting that cannot be used is named with its remedy; nothing is started; status 2."""
    settings, wrong, remedy = BAD[case]
    instance = start(**settings)
    said = refused(instance)
    assert wrong in said
    assert remedy in said
    assert not instance.events("starting")


def test_bad_settings_from_elsewhere(start: Start, tmp_path: Path) -> None:
    """The error says where a bad value came from: the environment, or an option."""
    instance = start()
    instance.running()
    for environ, arguments, source in (
        ({"WSSUP_WORKERS": "several"}, [], "WSSUP_WORKERS"),
        ({}, ["--workers", "several"], "--workers"),
        ({"WSSUP_WROKERS": "2"}, [], "WSSUP_WORKERS"),
    ):
        done = subprocess.run(
            [*instance.command("serve"), *arguments],
            env=instance.environ | environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert source in done.stderr
        assert "Traceback" not in done.stderr


def test_full_shared_memory(start: Start, tmp_path: Path) -> None:
    """A full /dev/shm is a clear error at start, with the size that is needed; status 2."""
    instance = start()
    instance.end()
    tiny = 'mount -t tmpfs -o size=16k tmpfs /dev/shm && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", tiny, "sh"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here (tests/skips.md)")
    done = subprocess.run(
        [*unshare, *instance.command("serve")],
        env=instance.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "/dev/shm" in done.stderr
    assert "bytes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("obstacle", ["file", "unwritable", "too long"])
def test_runtime_directory_that_cannot_be_used(start: Start, tmp_path: Path, obstacle: str) -> None:
    """A runtime directory that is a file, cannot be written or is too long is a clear error."""
    runtime_dir = tmp_path / "place"
    command = [sys.executable, "-m", "wssup", "serve", "application:app"]
    instance = start()
    instance.end()
    if obstacle == "file":
        runtime_dir.write_text("")
    elif obstacle == "unwritable":
        # Root may write anywhere but where nobody can.
        runtime_dir = Path("/proc/1/wssup")
    else:
        runtime_dir = tmp_path / ("x" * 110)
    done = subprocess.run(
        [*command, "--runtime-dir", str(runtime_dir)],
        cwd=tmp_path,
        env=instance.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert str(runtime_dir) in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_runs(start: Start) -> None:
    """Every command but serve and config says that nothing runs, with exit status 3."""
    instance = start()
    instance.end()
    for command in (["status"], ["reload"], ["scale", "2"], ["drain"], ["stop"]):
        done = instance.run(*command)
        assert done.returncode == 3, (command, done.stderr)
        assert "no instance named 'test' runs" in done.stderr
