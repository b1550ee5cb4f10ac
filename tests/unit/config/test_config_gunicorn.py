"""A gunicorn.conf.py as a source of settings."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wssup.cli.main import group, main
from wssup.config import SETTINGS, load
from wssup.config.gunicorn import ADDRESS, HOOKS, translate
from wssup.config.gunicorn_file import read
from wssup.errors import ConfigError, UserError

TYPICAL = """\
import multiprocessing

print("what a file prints does not matter")
bind = ["0.0.0.0:9000", "unix:/run/shop.sock", "[::1]:9001"]
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "uvicorn.workers.UvicornWorker"
wsgi_app = "shop.asgi:application"
timeout = 120
graceful_timeout = 6
keepalive = 75
max_requests = 10000
max_requests_jitter = 500
limit_request_fields = 200
limit_request_field_size = 16380
backlog = 8192
preload_app = True
forwarded_allow_ips = "10.0.0.7,127.0.0.1"
loglevel = "warning"
accesslog = "-"
errorlog = "-"
user = "root"
certfile = "/etc/shop.pem"
statsd_host = "localhost:8125"
my_own_variable = 7


def post_fork(server, worker):
    pass


def when_ready(server):
    pass
"""


def written(cwd: Path, text: str) -> str:
    (cwd / "gunicorn.conf.py").write_text(text)
    return str(cwd / "gunicorn.conf.py")


def loaded(cwd: Path, text: str, **sources: Any) -> Any:
    path = written(cwd, text)
    given: dict[str, Any] = {"cli": {"gunicorn_config": path}, "environ": {}, "cwd": str(cwd)}
    return load(**(given | sources))


def test_a_typical_file(tmp_path: Path) -> None:
    """What has a meaning here becomes settings, with the file as their source; each of the others
    is named, with why and what to do. What gunicorn ignores is ignored.
    """
    found = loaded(tmp_path, TYPICAL)
    settings = found.settings
    assert settings.bind == ("0.0.0.0:9000", "unix:/run/shop.sock", "[::1]:9001")
    assert settings.workers == __import__("multiprocessing").cpu_count() * 2 + 1
    assert settings.worker == "uvicorn"
    assert settings.app == "shop.asgi:application"
    assert (settings.hang_after, settings.drain_timeout, settings.drain_window) == (120, 6, 2)
    assert settings.limits.keep_alive_timeout == 75
    assert settings.limits.headers == 200
    assert settings.limits.header_bytes == 4094 + 16380
    assert settings.max_worker_connections == 10000
    assert (settings.backlog, settings.preload) == (8192, True)
    assert settings.trusted_proxies == ("10.0.0.7", "127.0.0.1", "unix")
    assert settings.log_level == "warning"
    assert found.sources["bind"] == "gunicorn.conf.py"
    left = {item.name: str(item) for item in found.left}
    assert set(left) == {
        *("accesslog", "certfile", "max_requests_jitter", "statsd_host", "user", "when_ready"),
    }
    assert "proxy" in left["certfile"]
    assert "lifespan" in left["when_ready"]


def test_what_is_said_to_wssup_is_stronger(tmp_path: Path) -> None:
    """File, environment and options go before it; and it can be named in each of them."""
    (tmp_path / "wssup.toml").write_text('gunicorn_config = "gunicorn.conf.py"\nworkers = 3\n')
    written(tmp_path, "workers = 9\nbacklog = 9\ntimeout = 9\ngraceful_timeout = 90\n")
    found = load(cli={"backlog": "4"}, environ={"WSSUP_HANG_AFTER": "5s"}, cwd=str(tmp_path))
    settings = found.settings
    assert (settings.workers, settings.backlog, settings.hang_after) == (3, 4, 5)
    assert settings.drain_timeout == 90
    assert settings.gunicorn_config == str(tmp_path / "gunicorn.conf.py")
    written(tmp_path, "graceful_timeout = 60\n")
    assert found.reload().settings.drain_timeout == 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_at_all", "nothing_at_all"),
        ("workers = -1", "workers = -1"),
        ("worker_class = 7", "worker_class = 7"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(3)", "ended its process"),
        ("raise SystemExit('no')", "SystemExit"),
        ("workers = ", "SyntaxError"),
        ("open('/nowhere/to/be/found')", "/nowhere/to/be/found"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    """It is an error that names the file and what is wrong in it."""
    with pytest.raises(UserError) as found:
        read(written(tmp_path, text), str(tmp_path))
    assert "gunicorn.conf.py" in found.value.message
    assert said in found.value.message
    assert "\n" not in found.value.message


def test_it_imports_its_neighbours(tmp_path: Path) -> None:
    """A file can import what lies beside it, and that is nobody else's."""
    (tmp_path / "shop_numbers.py").write_text("WORKERS = 7\n")
    (tmp_path / "json.py").write_text("raise LookupError\n")
    path = written(tmp_path, "from shop_numbers import WORKERS\nworkers = WORKERS\n")
    assert read(path, str(tmp_path)).values["workers"] == 7


def test_no_file(tmp_path: Path) -> None:
    """So is a file that is not there."""
    with pytest.raises(UserError, match="no such file"):
        read(str(tmp_path / "gunicorn.conf.py"), str(tmp_path))


def test_values_are_checked_like_others(tmp_path: Path) -> None:
    """A value that no setting can have is an error of the file that gave it."""
    with pytest.raises(ConfigError, match=r"from gunicorn\.conf\.py"):
        loaded(tmp_path, "workers = 4\ngraceful_timeout = 5\nbind='unix:relative.sock'\n")


def test_every_setting_of_gunicorn_is_known(tmp_path: Path) -> None:
    """Each either becomes settings of wssup or has a reason of its own why not."""
    from gunicorn.config import Config  # noqa: PLC0415 - optional

    config = Config()
    values = {name: setting.get() for name, setting in config.settings.items()}
    values |= {ADDRESS: config.address, "wsgi_app": "a:b", "logconfig": ""}
    names = [name for name in values if name not in {ADDRESS, "config", "default_proc_name"}]
    found, left = translate(values, names)
    assert set(found) <= set(SETTINGS)
    without = {"errorlog", *HOOKS}
    for name in names:
        alone, reasons = translate(values, [name])
        assert bool(alone) != bool(reasons) or name in without, name
        assert not any(r.why == "there is no such thing here" for r in reasons), name
    assert len(left) > 50


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"timeout": 0}, {}),
        ({"timeout": 1}, {"hang_after": 1.0, "stall_after": 0.5}),
        ({"graceful_timeout": 30}, {"drain_timeout": 30.0}),
        ({"wsgi_app": "shop"}, {"app": "shop:application"}),
        ({"wsgi_app": "shop:make()"}, {}),
        ({"worker_class": "sync"}, {}),
        ({"worker_class": "wssup.gunicorn.TrioWorker"}, {"worker": "trio"}),
        ({"worker_class": "asgi"}, {"worker": "uvicorn"}),
        (
            {"forwarded_allow_ips": ["*"]},
            {"trusted_proxies": ["0.0.0.0/0", "::/0", "unix"]},
        ),
        ({"loglevel": "CRITICAL"}, {"log_level": "error"}),
        ({"errorlog": "/var/log/x"}, {}),
        ({"bind": 1, ADDRESS: [7]}, {}),
        ({"bind": 1, ADDRESS: [("", 80)]}, {"bind": ["0.0.0.0:80"]}),
        (
            {"limit_request_line": 0, "limit_request_field_size": 9},
            {"limits.header_bytes": 1 << 20},
        ),
    ],
)
def test_single_values(values: dict[str, Any], found: dict[str, object]) -> None:
    """Values that need more than another name; what becomes nothing is named."""
    names = [name for name in values if name != ADDRESS]
    translated, left = translate(values, names)
    assert translated == found
    assert bool(left) == (not found)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """`wssup config` shows where each came from, and names what is left out, as TOML."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "workers = 3\nthreads = 4\n")
    done = CliRunner().invoke(group, ["config", "--given", "--gunicorn-config", path])
    assert done.exit_code == 0, done.output
    assert "workers = 3" in done.output
    assert "gunicorn.conf.py" in done.output
    assert "# threads" in done.output
    assert tomllib.loads(done.output)["workers"] == 3
    written(tmp_path, "workers = 0\n")
    assert main(["config", "--given", "--gunicorn-config", path]) == 0
    written(tmp_path, "1 / 0\n")
    assert main(["config", "--given", "--gunicorn-config", path]) == 2
    said = capfd.readouterr().err
    assert "ZeroDivisionError: division by zero → mend it" in said
    assert f'{path}", line 1' in said
