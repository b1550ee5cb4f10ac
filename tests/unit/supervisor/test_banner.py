"""What a person reads who started an instance at a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from wssup.config.addresses import parse_bind
from wssup.config.loading import load
from wssup.supervisor.banner import command, started


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of its own, and a wssup that is on the path."""
    monkeypatch.chdir(tmp_path)
    binaries = tmp_path / "on the path"
    binaries.mkdir()
    program = binaries / "wssup"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(binaries))
    monkeypatch.delenv("WSSUP_CONFIG", raising=False)
    monkeypatch.setattr(sys, "argv", [str(program)])


def call(tmp_path: Path, config: str = "", environ: str = "", **cli: str) -> str:
    """The call for an instance that was configured so."""
    variables = {"WSSUP_RUNTIME_DIR": environ} if environ else {}
    loaded = load(cli=cli, environ=variables, config_file=config or None, cwd=str(tmp_path))
    return "".join(command(loaded.settings, loaded.sources["runtime_dir"]))


def test_what_is_found_by_itself_is_not_said(tmp_path: Path) -> None:
    """The default name, and a runtime directory from the environment or from the wssup.toml in the
    current directory, need no options.
    """
    assert call(tmp_path) == "wssup"
    assert call(tmp_path, environ="/run/here") == "wssup"
    (tmp_path / "wssup.toml").write_text('runtime_dir = "/run/there"\n')
    assert call(tmp_path) == "wssup"


def test_what_only_this_start_was_told_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name, and a runtime directory from an option or from a file that an option named, are part
    of the call; quoted for a shell where that needs it.
    """
    assert call(tmp_path, name="shop") == "wssup --name shop"
    assert call(tmp_path, runtime_dir="/run/x") == "wssup --runtime-dir /run/x"
    expected = "wssup --name shop --runtime-dir '/run/a b'"
    assert call(tmp_path, name="shop", runtime_dir="/run/a b") == expected
    file = tmp_path / "shop.toml"
    file.write_text('runtime_dir = "/run/there"\n')
    assert call(tmp_path, config=str(file)) == "wssup --runtime-dir /run/there"
    monkeypatch.setenv("WSSUP_CONFIG", str(file))
    assert call(tmp_path, config=str(file)) == "wssup"


def test_a_program_that_is_not_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wssup that is called by its path is called by it again: from below the current directory
    relatively; started as a module it is just wssup.
    """
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv/bin/wssup")])
    assert call(tmp_path) == ".venv/bin/wssup"
    monkeypatch.setattr(sys, "argv", ["/opt/shop/bin/wssup"])
    assert call(tmp_path) == "/opt/shop/bin/wssup"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "wssup/__main__.py")])
    assert call(tmp_path) == "wssup"


def test_the_text(tmp_path: Path) -> None:
    """It says what is served, where to connect (a port that the kernel chose, too), the capacity
    and what it is made of, where the dashboard is, and the next commands with their options.
    """
    loaded = load(
        cli={"app": "shop:app", "name": "shop"}, environ={}, cwd=str(tmp_path), config_file=None
    )

    def address(text: str) -> SimpleNamespace:
        bind = parse_bind(text)
        return type("Address", (SimpleNamespace,), {"__str__": lambda _: text})(where=bind)

    binds = ("127.0.0.1:4711", "[::1]:8000", "unix:/run/shop.sock")
    master = SimpleNamespace(
        settings=loaded.settings,
        loaded=loaded,
        listeners=SimpleNamespace(addresses={t: address(t) for t in binds}),
        nofile=SimpleNamespace(soft=20_000),
        fleet=SimpleNamespace(count=3),
        observing=SimpleNamespace(bind="127.0.0.1:9000"),
        capacity=lambda: 59_808,
    )
    text = started(master)  # type: ignore[arg-type]
    assert "wssup serves shop:app\n" in text
    assert "ws://127.0.0.1:4711/   ws://[::1]:8000/   unix:/run/shop.sock\n" in text
    assert "59808 connections = 3 workers × (20000 − 64 files)" in text
    assert "http://127.0.0.1:9000/\n" in text
    for line in ("status", "reload", "scale 4", "stop"):
        assert f"wssup {line} --name shop" in text
