"""Listeners on unix sockets, and their files."""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

import pytest

from tests.harness.listeners import Make, only
from wssup.errors import ListenError


def test_unix_socket(make: Make, tmp_path: Path) -> None:
    """A unix socket serves all slots by one listener, has the mode asked for, needs no steering,
    and its file goes with it.
    """
    path = tmp_path / "app.sock"
    found = make(f"unix:{path}", slots=3, mode=0o606)
    address = only(found)
    assert {address.fileno(s) for s in range(3)} == {address.fileno(0)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    found.steer([0, 1, 1])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert found.of(1) == ([f"unix:{path}"], [address.fileno(0)])
    assert found.of(1, lent=True) == ([], [])
    found.close_all()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(make: Make, tmp_path: Path) -> None:
    """The file that a dead instance left is no obstacle."""
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    make(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("backlog", [0, 5])
def test_a_live_unix_socket_is_refused(make: Make, tmp_path: Path, backlog: int) -> None:
    """The file of somebody who listens, busy or not, stays; the error says that it is in use."""
    path = tmp_path / "app.sock"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(socket.socket(socket.AF_UNIX))
        live.bind(str(path))
        live.listen(backlog)
        if not backlog:
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(ListenError, match="in use") as caught:
            make(f"unix:{path}")
        assert str(path) in caught.value.message
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(make: Make, tmp_path: Path) -> None:
    """A regular file in the way is an error, and stays."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="something that is no socket is there"):
        make(f"unix:{path}")
    assert path.read_text() == "data"


@pytest.mark.parametrize("where", ["file/app.sock", "missing/app.sock"])
def test_a_path_that_cannot_be(make: Make, tmp_path: Path, where: str) -> None:
    """A path through a file, or a directory that is not there, is an error with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenError, match=rf"{where}: (Not a|No such file or) directory"):
        make(f"unix:{tmp_path}/{where}")


def test_a_file_that_is_not_ours_any_more_is_not_removed(make: Make, tmp_path: Path) -> None:
    """When another instance has taken over the path, closing leaves its socket alone."""
    path = tmp_path / "app.sock"
    found = make(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        found.close_all()
        assert path.is_socket()
