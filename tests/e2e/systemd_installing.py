"""Ways to install wssup as a service of a real systemd, and to uninstall it."""

from __future__ import annotations

import re

import pytest

from tests.e2e.installed import MARKS, SYSTEM_PYTHON, WSSUP, Service, inside, said
from tests.harness.machine import Machine

pytestmark = MARKS


@pytest.mark.parametrize(
    ("tool", "place"),
    [("pipx", "/opt/pipx/venvs/wssup/bin/wssup"), ("uv", "/opt/uv/wssup/bin/wssup")],
)
def test_a_wheel_installed_as_a_command(machine: Machine, tool: str, place: str) -> None:
    """Installed with pipx or uv, where all users can reach it, the command on the path writes units
    that start what it links to.
    """
    wheels = "/run/shared"
    machine.run(SYSTEM_PYTHON, "-m", "venv", "/opt/tools")
    machine.run("/opt/tools/bin/pip", "install", "--no-index", "--find-links", wheels, tool)
    if tool == "pipx":
        install = (
            "env", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={wheels}",
            f"PIPX_DEFAULT_PYTHON={SYSTEM_PYTHON}",
            "/opt/tools/bin/pipx", "install", "--global", "--backend", "pip", "wssup",
        )  # fmt: skip
    else:
        install = (
            "env", "UV_TOOL_DIR=/opt/uv", "UV_TOOL_BIN_DIR=/usr/local/bin",
            "/opt/tools/bin/uv", "tool", "install", "--offline", "--no-index", "--no-cache",
            "--find-links", wheels, "--python", SYSTEM_PYTHON, "wssup",
        )  # fmt: skip
    machine.run(*install, timeout=120)
    service = Service(machine)
    try:
        machine.run("/usr/local/bin/wssup", "systemd", "install")
        unit = machine.run("cat", "/etc/systemd/system/wssup@.service").stdout
        assert f"\nExecStart={place} serve " in unit
        service.systemctl("start")
        inside(machine, lambda: said(service.url, "who", " 1 1"))
        service.systemctl("reload")
        service.systemctl("stop")
    finally:
        machine.run("systemctl", "stop", service.unit)
        machine.run(WSSUP, "systemd", "uninstall")
        machine.run(
            "sh", "-c", "rm -rf /opt/tools /opt/pipx /opt/uv /usr/local/bin/wssup /srv/shop"
        )


def test_a_program_that_the_user_cannot_reach(machine: Machine) -> None:
    """A wssup in a directory that only root may enter is refused before anything is written."""
    machine.run("mkdir", "-m", "700", "/srv/private")
    machine.run("cp", "-a", "/opt/wssup", "/srv/private/venv")
    program = "/srv/private/venv/bin/python"
    failed = machine.run(program, "-m", "wssup", "systemd", "install", check=False)
    machine.run("rm", "-rf", "/srv/private")
    assert failed.returncode == 2
    refusal = "user wssup cannot run /srv/private/venv/bin/wssup: it may not pass /srv/private"
    assert refusal in failed.stderr
    assert "nothing is installed" in machine.run(WSSUP, "systemd", "verify", check=False).stderr


def test_uninstall(machine: Machine) -> None:
    """Uninstalling is refused while an instance runs; then it leaves nothing, not even the links
    that enabled it.
    """
    before = machine.run("find", "/etc", "-path", "/etc/ssl", "-prune", "-o", "-print").stdout
    machine.run(WSSUP, "systemd", "install", "--socket", "--low-ports")
    service = Service(machine)
    service.systemctl("start")
    machine.run("systemctl", "enable", service.unit, "wssup@shop.socket")
    refused = machine.run(WSSUP, "systemd", "uninstall", check=False)
    assert refused.returncode == 1
    assert f"systemctl disable --now {service.unit}" in refused.stderr
    service.systemctl("stop")
    machine.run(WSSUP, "systemd", "uninstall")
    listed = machine.run("systemctl", "list-unit-files", "wssup*", check=False).stdout
    assert "\n0 unit files listed" in listed
    machine.run("rm", "-r", "/etc/wssup", "/srv/shop")
    after = machine.run("find", "/etc", "-path", "/etc/ssl", "-prune", "-o", "-print").stdout
    new = set(after.splitlines()) - set(before.splitlines())
    # The user stays, and with it the backups of the files that list users.
    assert {p for p in new if not re.search("passwd|group|shadow|sub[ug]id", p)} == set()
