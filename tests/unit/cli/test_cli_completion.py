"""Completion in a real bash, with the Tab key, and what shells are told."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from control_peer import DEADLINE, Peer

from wssup.cli.main import COMMANDS, group, main

READY = "ready> "


class Bash:
    """An interactive bash that has read the script, in which ``wssup`` is the one under test."""

    def __init__(self, peer: Peer, home: Path) -> None:
        programs = home / "bin"
        programs.mkdir()
        program = programs / "wssup"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wssup "$@"\n')
        program.chmod(0o755)
        (home / "rc").write_text(
            f"PS1='{READY}'\nbind 'set enable-bracketed-paste off'\n"
            "bind 'set completion-query-items 0'\nsource <(wssup completion bash)\n"
        )
        self._own, theirs = os.openpty()
        environ = {k: v for k, v in peer.environment.items() if k != "PROMPT_COMMAND"}
        environ |= {"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb"}
        environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--rcfile", str(home / "rc"), "-i"],
            cwd=home,
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""
        self.until(re.escape(READY) + r"\Z")

    def type(self, text: str) -> None:
        self.text = ""
        os.write(self._own, text.encode())

    def until(self, pattern: str) -> str:
        deadline = time.monotonic() + DEADLINE
        while re.search(pattern, self.text) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} not seen in {self.text!r}"
            if select.select([self._own], [], [], left)[0]:
                self.text += os.read(self._own, 1 << 16).decode().replace("\r", "")
        return self.text

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._own)


@contextmanager
def bash(peer: Peer, home: Path) -> Iterator[Bash]:
    found = Bash(peer, home)
    try:
        yield found
    finally:
        found.close()


def test_in_a_real_bash(peer: Peer, tmp_path: Path) -> None:
    """Tab completes commands, options, words, names of instances and directories."""
    peer.lock().listen()
    (tmp_path / "application").mkdir()
    with bash(peer, tmp_path) as shell:
        for typed, completed in (
            ("wssup conn\t", "wssup connections "),
            ("wssup connections --new\t", "wssup connections --newest "),
            ("wssup serve --on-reload h\t", "wssup serve --on-reload handoff "),
            ("wssup status --name d\t", "wssup status --name default "),
            ("wssup serve --app-dir ./appl\t", "wssup serve --app-dir ./application/"),
            ("wssup completion z\t", "wssup completion zsh "),
        ):
            shell.type(typed)
            shell.until(re.escape(completed) + r"\Z")
            shell.type("\x15")  # Ctrl-U: away with the line
        shell.type("wssup \t\t")
        seen = shell.until(r"\n" + re.escape(READY) + r"wssup \Z")
        assert set(seen.split()) >= set(COMMANDS)


def asked(peer: Peer, line: str, shell: str = "bash") -> list[str]:
    """What a shell is told for a line whose last word is to be completed."""
    words = line.split(" ")
    environ = peer.environment | {
        "_WSSUP_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line if shell != "fish" else " ".join(words[:-1]),
        "COMP_CWORD": str(len(words) - 1) if shell != "fish" else words[-1],
    }
    done = subprocess.run(
        [sys.executable, "-c", "from wssup.cli.main import main; main()"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


def test_values(peer: Peer) -> None:
    """Settings of few words, paths and instances are known; where nothing is known, nothing."""
    peer.lock().listen()
    assert asked(peer, "wssup serve --log-format ")[:3] == [
        *("plain,auto", "plain,pretty", "plain,json"),
    ]
    assert asked(peer, "wssup serve --runtime-dir ")[0] == "dir,"
    assert asked(peer, "wssup status --config ")[0] == "file,"
    assert asked(peer, "wssup stop --name ")[0] == "plain,default"
    assert asked(peer, "wssup stop --runtime-dir /nowhere --name ") == ["", ""]
    assert asked(peer, "wssup scale ") == ["", ""]


def test_help_for_zsh_and_fish(peer: Peer) -> None:
    """These shells are told what each command does."""
    assert asked(peer, "wssup clo", "zsh")[:3] == ["plain", "close", "Close single connections."]
    assert "Close single connections." in "\n".join(asked(peer, "wssup clo", "fish"))


def test_a_broken_configuration(peer: Peer) -> None:
    """A mistake in the configuration is for a command to tell: completion says nothing."""
    Path("wssup.toml").write_text("nonsense = 1\n")
    assert asked(peer, "wssup stop --name ") == ["", ""]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """Each shell's script calls the command back by its variable."""
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"_WSSUP_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize("arguments", [[], ["ksh"], ["bash", "zsh"]])
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """No shell, one that is not known, or two are exit status 2."""
    assert main(["completion", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_descriptions_are_whole_in_fish() -> None:
    """No description has a comma, which fish's script takes for its end."""
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        assert "," not in command.get_short_help_str(limit=200), name
