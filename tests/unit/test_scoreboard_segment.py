"""The segment's life: made, attached, refused, removed."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wssup.errors import InstanceError, ScoreboardError
from wssup.scoreboard import (
    InstanceState,
    Scoreboard,
    WorkerState,
    layout,
)

SHM = Path("/dev/shm")


@pytest.fixture
def instance() -> Iterator[str]:
    """An instance name of this test alone; nothing of it is left in /dev/shm afterwards."""
    name = f"unit.{secrets.token_hex(6)}"
    yield name
    left = list(SHM.glob(f"wssup-{name}-*"))
    for path in left:
        path.unlink()
    assert left == []


@pytest.fixture
def board(instance: str, tmp_path: Path) -> Iterator[Scoreboard]:
    board = Scoreboard.create(instance, tmp_path, rows=4, slots=2)
    yield board
    board.close()
    board.unlink()


def run_python(code: str, *args: str, within: tuple[str, ...] = ()) -> str:
    """What a Python of its own prints; its stderr must stay empty and its exit status 0."""
    command = [*within, sys.executable, "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_create_makes_a_private_reserved_segment(board: Scoreboard, instance: str) -> None:
    """The segment has mode 0600, its whole memory is allocated, and its name holds the instance."""
    status = (SHM / board.name).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == board.size == layout.segment_size(4)
    assert status.st_blocks * 512 >= board.size
    assert board.name.startswith(f"wssup-{instance}-")


def test_names_differ_by_directory_and_nonce(instance: str) -> None:
    """Two creations never share a name, and the runtime directory can be told from it."""
    boards = [Scoreboard.create(instance, place, 1, 1) for place in ("/run/a", "/run/a", "/run/b")]
    parts = [board.name.removeprefix(f"wssup-{instance}-").split("-") for board in boards]
    for board in boards:
        board.close()
        board.unlink()
    assert parts[0][0] == parts[1][0] != parts[2][0]
    assert len({nonce for _, nonce in parts}) == 3
    assert all(len(place) == len(nonce) == 8 for place, nonce in parts)


def test_longest_instance_name_fits(tmp_path: Path) -> None:
    """An instance name of 64 characters gives a valid segment name."""
    board = Scoreboard.create(secrets.token_hex(32), tmp_path, 1, 1)
    assert (SHM / board.name).exists()
    board.close()
    board.unlink()
    assert not (SHM / board.name).exists()


def test_header_starts_right_and_is_seen_by_others(board: Scoreboard) -> None:
    """What the master sets in the header is what another attachment reads."""
    other = Scoreboard.attach(board.name)
    assert (other.rows, other.slots, other.size) == (4, 2, board.size)
    assert other.master_pid == os.getpid()
    assert other.started_at_ns > 1_700_000_000 * 10**9
    assert (other.generation, other.state) == (0, InstanceState.STARTING)
    board.master_pid, board.started_at_ns, board.generation = 7, 8, 9
    board.state = InstanceState.RELOADING
    assert (other.master_pid, other.started_at_ns) == (7, 8)
    assert (other.generation, other.state) == (9, InstanceState.RELOADING)
    other.close()


def test_another_process_reads_what_this_one_counts(board: Scoreboard) -> None:
    """A process that has only attached reads rows and totals."""
    row = board.allocate(serial=1, slot=0, generation=3)
    board.identify(row, pid=4711, state=WorkerState.READY)
    writer = board.writer(row)
    writer.accepted()
    writer.upgraded()
    code = """
import sys
from wssup.scoreboard import Scoreboard
board = Scoreboard.attach(sys.argv[1])
snapshot = board.snapshot()
(view,) = snapshot.rows
print(view.pid, view.state.label, view.generation, snapshot.total.active, view.stale)
board.close()
"""
    assert run_python(code, board.name) == "4711 ready 3 1 False\n"


def test_no_resource_tracker_is_started(instance: str, tmp_path: Path) -> None:
    """Create, attach, unlink, and failing at it start no process and leave the tracker unset."""
    code = """
import os, sys
from multiprocessing import resource_tracker
from pathlib import Path
from wssup.errors import ScoreboardError
from wssup.scoreboard import Scoreboard
register, unregister = resource_tracker.register, resource_tracker.unregister
board = Scoreboard.create(sys.argv[1], sys.argv[2], 4, 1)
other = Scoreboard.attach(board.name)
other.close()
board.close()
board.unlink()
try:
    Scoreboard.attach(board.name)
except ScoreboardError:
    print("gone")
print(resource_tracker._resource_tracker._fd)
print(repr(Path(f"/proc/self/task/{os.getpid()}/children").read_text()))
print(resource_tracker.register == register, resource_tracker.unregister == unregister)
"""
    printed = run_python(code, instance, str(tmp_path))
    assert printed == "gone\nNone\n''\nTrue True\n"


def test_a_forgotten_scoreboard_ends_silently(instance: str, tmp_path: Path) -> None:
    """A process that never calls close() prints nothing when it ends, also with a writer in use."""
    code = """
import sys
from wssup.scoreboard import Scoreboard
board = Scoreboard.create(sys.argv[1], sys.argv[2], 4, 1)
writer = board.writer(board.allocate(1, 0, 1))
board.unlink()
del board
writer.accepted()
print("counted")
"""
    assert run_python(code, instance, str(tmp_path)) == "counted\n"


def test_segment_survives_its_creator(instance: str, tmp_path: Path) -> None:
    """A creator killed with SIGKILL leaves the segment, readable until remove_stale removes it."""
    code = """
import sys
from wssup.scoreboard import Scoreboard
board = Scoreboard.create(sys.argv[1], sys.argv[2], 4, 1)
board.writer(board.allocate(1, 0, 1)).accepted()
print(board.name, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, instance, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as creator:
        assert creator.stdout is not None
        name = creator.stdout.readline().strip()
        creator.kill()
        assert creator.wait(timeout=30) == -signal.SIGKILL
    board = Scoreboard.attach(name)
    assert board.snapshot().total.accepted == 1
    board.close()
    Scoreboard.remove_stale(name)
    assert not (SHM / name).exists()
    Scoreboard.remove_stale(name)


@pytest.mark.parametrize("name", ["", "psm_1", "../etc/passwd", "wssup-/../x", "wssup-\0"])
def test_foreign_names_are_refused(name: str) -> None:
    """Neither removing nor attaching touches a name that wssup does not give."""
    with pytest.raises(ScoreboardError, match="not the name of a scoreboard"):
        Scoreboard.remove_stale(name)
    with pytest.raises(ScoreboardError, match="not the name of a scoreboard"):
        Scoreboard.attach(name)


def test_attach_names_what_is_missing(instance: str) -> None:
    """Attaching a segment that does not exist says which one."""
    with pytest.raises(ScoreboardError, match=f"wssup-{instance}.*No such file"):
        Scoreboard.attach(f"wssup-{instance}")


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        (layout.H_MAGIC, 1, "magic number is wrong"),
        (layout.H_LAYOUT, 999, "layout 999, this wssup reads layout"),
        (layout.H_ROW_CELLS, 8, "of another size"),
        (layout.H_ROWS, 5, "cut off: .* bytes"),
    ],
)
def test_attach_refuses_another_layout(
    board: Scoreboard, cell: int, value: int, message: str
) -> None:
    """A wrong magic number, layout version, size or length is an error that names it."""
    with (SHM / board.name).open("r+b") as file:
        file.seek(cell * layout.CELL)
        file.write(value.to_bytes(layout.CELL, sys.byteorder))
    with pytest.raises(ScoreboardError, match=message):
        Scoreboard.attach(board.name)


@pytest.mark.parametrize(("size", "message"), [(0, "empty"), (13, "too small"), (64, "too small")])
def test_attach_refuses_small_segments(instance: str, size: int, message: str) -> None:
    """A segment without room for a header is an error, not a crash."""
    path = SHM / f"wssup-{instance}-small"
    path.write_bytes(bytes(size))
    try:
        with pytest.raises(ScoreboardError, match=message):
            Scoreboard.attach(path.name)
        assert path.exists()
    finally:
        path.unlink()


def small_shm() -> tuple[str, ...]:
    """A command prefix that runs something with a /dev/shm of 64 KiB; skips where there is none."""
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    for unshare in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        prefix = (*unshare, "sh", "-c", mount, "sh")
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=30, check=False)
        if done.returncode == 0:
            return prefix
    pytest.skip("no mount namespaces here")


def test_full_shm_is_an_error_at_creation(instance: str, tmp_path: Path) -> None:
    """On a full /dev/shm create() says what is needed and what to do, and leaves nothing there."""
    code = """
import os, sys
from wssup.errors import InstanceError
from wssup.scoreboard import Scoreboard
fits = Scoreboard.create(sys.argv[1], sys.argv[2], 16, 4)
try:
    Scoreboard.create(sys.argv[1], sys.argv[2], 1000, 4)
except InstanceError as error:
    print(error)
print(os.listdir("/dev/shm") == [fits.name])
fits.close()
"""
    printed = run_python(code, instance, str(tmp_path), within=small_shm()).splitlines()
    assert printed[0].startswith(f"/dev/shm is full: {layout.segment_size(1000)} bytes needed")
    assert "mount -o remount,size=" in printed[0]
    assert printed[1] == "True"


def test_unusable_shm_is_an_error_at_creation(tmp_path: Path) -> None:
    """A segment that the system refuses for another reason is a user's error with that reason."""
    with pytest.raises(InstanceError, match=r"cannot create the scoreboard .*: Invalid argument"):
        Scoreboard.create("x" * 300, tmp_path, 1, 1)


def test_pool_without_rows_is_refused(instance: str, tmp_path: Path) -> None:
    """A scoreboard has at least one row."""
    with pytest.raises(ScoreboardError, match="at least one row"):
        Scoreboard.create(instance, tmp_path, rows=0, slots=0)


def test_closed_scoreboard_releases_its_writers(instance: str, tmp_path: Path) -> None:
    """After close() a writer raises instead of writing, and closing again does no harm."""
    board = Scoreboard.create(instance, tmp_path, 1, 1)
    writer = board.writer(board.allocate(1, 0, 1))
    board.close()
    board.close()
    board.unlink()
    board.unlink()
    with pytest.raises(ValueError, match="released"):
        writer.accepted()
