"""``wssup systemd`` with a prefix, as a packager uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wssup.systemd import installer

UNITS = "etc/systemd/system"
SERVICE = f"{UNITS}/wssup@.service"


def wssup(*arguments: str, status: int = 0, **environ: str) -> str:
    """What a command prints; its exit status is as expected."""
    done = subprocess.run(
        [sys.executable, "-m", "wssup", "systemd", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("WSSUP_")} | environ,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree(prefix: Path) -> dict[str, bytes]:
    return {str(p.relative_to(prefix)): p.read_bytes() for p in prefix.rglob("*") if not p.is_dir()}


def test_install_and_uninstall(tmp_path: Path) -> None:
    """Files are written below the prefix, with the absolute path of this wssup; again changes
    nothing; what a changed configuration changes is replaced; uninstalling leaves nothing, not even
    folders.
    """
    prefix = tmp_path / "root"
    said = wssup("install", "--prefix", str(prefix))
    assert said.count("written  ") == 3
    before = tree(prefix)
    assert set(before) == {SERVICE, "etc/sysusers.d/wssup.conf", "etc/sysctl.d/60-wssup.conf"}
    (program,) = installer.program()[:1]
    assert f"\nExecStart={program} " in before[SERVICE].decode()
    assert (prefix / SERVICE).stat().st_mode & 0o777 == 0o644
    times = {p: p.stat().st_mtime_ns for p in prefix.rglob("*")}
    assert wssup("install", "--prefix", str(prefix)).count("unchanged ") == 3
    assert {p: p.stat().st_mtime_ns for p in prefix.rglob("*")} == times
    config = tmp_path / "wssup.toml"
    config.write_text('drain_timeout = "2m"\nbind = ["127.0.0.1:443"]\n')
    said = wssup("install", "--prefix", str(prefix), "--config", str(config))
    assert f"replaced  {prefix}/{SERVICE}" in said
    assert f"written   {prefix}/{UNITS}/wssup@.service.d/low-ports.conf" in said
    assert "\nTimeoutStopSec=135\n" in (prefix / SERVICE).read_text()
    wants = prefix / UNITS / "multi-user.target.wants"
    wants.mkdir()
    (wants / "wssup@shop.service").symlink_to(f"/{SERVICE}")
    assert wssup("uninstall", "--prefix", str(prefix)).count("removed  ") == 5
    assert list(prefix.iterdir()) == []
    assert wssup("uninstall", "--prefix", str(prefix)) == "nothing is installed\n"


def test_edited_files_stay(tmp_path: Path) -> None:
    """A file that was edited, replaced by a link, or was there before us is neither overwritten nor
    removed, and nothing else is touched then; --force does it.
    """
    prefix = str(tmp_path)
    wssup("install", "--prefix", prefix)
    path = tmp_path / SERVICE
    path.write_text(path.read_text().replace("Restart=on-failure", "Restart=always"))
    before = tree(tmp_path)
    for command in ("install", "uninstall"):
        said = wssup(command, "--prefix", prefix, status=1)
        assert f"{path} was edited" in said
        assert tree(tmp_path) == before
    assert "edited" in wssup("verify", "--prefix", prefix)
    assert "replaced" in wssup("install", "--prefix", prefix, "--force")
    path.unlink()
    path.symlink_to("/dev/null")
    assert "is not of wssup's making" in wssup("install", "--prefix", prefix, status=1)
    assert wssup("uninstall", "--prefix", prefix, "--force").count("removed") == 3
    assert not tree(tmp_path)


def test_a_socket_unit_for_the_configured_workers(tmp_path: Path) -> None:
    """--instance takes the settings from the instance's file below the prefix, and the socket unit
    is for that instance; without it the unit is for all.
    """
    config = tmp_path / "etc/wssup/shop.toml"
    config.parent.mkdir(parents=True)
    config.write_text('workers = 3\nbind = ["127.0.0.1:8001"]\n')
    wssup("install", "--prefix", str(tmp_path), "--socket", "--instance", "shop")
    unit = (tmp_path / UNITS / "wssup@shop.socket").read_text()
    assert (
        unit.count("\nListenStream=127.0.0.1:8001\n")
        + unit.count("\nListenStream=127.0.0.1:8001\nListenStream")
        >= 2
    )
    assert unit.count("ListenStream=") == 3
    wssup("install", "--prefix", str(tmp_path), "--socket", "--config", str(config))
    assert (tmp_path / UNITS / "wssup@.socket").exists()
    wssup("uninstall", "--prefix", str(tmp_path))
    assert set(tree(tmp_path)) == {"etc/wssup/shop.toml"}
    assert "no such file" in wssup(
        "install", "--prefix", str(tmp_path), "--instance", "no", status=2
    )


@pytest.mark.parametrize(
    "kind", ["service", "socket", "sysusers", "sysctl", "notify-reload", "low-ports"]
)
def test_show_touches_nothing(tmp_path: Path, kind: str) -> None:
    """Each file can be printed, the service unit by default, and is what install would write."""
    shown = wssup("show", kind, "--prefix", str(tmp_path))
    assert not tree(tmp_path)
    if kind == "service":
        assert wssup("show") == shown
    wssup("install", "--prefix", str(tmp_path), "--socket", "--notify-reload", "--low-ports")
    assert shown.encode() in tree(tmp_path).values()


def test_mistakes(tmp_path: Path) -> None:
    """A wrong configuration and a relative program are said before anything is written."""
    said = wssup("install", "--prefix", str(tmp_path), "--program", "bin/wssup", status=2)
    assert "not an absolute path" in said
    said = wssup("install", "--prefix", str(tmp_path), WSSUP_WORKERS="none", status=2)
    assert "workers = 'none'" in said
    for name in ("../shop", "a b", "%i"):
        said = wssup("show", "--instance", name, status=2)
        assert "--name" in said or "no such file" in said
        said = wssup("install", "--prefix", str(tmp_path), "--user", name, status=2)
        assert "is no name of a user" in said
    assert "nothing is installed" in wssup("verify", "--prefix", str(tmp_path), status=1)
    (tmp_path / "file").touch()
    assert "Not a directory" in wssup("install", "--prefix", str(tmp_path / "file"), status=1)
    assert not tree(tmp_path).keys() - {"file"}


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (tests/skips.md)"
)
def test_verify(tmp_path: Path) -> None:
    """Verifying tells each file's state and the exposure; a unit that systemd would not take, or a
    service that may do too much, is a failure.
    """
    prefix = str(tmp_path)
    wssup("install", "--prefix", prefix, "--socket")
    said = wssup("verify", "--prefix", prefix)
    assert said.count("ours  ") == 4
    assert "exposure  1." in said
    path = tmp_path / SERVICE
    good = path.read_text()
    path.write_text(good.replace("NoNewPrivileges=yes", "NoNewPrivileges=no\nNonsense=1"))
    said = wssup("verify", "--prefix", prefix, status=1)
    assert "edited" in said
    assert "Nonsense" in said
    soft = good.replace("ProtectSystem=strict", "").replace("CapabilityBoundingSet=\n", "")
    path.write_text(soft.replace("PrivateDevices=yes", ""))
    wssup("verify", "--prefix", prefix, status=1)


def test_which_wssup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link on the path, as pipx and uv make it, is followed to the wssup that runs; called as a
    module, the command beside its Python is named, or the module.
    """
    home = tmp_path / "venvs/wssup/bin"
    home.mkdir(parents=True)
    (home / "wssup").write_text("#!/bin/sh\n")
    (home / "wssup").chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/wssup").symlink_to(home / "wssup")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "argv", ["wssup", "systemd"])
    assert installer.program() == (str(home / "wssup"),)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin/wssup")])
    assert installer.program() == (str(home / "wssup"),)
    monkeypatch.setattr(sys, "argv", ["/x/wssup/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(home / "python"))
    assert installer.program() == (str(home / "wssup"),)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert installer.program() == (str(tmp_path / "python"), "-m", "wssup")


def test_what_a_user_cannot_reach(tmp_path: Path) -> None:
    """A program behind a closed door is found before a service fails because of it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "wssup"
    program.touch(mode=0o755)
    assert installer.unreachable([str(program)], "root") == ""
    found = installer.unreachable([str(program)], "nobody-of-that-name")
    # The folders of tests may be closed further up.
    assert found
    assert program.is_relative_to(found)
    assert installer.unreachable(["/usr/bin/env"], "nobody-of-that-name") == ""
