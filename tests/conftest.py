"""Fixtures for all tests. What a test starts is ended by its id, also when the test fails."""

from __future__ import annotations

import compileall
import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.harness import processes, skips
from tests.harness.instance import Instance

# A busy machine takes its time: how long an example takes says nothing about the claim.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

#: Lines of an instance's log that a failing test shows.
_SHOWN = 200


def pytest_configure(config: pytest.Config) -> None:
    """Compile what the processes under test import. They write no bytecode themselves, and each of
    hundreds would otherwise spend a second on compiling it.
    """
    if not hasattr(config, "workerinput"):
        for folder in ("wssup", "tests/harness"):
            compileall.compile_dir(str(config.rootpath / folder), quiet=1)
        if config.getoption("numprocesses", None):
            _rewrite_once(config.rootpath)


def _rewrite_once(root: Path) -> None:
    """Have pytest's form of the tests' bytecode written before its processes begin, of which each
    would make all of it otherwise: a tenth of the time of the whole suite.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    with contextlib.ExitStack() as stack:
        for part in ("tests/unit", "tests/integration", "tests/property", "tests/conformance"):
            stack.enter_context(
                subprocess.Popen(
                    [*command, part],
                    cwd=root,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    # What is wrong with a test is told by the run itself.
                    stderr=subprocess.DEVNULL,
                )
            )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The thousands of tests themselves are no garbage: many of them have it collected, which took
    a quarter of the whole suite's time while these were looked through with it. Looking for some
    while they are made took a fourteenth of the time that making them takes.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip that is not in the committed list is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and not skips.is_allowed(item.nodeid):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which tests/skips.md does not allow"
    return report


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard() -> None:
    """What runs in a shell's background is started with SIGINT ignored, and hands that down to the
    commands under test (execve(2)), for which Ctrl-C would then be nothing.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _orphans_come_here() -> None:
    """Workers whose master was killed become children of the test process, which can end them."""
    processes.become_subreaper()


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """A test that leaves a process behind fails, after the process was ended."""
    before = processes.descendants()
    yield
    left = processes.end(processes.descendants() - before)
    assert not left, f"the test left processes behind: {left}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Start instances of wssup; whatever they still run is killed at the end of the test."""
    started: list[Instance] = []

    def starting(application: str = "", **settings: object) -> Instance:
        instance = Instance(tmp_path, application, settings)
        started.append(instance)
        return instance

    yield starting
    for instance in started:
        instance.end()
        # pytest shows it when the test failed. Single connections only hide the rest.
        lines = [x for x in instance.logged().splitlines() if '"event": "closed"' not in x]
        print(f"{instance.log}:", *lines[-_SHOWN:], sep="\n")  # noqa: T201
