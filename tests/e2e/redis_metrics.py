"""The metrics of an instance with a bridge to a real Redis."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.common import APPLICATION, Start
from tests.harness import processes
from tests.harness.observed import metrics, value
from tests.harness.redis_server import redis_server


def test_the_bridge_is_seen(start: Start, tmp_path: Path) -> None:
    """While its server is there the bridge is up, and what was published is counted as sent; when
    the server ends it is down, and its counters stay. It has memory and descriptors as others have.
    """
    with redis_server(tmp_path / "redis") as server:
        bus = f"redis://127.0.0.1:{server.port}"
        instance = start(APPLICATION, status=True, topics={"bus": bus})
        instance.running()

        def up() -> bool:
            return value(metrics(instance), "wssup_bridge_up") == 1

        processes.until(up, 60, "the bridge to be up")
        for _ in range(3):
            assert instance.run("publish", "news", "hello").returncode == 0

        def sent() -> float:
            return value(metrics(instance), "wssup_bridge_messages_total", direction="out")

        processes.until(lambda: sent() == 3, 60, "three messages at the server")
        found = metrics(instance)
        assert value(found, "wssup_topic_published_total") == 3
        assert value(found, "wssup_bridge_bus_messages_total", direction="in") == 3
        assert value(found, "wssup_process_open_fds", role="bridge") > 5
        server.process.kill()
        processes.until(lambda: not up(), 60, "the bridge to be down")
        assert sent() == 3
