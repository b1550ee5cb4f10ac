"""The C clients that watch a reload: each answers a line with a line of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.native import BUILD, MeasureError

Report = dict[str, Any]
#: Connections of one process: below the usual hard limit of descriptors.
MOST = 16_000
#: Handshakes that all processes together have in progress.
_WINDOW = 512
#: Seconds until all connections must be open, or a client must answer.
_OPENING, _PATIENCE = 200.0, 100.0


class Client:
    """A process of clients.

    :param process: with pipes for all three streams.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._text = b""

    def ask(self, word: str = "") -> Report:
        """Say a word; its report.

        :raises MeasureError: if it ended or does not answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.report(_PATIENCE)

    def report(self, seconds: float) -> Report:
        """The next line it says.

        :raises MeasureError: if it ended, or said none within that time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._text:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise MeasureError(f"clients did not answer within {seconds:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise self._ended()
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        report: Report = json.loads(line)
        return report

    def _ended(self) -> MeasureError:
        assert self._process.stderr is not None
        self._process.kill()
        why = self._process.stderr.read().decode().strip()
        return MeasureError(f"the clients ended: {why or self._process.wait()}")


@contextmanager
def started(program: str, *words: str, **options: object) -> Iterator[Client]:
    """Start a program of clients; it ends with the block.

    :param words: its arguments; ``options`` its options by name.
    """
    command = [str(BUILD / program), *words]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield Client(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Crowd:
    """Clients with open connections.

    :param holders: whose are idle.
    :param talker: whose talk; None if nobody does.
    """

    holders: list[Client]
    talker: Client | None

    def finished(self) -> Report:
        """Have the talkers stop and every idle connection say something; all reports in one."""
        talked = [self.talker.ask("stop")] if self.talker else []
        return together([*talked, *(holder.ask("check") for holder in self.holders)])

    def asked(self) -> Report:
        """All reports so far in one."""
        everybody = [*self.holders, *([self.talker] if self.talker else [])]
        return together([one.ask() for one in everybody])


@contextmanager
def crowd(
    port: int, connections: int, *, talkers: int = 0, think_ms: int = 0, samples: Path | None = None
) -> Iterator[Crowd]:
    """Open connections, idle ones and talking ones mixed; they end with the block.

    :param connections: in all.
    :param talkers: how many of them talk; ``think_ms`` is from an answer to the next text.
    :param samples: where the talkers write what they saw.
    """
    idle = connections - talkers
    processes = -(-idle // MOST)
    with ExitStack() as stack:
        holders = []
        for number in range(processes):
            held = idle // processes + (number < idle % processes)
            window = max(1, _WINDOW // processes)
            holders.append(
                stack.enter_context(
                    started("reload", "hold", port=port, connections=held, window=window)
                )
            )
        talker = None
        if talkers:
            # Their share of the handshakes is their share of the connections: so they are not
            # neighbours in the workers' tables.
            window = max(1, round(_WINDOW * talkers / connections))
            talking: dict[str, object] = {"port": port, "connections": talkers, "window": window}
            talking |= {"think": think_ms, "samples": samples}
            talker = stack.enter_context(started("reload", "talk", **talking))
        found = Crowd(holders, talker)
        for client in (*holders, *([talker] if talker else [])):
            client.report(_OPENING)
        yield found


def together(reports: list[Report]) -> Report:
    """Reports added up."""
    total: Report = {"closed": {}, "pids": set(), "closed_first": 0, "closed_last": 0}
    for report in reports:
        for name, value in report.items():
            if name == "closed":
                for code, count in value.items():
                    total["closed"][int(code)] = total["closed"].get(int(code), 0) + count
            elif name == "pids":
                total["pids"] |= set(value)
            elif name == "closed_first":
                total[name] = min(filter(None, (total[name], value)), default=0)
            elif name == "closed_last":
                total[name] = max(total[name], value)
            else:
                total[name] = total.get(name, 0) + value
    return total


def not_let_in(knocked: Report) -> int:
    """How many of those who came meanwhile were refused, reset, denied or left waiting."""
    return sum(int(knocked[name]) for name in ("refused", "cut", "denied", "late"))
