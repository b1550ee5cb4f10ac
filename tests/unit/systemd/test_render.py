"""Units, filled in."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wssup.config.settings import Settings
from wssup.systemd import installer
from wssup.systemd.render import KINDS, Choices, derived, has_low_port, seal, seal_of, word

ANALYZE = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (tests/skips.md)"
)
PROGRAM = str(Path(sys.executable).absolute())


def settings(**given: object) -> Settings:
    known = {"runtime_dir": "/run/wssup", "app_dir": "/srv/shop", "app": "shop:app", "workers": 2}
    return Settings(**(known | given))  # type: ignore[arg-type]


def text(kind: str, workers: int = 2, **given: object) -> str:
    return installer.text_of(kind, Choices((PROGRAM,), settings(**given)), workers)


def test_every_place_is_filled() -> None:
    """No template has a placeholder left, and no line is longer than a screen."""
    for kind in KINDS:
        lines = text(kind).splitlines()
        assert not [x for x in lines if re.search("@[A-Z_]+@", x)]
        assert not [x for x in lines[1:] if len(x) > 100 and not x.startswith("Exec")]


def test_deadlines_follow_from_the_configuration() -> None:
    """Stopping may take as long as a drain, a reload as long as the longest rollout, each with a
    grace; the fd store holds the listeners of all slots that there may be, twice.
    """
    found = derived(
        settings(drain_timeout=300.0, drain_window=60.0, ready_timeout=20.0, settle=7.0)
    )
    assert found.stop == 315
    assert found.start == 20 + 20 + 7 + 2 * 300 + 15
    assert found.abort == 70
    waves = derived(settings(workers=9, max_surge=4, drain_timeout=30.0, ready_timeout=20.0))
    assert waves.start == 20 + 3 * 20 + 5 + 60 + 15
    assert derived(settings(bind=("127.0.0.1:1", "[::1]:2"), max_workers=10)).store == 40
    unit = text("service", drain_timeout=300.0)
    assert "\nTimeoutStopSec=315\n" in unit
    assert "\nFileDescriptorStoreMax=128\nEnvironment=FDSTORE=128\n" in unit


def test_the_service() -> None:
    """It is told apart by its name alone, and a reload is a command that is waited for."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(text("service"))
    service = unit["Service"]
    named = "--config /etc/wssup/%i.toml --name %i --runtime-dir /run/wssup"
    assert service["ExecStart"] == f"{PROGRAM} serve {named}"
    assert service["ExecReload"] == f"{PROGRAM} reload {named}"
    assert service["Type"] == "notify"
    assert service["ProtectHome"] == "yes"
    assert service["KillMode"] == "control-group"


def test_a_program_in_a_home_directory() -> None:
    """Home directories are hidden, but for a service that has its program there."""
    choices = Choices(("/home/a/wssup",), settings(), paths=("/home/a/wssup",))
    assert "\nProtectHome=read-only\n" in installer.text_of("service", choices, 1)


def test_the_socket() -> None:
    """There is a line for each worker and TCP address, and one for a unix socket."""
    unit = text("socket", bind=("127.0.0.1:80", "unix:/run/a%b.sock"), backlog=77, unix_mode="0600")
    listen = [x.partition("=")[2] for x in unit.splitlines() if x.startswith("ListenStream=")]
    assert listen == ["127.0.0.1:80", "127.0.0.1:80", "/run/a%%b.sock"]
    for line in ("ReusePort=yes", "Backlog=77", "SocketMode=0600", "BindIPv6Only=both"):
        assert f"\n{line}\n" in unit
    assert "ReusePort" not in text("socket", bind=("unix:/run/a.sock",))
    assert "\nBindIPv6Only=ipv6-only\n" in text("socket", bind=("0.0.0.0:80", "[::]:80"))


def test_low_ports() -> None:
    """Ports below 1024 need a privilege; port 0 is no port."""
    assert has_low_port(settings(bind=("127.0.0.1:443",)))
    assert not has_low_port(settings(bind=("127.0.0.1:1024", "127.0.0.1:0", "unix:/run/x")))


def test_other_users() -> None:
    """A group of another name is made, and the user a member of it."""
    choices = Choices((PROGRAM,), settings(), user="shop", group="web")
    lines = installer.text_of("sysusers", choices, 1).splitlines()
    assert [x for x in lines if not x.startswith("#")] == [
        "g web -",
        'u shop - "wssup WebSocket service"',
        "m shop web",
    ]


def test_kernel_settings() -> None:
    """A longer backlog raises the kernel's; its limit of files is only ever raised."""
    assert "\n-net.core.somaxconn = 4096\n" in text("sysctl")
    assert "\n-net.core.somaxconn = 9999\n" in text("sysctl", backlog=9999)
    assert "nr_open" not in text("sysctl")
    more = Choices((PROGRAM,), settings(), nofile=1 << 21)
    assert "\n-fs.nr_open = 2097152\n" in installer.text_of("sysctl", more, 1)


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/opt/wssup/bin/wssup", "/opt/wssup/bin/wssup"),
        ("/opt/100%/wssup", "/opt/100%%/wssup"),
        ("/opt/$x/wssup", "/opt/$$x/wssup"),
        ("/opt/my apps/wssup", '"/opt/my apps/wssup"'),
        ('/opt/"q"\\/wssup', '"/opt/\\"q\\"\\\\/wssup"'),
    ],
)
def test_words(path: str, written: str) -> None:
    """What systemd would take for a specifier, a variable or several words stands for itself."""
    assert word(path) == written


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 200))
def test_seals(body: str, where: int) -> None:
    """A written file is known as such, any change of it too, and others are not ours."""
    sealed = seal(body)
    assert seal_of(sealed) is True
    assert seal_of(sealed + "x") is False
    assert seal_of(body) is None or body.startswith("# Written by")
    cut = sealed.find("\n") + 1 + where
    if cut < len(sealed):
        assert seal_of(sealed[:cut] + sealed[cut + 1 :]) is False


@ANALYZE
@pytest.mark.parametrize("extra", [(), ("low-ports",)])
def test_systemd_likes_them(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """systemd-analyze finds nothing wrong with the units, and little that the service could do: at
    most 1.5 of 10.
    """
    choices = Choices((PROGRAM,), settings(bind=("127.0.0.1:8000", "[::]:80")))
    kinds = ["service", "socket", *extra]
    steps = installer.install(tmp_path, choices, kinds, workers=3)
    units = [s.path for s in steps if s.path.suffix in {".service", ".socket"}]
    assert installer.verified(units) == ""
    assert installer.exposure(units[0]) <= 1.5


@ANALYZE
def test_every_finding_is_explained(tmp_path: Path) -> None:
    """What systemd-analyze security still finds is named in a comment of the unit."""
    path = tmp_path / "wssup@.service"
    path.write_text(text("service"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^✗ (\w+)=", done.stdout, re.MULTILINE)
    assert found
    comments = text("service").partition("What systemd-analyze security still finds")[2]
    assert not [name for name in found if name not in comments]
