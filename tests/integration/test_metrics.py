"""The metrics of a real instance, as a scraper sees them through whatever happens to it."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import processes
from tests.harness.instance import ECHO, Instance
from tests.harness.observed import Series, metrics, value
from tests.harness.observer import observer
from tests.harness.raw import Raw, spread_clients

Start = Callable[..., Instance]

#: Connections of this one move to the new generation.
RESUMABLE = ECHO.replace("async def app", "@wssup.resumable\nasync def app")
_COUNTERS = ("_total", "_bucket", "_count", "_sum")


@contextmanager
def scraped(instance: Instance) -> Iterator[list[dict[Series, float]]]:
    """What a scraper gets that asks without pause; what is refused, is not answered or is cut off
    while an observer starts is no scrape.
    """
    scrapes: list[dict[Series, float]] = []
    trouble: list[BaseException] = []
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(0.02):
            try:
                scrapes.append(metrics(instance))
            except (OSError, http.client.IncompleteRead):
                continue
            except BaseException as error:  # noqa: BLE001 - told to the test
                if "503" not in str(error):
                    trouble.append(error)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        processes.until(lambda: scrapes, 60, "the first scrape")
        yield scrapes
    finally:
        done.set()
        scraper.join()
    assert trouble == []


def test_no_counter_goes_backwards_through_crash_reload_and_a_dead_observer(start: Start) -> None:
    """A worker is killed, a reload moves all connections, a reload is refused, the observer is
    killed, all under load: in no scrape is a counter less than in the one before, none vanishes,
    and in the end all agree with the status document.
    """
    instance = start(RESUMABLE, status=True, backoff_min=0.2)
    status = instance.running()
    (address,) = status["bind"]
    with spread_clients(address, 2, 10) as found_clients, scraped(instance) as scrapes:
        clients = [client for slot in (0, 1) for client in found_clients[slot]]

        def seen(fact: Callable[[dict[Series, float]], object], what: str) -> None:
            processes.until(lambda: scrapes and fact(scrapes[-1]), 60, what)

        assert {client.ask("hello") for client in clients} == {"hello"}
        seen(
            lambda now: value(now, "wssup_connections", state="active") == len(clients), "them all"
        )
        lost = value(scrapes[-1], "wssup_connections", worker="0", state="active")
        assert lost == len(found_clients[0])
        os.kill(instance.workers()[0], signal.SIGKILL)
        instance.wait(lambda s: s["restarts"] == 1, "the restart")
        instance.running()
        assert instance.run("reload").returncode == 0
        seen(lambda now: value(now, "wssup_reloads_total", result="done") == 1, "the reload")
        instance.edit("import os", "import os, nothing_like_it")
        assert instance.run("reload").returncode == 1
        seen(lambda now: value(now, "wssup_reloads_total", result="refused") == 1, "the refusal")
        os.kill(_observer(instance), signal.SIGKILL)
        seen(lambda now: value(now, "wssup_observer_restarts_total") == 1, "the next observer")
        kept = [client for client in clients if _answers(client)]
        # Workers write down what came within milliseconds: the document is asked anew each time.
        seen(
            lambda now: (
                value(now, "wssup_messages_total", direction="in")
                == instance.status()["connections"]["messages_in"]
            ),
            "the last messages",
        )
        found = instance.status()

    before: dict[Series, float] = {}
    for now in scrapes:
        counters = {key: n for key, n in now.items() if key[0].endswith(_COUNTERS)}
        assert {key for key in before if key not in counters} == set()
        assert {k: (before[k], n) for k, n in counters.items() if n < before.get(k, 0)} == {}
        assert not any(label == "pid" for _, labels in now for label, _ in labels)
        before = counters
    last = scrapes[-1]
    counts = found["connections"]
    assert len(kept) == len(clients) - lost
    assert value(last, "wssup_connections_closed_total", reason="worker_died") == lost
    assert value(last, "wssup_closes_total", code="1006", initiator="server") == lost
    assert value(last, "wssup_connections", state="active") == counts["active"] == len(kept)
    assert value(last, "wssup_connections_accepted_total") == counts["accepted"]
    assert value(last, "wssup_handler_errors_total") == counts["handler_errors"]
    assert value(last, "wssup_handoffs_total", result="moved") == found["handoff"]["moved"] > 0
    assert value(last, "wssup_handoff_pause_seconds_count") == found["handoff"]["moved"]
    assert value(last, "wssup_worker_restarts_total", reason="signal") == 1
    assert value(last, "wssup_capacity_connections") == found["capacity"]
    generations = {dict(labels)["generation"] for name, labels in last if name == "wssup_workers"}
    assert generations == {"2"}


def test_processes_and_listeners(start: Start, tmp_path: Path) -> None:
    """Memory and descriptors of every process, by role, and the accept queue of every listener: one
    for each slot of a TCP address, one for all of a unix socket.
    """
    instance = start(status=True, bind=["127.0.0.1:0", f"unix:{tmp_path}/app.sock"])
    status = instance.running()
    observer(instance)
    found = metrics(instance)
    for name in ("resident_memory_bytes", "open_fds", "max_fds"):
        roles = sorted(
            (dict(labels)["role"], dict(labels).get("worker"))
            for series, labels in found
            if series == f"wssup_process_{name}"
        )
        assert roles == [
            ("master", None),
            ("observer", None),
            ("worker", "0"),
            ("worker", "1"),
            ("zygote", None),
        ]
    (soft,) = {n for (name, _), n in found.items() if name == "wssup_process_max_fds"}
    assert soft == status["limits"]["nofile"]["soft"]
    for (name, labels), n in found.items():
        if name == "wssup_process_open_fds" and dict(labels)["role"] == "worker":
            assert 5 < n < 100
    tcp, unix = status["bind"]
    queues = {labels for name, labels in found if name == "wssup_listen_queue_length"}
    assert queues == {
        (("address", tcp), ("worker", "0")),
        (("address", tcp), ("worker", "1")),
        (("address", unix),),
    }
    limit = value(found, "wssup_listen_queue_limit", address=tcp, worker="0")
    assert limit == status["limits"]["backlog"]
    assert value(found, "wssup_build_info", version=status["version"]) == 1


def _observer(instance: Instance) -> int:
    pid: int = instance.status()["observer"]["pid"]
    return pid


def _answers(client: Raw) -> bool:
    """Whether a connection lives."""
    try:
        return client.ask("still there") == "still there"
    except (OSError, AssertionError):
        return False
