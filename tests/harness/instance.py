"""A real wssup in a process of its own, and its command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import processes

#: What most tests serve: it echoes, and says who it is on request.
ECHO = """\
import os
import wssup

GENERATION_MARK = "original"

async def app(request):
    ws = await request.accept()
    while True:
        message = await ws.get_message()
        if message == "who":
            worker = wssup.current_worker()
            message = f"{worker.slot} {worker.generation} {os.getpid()} {GENERATION_MARK}"
        await ws.send_message(message)
"""
#: The core under test is that of this process; it is no setting.
_CORE = "WSSUP_PURE_PYTHON"
#: Short windows: a test waits for facts, and should not have to wait long.
QUICK = {
    "settle": 0.5,
    "drain_window": 0.5,
    "drain_timeout": 10,
    "backoff_min": 0.05,
    "log_level": "debug",
    "log_format": "json",
    "workers": 2,
    "bind": "127.0.0.1:0",
    # A process that a busy machine puts aside for a while is no stall: tests of those set theirs.
    "stall_after": 20,
    # An observer costs as much as everything else of a start together.
    "status": False,
}


class Instance:
    """An instance under test.

    :param home: where the application, the log and the runtime directory are.
    :param application: the text of ``application.py``; an echo by default.
    :param settings: overrides of :data:`QUICK`; ``name`` too; ``None`` leaves a setting out.
    """

    def __init__(self, home: Path, application: str, settings: dict[str, object]) -> None:
        settings = QUICK | {"name": "test"} | settings
        self.name = str(settings["name"])
        self.home = home
        self.runtime_dir = home / "run"
        self.log = home / f"{self.name}.log"
        self.config = home / f"{self.name}.toml"
        self.source = home / "application.py"
        if application or not self.source.exists():
            self.source.write_text(application or ECHO)
        self.configure(**settings)
        self._launched: list[subprocess.Popen[str]] = []
        self.process = self._serve()
        self.pid = self.process.pid

    def _serve(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command("serve"),
                cwd=self.home,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its commands. Bytecode would hide an edit within the same second, and
        unbuffered output what is in a buffer at a fork.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WSSUP_") or k == _CORE}
        kept.pop("PYTHONUNBUFFERED", None)
        return kept | {"PYTHONDONTWRITEBYTECODE": "1", "PWD": str(self.home), "COLUMNS": "100"}

    def configure(self, **settings: object) -> None:
        """Write the configuration file."""
        settings = {"app": "application:app", "app_dir": str(self.home)} | settings
        settings["runtime_dir"] = str(self.runtime_dir)
        self.settings = settings
        lines = []
        for key, value in settings.items():
            if value is None:
                continue
            for name, single in _flat(key, value):
                lines.append(f"{name} = {json.dumps(single)}")
        self.config.write_text("\n".join(lines) + "\n")

    def reconfigure(self, **changes: object) -> None:
        """Change some settings in the file."""
        self.configure(**(self.settings | changes))

    def command(self, *arguments: str) -> list[str]:
        """The command line of a subcommand for this instance."""
        return [sys.executable, "-m", "wssup", *arguments, "--config", str(self.config)]

    def run(self, *arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        """Run a subcommand to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a subcommand and do not wait for it."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.home,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._launched.append(process)
        return process

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """One command over the control socket; its result or error."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(60)
            client.connect(str(self.runtime_dir / self.name / "control.sock"))
            client.sendall(json.dumps({"v": 1, "command": command, **arguments}).encode() + b"\n")
            with client.makefile("rb") as lines:
                for line in lines:
                    answer: dict[str, Any] = json.loads(line)
                    if "event" not in answer:
                        return answer
        raise AssertionError(f"no answer to {command}")

    def status(self) -> dict[str, Any]:
        """The status document."""
        answer = self.ask("status")
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def wait(
        self, fact: Callable[[dict[str, Any]], object], what: str, seconds: float = 60
    ) -> dict[str, Any]:
        """Wait until the status says so; returns that status."""
        seen: list[dict[str, Any]] = []

        def look() -> bool:
            assert self.process.poll() is None, f"the master ended:\n{self.logged()}"
            try:
                seen[:] = [self.status()]
            except (OSError, AssertionError):
                return False
            return bool(fact(seen[0]))

        try:
            processes.until(look, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstatus: {seen}\nlog:\n{self.logged()}") from None
        return seen[0]

    def running(self) -> dict[str, Any]:
        """Wait until it runs with all workers ready."""
        return self.wait(
            lambda s: s["state"] == "running" and all(x["state"] == "ready" for x in in_service(s)),
            "the instance to run",
        )

    def url(self, which: int = 0) -> str:
        """The WebSocket address."""
        return f"ws://{self.status()['bind'][which]}/"

    def address(self, which: int = 0) -> str:
        """The address as ``host:port``."""
        found: str = self.status()["bind"][which]
        return found

    def segment(self) -> Path:
        """The scoreboard's file.

        :raises FileNotFoundError: if the instance recorded none.
        """
        recorded = self.runtime_dir / self.name / "segment"
        return Path("/dev/shm") / recorded.read_text().strip()

    def workers(self, role: str = "current") -> dict[int, int]:
        """Process ids by slot."""
        return {
            s["slot"]: w["pid"]
            for s in self.status()["slots"]
            for w in s["workers"]
            if w["role"] == role
        }

    def zygote(self) -> int:
        """The process id of the newest zygote."""
        found = [p for p in processes.children(self.pid) if "zygote" in processes.title(p)]
        assert found, "no zygote"
        return max(found)

    def logged(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def entries(self) -> list[dict[str, Any]]:
        """The log lines of all events so far, without one that is still being written."""
        lines = self.logged().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [entry for entry in self.entries() if entry["event"] == name]

    def wait_logged(self, event: str, count: int = 1, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait until an event was logged so often."""
        processes.until(lambda: len(self.events(event)) >= count, seconds, f"{event} in the log")
        return self.events(event)

    def edit(self, old: str, new: str) -> None:
        """Deploy: change the application's source."""
        text = self.source.read_text()
        assert old in text
        self.source.write_text(text.replace(old, new))

    def hold_import(self) -> None:
        """Have whoever imports the application from now on wait."""
        gate = str(self.home / "gate")
        self.source.write_text(
            f"import os, time\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.01)\n{ECHO}"
        )

    def let_import(self) -> None:
        """Let those go on who wait because of :meth:`hold_import`."""
        (self.home / "gate").touch()

    def signal(self, number: int) -> None:
        """Signal the master."""
        os.kill(self.pid, number)

    def exited(self, seconds: float = 60) -> int:
        """Wait for the master's end; its exit status."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill whatever of it still runs."""
        before = processes.children(os.getpid())
        family = processes.descendants(self.pid) | {self.pid}
        for pid in family:
            if processes.alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for command in self._launched:
            with command:
                command.kill()
        # A killed master leaves its segment to the next one of its name, and here none follows.
        with contextlib.suppress(FileNotFoundError):
            self.segment().unlink()
        for pid in family:
            processes.until(lambda pid=pid: not processes.alive(pid), 10, f"{pid} to die")
            processes.reap(pid)
        # A worker that was just being forked was nobody's when the family was counted, and is ours
        # now that its master is gone.
        while late := {pid for pid in processes.children(os.getpid()) - before if self._is_of(pid)}:
            processes.end(late)

    def _is_of(self, pid: int) -> bool:
        """Whether a process that lives calls itself one of this instance."""
        return f" {self.name} " in f"{processes.title(pid)} " and processes.alive(pid)


def _flat(key: str, value: object) -> list[tuple[str, object]]:
    """A setting, or those of a table such as ``limits``, as dotted keys."""
    if key == "bind" and isinstance(value, str):
        return [(key, [value])]
    if isinstance(value, dict):
        return [(f"{key}.{name}", single) for name, single in value.items()]
    return [(key, value)]


def in_service(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The slots that should have a worker."""
    return [s for s in status["slots"] if s["state"] not in {"empty", "parked"}]
