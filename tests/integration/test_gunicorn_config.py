"""An instance that takes its settings from a gunicorn.conf.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.harness import processes
from tests.harness.clients import ask
from tests.harness.instance import ECHO, Instance

CONFIG = """\
import os

workers = 2
threads = 8
graceful_timeout = 7


def note(text):
    with open("hooks", "a") as file:
        file.write(f"{text}\\n")


def post_fork(server, worker):
    note(f"post_fork {worker.pid} {server.pid}")
    worker.log.info("a hook logs")

def post_worker_init(worker):
    note(f"post_worker_init {worker.age}")

def worker_exit(server, worker):
    note(f"worker_exit {worker.pid} {server.pid}")
"""


def test_the_parent_is_the_master(start: Callable[..., Instance], tmp_path: Path) -> None:
    """Whose child a worker is, its first hook already knows: the master's, however long the process
    takes to end from which it was forked.
    """
    (tmp_path / "gunicorn.conf.py").write_text(CONFIG)
    late = "import os, time\n\nos.register_at_fork(after_in_parent=lambda: time.sleep(0.2))\n"
    instance = start(late + ECHO, gunicorn_config="gunicorn.conf.py", workers=None)
    instance.running()
    noted = (tmp_path / "hooks").read_text()
    for pid in instance.workers().values():
        assert f"post_fork {pid} {instance.pid}\n" in noted


async def test_hooks_of_workers(start: Callable[..., Instance], tmp_path: Path) -> None:
    """Its settings are used, what has no meaning is named, and the hooks that belong to a worker
    are called when one begins and ends, in it. A hook that fails in a reload ends that reload.
    """
    file = tmp_path / "gunicorn.conf.py"
    file.write_text(CONFIG)
    instance = start(gunicorn_config="gunicorn.conf.py", workers=None, drain_timeout=None)
    instance.running()
    assert "gunicorn.conf.py: threads: " in instance.logged()
    workers = set(instance.workers().values())
    assert len(workers) == 2
    assert (await ask(instance.url(), "hello")) == "hello"
    shown = {row["key"]: row for row in instance.ask("config")["result"]["settings"]}
    assert (shown["drain_timeout"]["value"], shown["drain_timeout"]["source"]) == (
        7,
        "gunicorn.conf.py",
    )
    hooks = tmp_path / "hooks"
    for pid in workers:
        assert f"post_fork {pid} {instance.pid}" in hooks.read_text()
    assert hooks.read_text().count("post_worker_init") == 2
    assert len(instance.events("a hook logs")) == 2
    file.write_text(CONFIG.replace("worker.log.info", "worker.log.no_such_thing"))
    done = instance.run("reload")
    assert done.returncode == 1
    assert "post_fork raised AttributeError" in done.stderr + done.stdout
    assert set(instance.workers().values()) == workers
    file.write_text(CONFIG)
    assert instance.run("stop").returncode == 0
    instance.exited()
    for pid in workers:
        processes.until(lambda pid=pid: not processes.alive(pid), 10, "the workers to end")
        assert f"worker_exit {pid} {instance.pid}" in hooks.read_text()
