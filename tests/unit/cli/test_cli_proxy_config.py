"""``wssup proxy-config nginx``: the numbers, and what goes together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from wssup.cli.main import group, main

ROOT = Path(__file__).parents[3]
UNIX = ["--bind", "unix:/run/wssup/wssup.sock", "--trusted-proxy", "unix"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(group, ["proxy-config", "nginx", *arguments])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def value(text: str, name: str) -> str:
    """What a directive says."""
    found = re.search(rf"^ *{name} ([^;]+);", text, re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_committed_file() -> None:
    """deploy/nginx/wssup.conf is what the command prints."""
    assert (ROOT / "deploy/nginx/wssup.conf").read_text() == printed(*UNIX)


@pytest.mark.parametrize("connections", [1, 9000, 100_000])
def test_descriptors(connections: int) -> None:
    """Each client has two descriptors, and any process may have all clients."""
    text = printed(*UNIX, "--connections", str(connections))
    both_sides = int(value(text, "worker_connections"))
    assert 2 * connections < both_sides <= 2 * connections + 100
    assert int(value(text, "worker_rlimit_nofile")) > both_sides


@pytest.mark.parametrize(
    ("interval", "timeout", "seconds"),
    [("20s", "20s", "60s"), ("60s", "30s", "100s"), ("0s", "20s", "3600s"), ("500ms", "1s", "60s")],
)
def test_silence(interval: str, timeout: str, seconds: str) -> None:
    """It waits longer than the heartbeat needs to find out who is dead."""
    text = printed(*UNIX, "--ping-interval", interval, "--ping-timeout", timeout)
    assert value(text, "proxy_read_timeout") == value(text, "proxy_send_timeout") == seconds


def test_more_connections_than_ports() -> None:
    """One source address has 28 232 ports: of a loopback address there are more; elsewhere the
    operator names them; a unix socket needs none.
    """
    bind = ["--bind", "0.0.0.0:8000"]
    assert "proxy_bind" not in printed(*bind, "--connections", "20000")
    text = printed(*bind, "--connections", "100000")
    assert value(text, "server") == "127.0.0.1:8000"
    assert value(text, "proxy_bind") == "$wssup_source"
    sources = re.findall(r"^ *(?:[0-9.]+%|\*) +(127\.0\.0\.\d+);", text, re.MULTILINE)
    assert len(sources) == len(set(sources)) == 5
    assert "proxy_bind" not in printed(*UNIX, "--connections", "100000")
    own = ["--source", "10.0.0.2", "--source", "10.0.0.3"]
    text = printed("--bind", "10.0.0.1:80", "--connections", "40000", *own)
    assert "50% 10.0.0.2;" in text
    assert '#   trusted_proxies = ["10.0.0.2", "10.0.0.3"]' in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bind", "10.0.0.1:80", "--connections", "40000"], "2 source addresses"),
        (["--bind", "[::1]:80", "--connections", "40000"], "2 source addresses"),
        (["--bind", "127.0.0.1:0"], "a port that stays the same"),
        (["--source", "here"], "not an address"),
        (["--server-name", "a; b"], "not one word"),
        (["--trusted-proxy", "10.0.0.1/8"], "10.0.0.0/8"),
        (["--trusted-proxy", "*"], "0.0.0.0/0"),
        (["--trusted-proxy", "proxy.example"], "neither address nor network"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is one line with what to do."""
    assert main(["proxy-config", "nginx", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_what_wssup_must_believe() -> None:
    """It says whether wssup believes what nginx will write; the other kind of headers is emptied,
    as clients may send it.
    """
    text = printed(*UNIX)
    assert "wssup believes the x-forwarded headers of unix" in text
    assert 'Forwarded "";' in text
    assert "X-Forwarded-For $remote_addr" in text
    text = printed("--bind", "127.0.0.1:8000", "--proxy-headers", "forwarded")
    assert '#   trusted_proxies = ["127.0.0.1"]' in text
    assert 'X-Forwarded-For "";' in text
    assert 'Forwarded "for=$wssup_client;proto=$scheme"' in text
    assert "believes" in printed("--bind", "127.0.0.1:1", "--trusted-proxy", "127.0.0.0/8")


def test_clients_of_the_proxy_are_no_plan_for_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--connections`` says how many clients the proxy has, whatever says how many workers there
    are; without it the setting ``connections`` does.
    """
    file = tmp_path / "wssup.toml"
    file.write_text("workers = 2\n")
    assert main(["proxy-config", "nginx", "--config", str(file), "--connections", "500"]) == 0
    assert "worker_connections 1064;" in capsys.readouterr().out
    file.write_text("connections = 500\n")
    assert main(["proxy-config", "nginx", "--config", str(file)]) == 0
    assert "worker_connections 1064;" in capsys.readouterr().out
