"""Bridges to other kinds of servers than a plain one: with TLS, and a Cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.bridging import Instance, until
from tests.harness.ports import free_port
from tests.harness.redis_server import RedisServer, redis_server
from wssup.scoreboard import BridgeFault, BridgeState
from wssup.topics.message import Message

A, B = "aaaaaaaa", "bbbbbbbb"

Start = Callable[..., Instance]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start bridges; what they logged is shown if the test fails."""
    started: list[Instance] = []

    def starting(name: str, url: str, **topics: object) -> Instance:
        started.append(Instance(tmp_path, name, bus=url, **topics))
        return started[-1]

    yield starting
    for instance in started:
        instance.end()
        print(instance.log.read_text()[-20_000:])  # noqa: T201


def connected(instance: Instance) -> bool:
    return instance.view().state is BridgeState.CONNECTED


def openssl(home: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=home, check=True, capture_output=True, timeout=60)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with a private authority's certificate, one of a server and one of a client."""
    home = tmp_path / "tls"
    home.mkdir()
    subject = ("-subj", "/CN=the authority")
    openssl(
        home,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        *subject,
        "-days",
        "2",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    for name, names in (("server", "IP:127.0.0.1"), ("client", "DNS:bridge")):
        (home / "ext").write_text(f"subjectAltName={names}\n")
        openssl(
            home,
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        openssl(
            home,
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            f"{name}.pem",
        )
    return home


def test_tls(tmp_path: Path, authority: Path, start: Start) -> None:
    """With TLS, a certificate of its own and a password a bridge connects; one that does not know
    the server's authority does not, and says so.
    """
    port = free_port()
    options = [
        *("--port", "0", "--tls-port", str(port), "--requirepass", "word"),
        *("--tls-cert-file", str(authority / "server.pem")),
        *("--tls-key-file", str(authority / "server.key")),
        *("--tls-ca-cert-file", str(authority / "ca.pem"), "--tls-auth-clients", "yes"),
    ]
    trust = f"ssl_ca_certs={authority / 'ca.pem'}"
    own = f"ssl_certfile={authority / 'client.pem'}&ssl_keyfile={authority / 'client.key'}"
    with redis_server(tmp_path / "redis", *options, port=port, plain=False):
        server = f"default:word@127.0.0.1:{port}"
        a = start(A, f"rediss://{server}/0?{trust}&{own}")
        b = start(B, f"valkeys://{server}?{trust}&{own}")
        b.worker.bus.subscribed("t", 1)
        until(a, b, fact=lambda: connected(a) and connected(b))
        count = 0

        def arrived() -> bool:
            nonlocal count
            count += 1
            a.worker.publish("t", b"%d" % count)
            return bool(b.worker.data())

        until(a, b, fact=arrived)
        stranger = start("cccccccc", f"rediss://{server}?{own}")
        until(stranger, fact=lambda: stranger.view().fault is BridgeFault.TLS)
        (entry,) = stranger.events("bridge_away")
        assert "certificate" in entry["error"].lower()
        assert "ssl_ca_certs" in entry["hint"]
        lost = start("dddddddd", "rediss://127.0.0.1:1?ssl_ca_certs=/nowhere")
        until(lost, fact=lambda: lost.events("bridge_away"))
        assert "/nowhere" in lost.events("bridge_away")[0]["error"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """A Cluster of three primaries."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                redis_server(tmp_path / f"node{n}", "--cluster-enabled", "yes", port=port)
            )
            for n, port in enumerate(_ports(3))
        ]
        bounds = (0, 5461, 10923, 16384)
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            node.ask("cluster", "addslotsrange", str(first), str(end - 1))
        for node in nodes[1:]:
            node.ask("cluster", "meet", "127.0.0.1", str(nodes[0].port))
        for node in nodes:
            until(fact=lambda node=node: "cluster_state:ok" in node.ask("cluster", "info"))
        yield nodes


def _ports(count: int) -> list[int]:
    """Ports whose neighbours 10 000 higher, where a Cluster's servers talk, are ports too."""
    found: set[int] = set()
    while len(found) < count:
        port = free_port()
        found.add(port if port < 55_000 else port - 15_000)
    return sorted(found)


def asked(instance: Instance, topic: str, marks: dict[str, int]) -> tuple[list[int], bool]:
    """What the bridge says was missed of a topic."""
    answers: list[tuple[list[Message], bool]] = []
    instance.worker.bus.recover(topic, marks, 10_000, lambda *found: answers.append(found))
    until(instance, fact=lambda: answers)
    messages, complete = answers[0]
    return [int(message.data) for message in messages], complete


def test_a_cluster(cluster: list[RedisServer], start: Start) -> None:
    """On a Cluster topics are sharded over its servers (SPUBLISH): 40 topics come in order and
    whole, are kept where their keys belong, and recovered; when slots move to another server, the
    bridges follow them.
    """
    kept = {"bus_history": True, "history": 1000}
    a = start(A, f"redis+cluster://127.0.0.1:{cluster[0].port}", **kept)
    b = start(B, f"redis+cluster://127.0.0.1:{cluster[2].port}", **kept)
    topics = [f"room:{n}" for n in range(40)]
    for topic in topics:
        b.worker.bus.subscribed(topic, 1)
    until(a, b, fact=lambda: sharded(cluster) == 40 and connected(a))
    for number in range(100):
        for topic in topics:
            a.worker.publish(topic, b"%d" % number)
        a.turn(0)
    until(a, b, fact=lambda: all(len(b.worker.data(t)) == 100 for t in topics), seconds=60)
    assert all([int(x) for x in b.worker.data(t)] == list(range(100)) for t in topics)
    assert all(len(node.ask("pubsub", "shardchannels")) > 4 for node in cluster)
    for topic in topics:
        # Number n of a topic was its publisher's 40 n + 1, and on from there.
        marks = {f"{A}.1": 40 * 90}
        assert asked(b, topic, marks) == (list(range(90, 100)), True)
    move(cluster, "wssup:room:7")
    a.worker.publish("room:7", b"100")
    until(a, b, fact=lambda: a.view().reconnects >= 1 and connected(a))
    until(a, b, fact=lambda: b.view().reconnects >= 1 and connected(b))
    until(a, b, fact=lambda: sharded(cluster) == 40)
    a.worker.publish("room:7", b"101")
    until(a, b, fact=lambda: b.worker.data("room:7")[-1:] == [b"101"])


def sharded(cluster: list[RedisServer]) -> int:
    """How many sharded channels have subscribers."""
    found = [x for node in cluster for x in node.ask("pubsub", "shardchannels") if x]
    return len(set(found))


def move(cluster: list[RedisServer], channel: str) -> None:
    """Move a channel's slot, whose keys are none, to another server."""
    (slot,) = cluster[0].ask("cluster", "keyslot", channel)
    names = [node.ask("cluster", "myid")[0] for node in cluster]
    owner = int(slot) * 3 // 16384
    target = names[(owner + 1) % 3]
    for node in cluster:
        node.ask("cluster", "setslot", slot, "node", target)
