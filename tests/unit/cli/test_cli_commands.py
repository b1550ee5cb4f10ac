"""The command itself: its configuration, mistakes, version and help."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from control_peer import DEADLINE, Peer
from told import errors, running

from wssup.cli.main import COMMANDS, group, main
from wssup.config import load
from wssup.version import __version__

ROOT = Path(__file__).parents[3]


def test_config_without_an_instance(
    peer: Peer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an instance config shows what serve would use, as a file that means the same."""
    (tmp_path / "wssup.toml").write_text(
        'app = "a:b"\nbind = ["[::1]:1", "unix:/run/\u00e9,x.sock"]\nsettle = 0.1\n'
        'app_dir = "we\\u202eird \\u001b\\"x"\n[limits]\nmessage_bytes = 1000\n'
    )
    assert main(["config", "--name", "x"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# The settings that wssup serve would use.\n# File: /")
    assert re.search(r'^settle = "100ms" +# wssup.toml:3$', out, re.MULTILINE)
    assert re.search(r'^name = "x" +# --name; needs a restart$', out, re.MULTILINE)
    found = load(cli={"name": "x"}, environ={}, cwd=str(tmp_path))
    (tmp_path / "copy.toml").write_text(out)
    copy = load(cli={}, environ={}, config_file="copy.toml", cwd=str(tmp_path))
    assert (
        copy.settings
        == load(
            cli={"name": "x"},
            environ={"WSSUP_RUNTIME_DIR": str(peer.runtime_dir)},
            cwd=str(tmp_path),
        ).settings
    )
    assert copy.settings.app_dir == found.settings.app_dir == f'{tmp_path}/we\u202eird \x1b"x'
    assert main(["config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["running"] is False
    assert {"key": "settle", "value": 0.1, "source": "wssup.toml:3", "live": True} in document[
        "settings"
    ]


def test_config_of_a_running_instance(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """With an instance config shows its settings and says so; --given shows ours."""
    rows = [
        {"key": "workers", "value": 3, "source": "/etc/x.toml:4", "live": True},
        {"key": "settle", "value": "new kind", "source": "default", "live": True},
        {"key": "brand_new", "value": [1], "source": "default", "live": False},
    ]
    running(peer, config=[{"result": {"settings": rows, "file": "/etc/x.toml"}}])
    for command in (["config"], ["config", "--effective"]):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines() == [
            "# The settings of the running instance default.",
            "# File: /etc/x.toml",
            "workers = 3          # /etc/x.toml:4",
            'settle = "new kind"  # default',
            "brand_new = [1]      # default; needs a restart",
        ]
    assert main(["config", "--given"]) == 0
    assert "that wssup serve would use" in capsys.readouterr().out
    assert main(["config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"running": True, "settings": rows, "file": "/etc/x.toml"}


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["serve"], ["app is not set", "MODULE:ATTR"]),
        (["serve", "a:b", "--bind", ":8765"], ["bind = ':8765' (from --bind)", "0.0.0.0:8765"]),
        (["serve", "a:b", "--workers", "x"], ["workers = 'x' (from --workers)"]),
        (["serve", "a:b", "--drain-timeout", "1s"], ["drain_window", "from --drain-timeout"]),
        (["serve", "a:b", "--wrokers", "2"], ["--wrokers", "--workers", "wssup serve --help"]),
        (["serve", "a:b", "c"], ["c", "wssup serve --help"]),
        (["status", "--config", "nope"], ["nope (from --config): no such file"]),
        (["status", "--watch"], ["needs a terminal"]),
        (["status", "--watch", "--json"], ["exclude"]),
        (["scale"], ["N"]),
        (["scale", "0"], ["0"]),
        (["drain", "--over", "soon"], ["'soon': not a duration"]),
        (["frob"], ["frob", "wssup --help"]),
        (["status", "\x1b[31m"], ["\\x1b[31m"]),
    ],
)
def test_mistakes(
    peer: Peer, capsys: pytest.CaptureFixture[str], command: list[str], parts: list[str]
) -> None:
    """A mistake in a command or the configuration is one line with its remedy, exit status 2."""
    assert main(command) == 2
    err = errors(capsys)
    (line,) = err.splitlines()
    assert line.startswith("wssup: error: ")
    assert " → " in line
    for part in parts:
        assert part in err


def test_an_unknown_variable_stops_every_command(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt WSSUP_ variable is an error that names the right one."""
    monkeypatch.setenv("WSSUP_WORKES", "2")
    for command in (["status"], ["config"], ["serve", "a:b"]):
        assert main(command) == 2
        assert "did you mean WSSUP_WORKERS?" in errors(capsys)


@pytest.mark.parametrize("variable", ["", "1"])
def test_the_version_names_the_core(variable: str) -> None:
    """`wssup --version` says which core runs: the compiled one if it is there, unless
    WSSUP_PURE_PYTHON is set and not empty.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wssup", "--version"],
        env=os.environ | {"WSSUP_PURE_PYTHON": variable},
        capture_output=True,
        text=True,
        check=True,
    )
    there = importlib.util.find_spec("wssup.server._wire") is not None
    core = "compiled" if there and not variable else "pure Python"
    assert done.stdout == f"wssup {__version__} ({core} core)\n"


def test_bare_command_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare command shows its help and exits 2; --version and every --help exit 0."""
    assert main([]) == 2
    assert "Commands:" in errors(capsys)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"wssup {__version__} (")
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "Exit status: 0" in out
        assert f"\n    wssup {command}" in out
        # All others are about an instance.
        assert ("--runtime-dir DIR" in out) is (
            command not in {"systemd", "completion", "proxy-config"}
        )
        assert max(map(len, out.splitlines())) <= 80


def test_serve_has_an_option_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of serve lists an option for every setting, in the table's order and groups."""
    from wssup.config import SETTINGS  # noqa: PLC0415

    assert main(["serve", "-h"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"  {setting.flag} ") for key, setting in SETTINGS.items() if key != "app"]
    assert places == sorted(places)
    headings = dict.fromkeys(setting.spec.group for setting in SETTINGS.values())
    positions = [out.index(f"\n{heading}:\n") for heading in headings]
    assert positions == sorted(positions)


def test_another_platform_is_told_at_once() -> None:
    """Elsewhere than on Linux one line says so, and nothing for Linux alone is imported."""
    code = (
        "import sys; sys.modules['fcntl'] = None; sys.platform = 'darwin'; "
        "from wssup.cli.main import main; sys.exit(main(['status']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == "wssup: error: wssup runs on Linux only, and this is darwin\n"


def test_the_module_runs_the_command(peer: Peer) -> None:
    """Running the package is the command, and its exit status is the command's."""
    run = subprocess.run(
        [sys.executable, "-m", "wssup", "status"],
        env=peer.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (run.returncode, run.stdout) == (3, "")
    assert "Traceback" not in run.stderr


def test_the_reference_names_every_command_and_option() -> None:
    """docs/reference/commands.md names each command and each of its options."""
    text = (ROOT / "docs/reference/commands.md").read_text()
    context = click.Context(group)
    sections = dict(
        re.findall(r"^## `wssup ([\w-]+).*?`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    assert list(sections) == list(COMMANDS)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        inner = command.commands.values() if isinstance(command, click.Group) else []
        for option in [p for c in (command, *inner) for p in c.params]:
            is_setting = hasattr(option, "setting") or option.name == "config_file"
            if not isinstance(option, click.Option) or option.hidden or is_setting:
                continue
            for flag in [*option.opts, *option.secondary_opts]:
                assert f"`{flag}" in sections[name], (name, flag)
