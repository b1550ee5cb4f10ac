"""A machine of its own with a real systemd as PID 1, in private namespaces over a private root.

Nothing of it reaches the live system: mounts, processes, host name, IPC, network and control groups
are its own, and what it writes goes to a tmpfs over the live root (an overlay). It needs root and
systemd; :func:`obstacle` says why it cannot be had. The one process that was started here is its
PID 1's parent; with it everything inside ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import processes

__all__ = ["Machine", "booted", "obstacle"]

_CLONE_NEWNET = 0x40000000
_SYSTEMD = Path("/lib/systemd/systemd")
#: Units that would reach what is not the machine's own (the kernel's settings, devices, modules).
_MASKED = (
    "dev-hugepages.mount kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount"
    " sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount"
    " sys-kernel-tracing.mount systemd-binfmt.service systemd-firstboot.service"
    " systemd-modules-load.service systemd-random-seed.service systemd-repart.service"
    " systemd-sysctl.service systemd-tmpfiles-setup-dev.service systemd-udev-trigger.service"
    " systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket"
    " systemd-update-utmp.service systemd-remount-fs.service systemd-logind.service"
    " systemd-pcrphase-sysinit.service systemd-pcrphase.service systemd-journald-audit.socket"
    " dbus.socket dbus.service timers.target getty.target systemd-networkd.service"
    " networking.service"
)
#: In the new namespaces, before systemd: $1 is the folder for the root, $2 the folder to share.
_BOOT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=4g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
root="$1/root"
mount -t proc proc "$root/proc"
# Another process's sysctl files must not reach the live kernel.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --rbind /dev "$root/dev"
mount --make-rprivate "$root/dev"
mount --rbind /sys "$root/sys"
mount --make-rprivate "$root/sys"
umount -R "$root/sys/fs/cgroup" || true
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for fresh in run tmp dev/shm; do mount -t tmpfs tmpfs "$root/$fresh"; done
mkdir "$root/run/shared"
mount --bind "$2" "$root/run/shared"
: > "$root/etc/fstab"
rm -rf "$root/etc/systemd/system" "$root/etc/systemd/user"
mkdir -p "$root/etc/systemd/system"
for unit in $3; do ln -s /dev/null "$root/etc/systemd/system/$unit"; done
rm -rf "$root/var/log/journal"
exec chroot "$root" /usr/bin/env -i container=wssup PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=0
"""


def obstacle() -> str:
    """Why no machine can be had here; empty if one can."""
    if os.geteuid():
        return "only root can make the namespaces"
    if not _SYSTEMD.exists():
        return "systemd is not installed"
    missing = [tool for tool in ("unshare", "nsenter", "systemctl") if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)} not installed"
    if _cgroup2() is None:
        return "no cgroup2 is mounted"
    probe = subprocess.run(
        ["unshare", "-m", "-p", "-f", "-u", "-i", "-n", "-C", "true"],
        capture_output=True,
        check=False,
    )
    return "namespaces cannot be made" if probe.returncode else ""


class Machine:
    """A booted machine.

    :ivar pid: the process id of its PID 1, as seen here.
    :ivar shared: a folder that is ``/run/shared`` inside.
    """

    def __init__(self, pid: int, shared: Path) -> None:
        self.pid = pid
        self.shared = shared

    def run(
        self, *command: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w",
             "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
             *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        (self.shared / "new").write_text(text)
        self.run("install", "-D", "-m", "644", "/run/shared/new", path)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def journal(self, *options: str) -> str:
        """What the journal has."""
        return self.run("journalctl", "--no-pager", *options).stdout

    def outside(self, pid: int) -> int:
        """The process id here of a process inside."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() != namespace:
                    continue
                for line in (entry / "status").read_text().splitlines():
                    if line.startswith("NSpid:") and int(line.split()[-1]) == pid:
                        return int(entry.name)
        raise AssertionError(f"no process {pid} in the machine")

    @contextmanager
    def network(self) -> Iterator[None]:
        """This thread's sockets are made in the machine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open("rb") as ours,
            Path(f"/proc/{self.pid}/ns/net").open("rb") as theirs,
        ):
            assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), _CLONE_NEWNET) == 0


@contextmanager
def booted(home: Path, patience: float = 60) -> Iterator[Machine]:
    """Boot a machine; ended when the body is, however that ends.

    :param home: a folder for its root (only a mount point) and for what is shared with it.
    """
    root, shared = home / "root", home / "shared"
    root.mkdir()
    shared.mkdir(exist_ok=True)
    top = _cgroup2()
    assert top is not None
    group = top / f"wssup-e2e-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    join = f'echo $$ > {group}/cgroup.procs && exec unshare -m -p -f -u -i -n -C "$@"'
    with (home / "boot.log").open("wb") as log:
        parent = subprocess.Popen(
            ["bash", "-c", join, "-", "bash", "-c", _BOOT, "-", str(root), str(shared), _MASKED],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield _wait(parent, home, shared, patience)
    finally:
        # When PID 1 of a namespace is killed, the kernel kills everybody in it.
        for pid in processes.children(parent.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            parent.wait(10)
        parent.kill()
        parent.wait(10)
        _remove(group)


def _wait(parent: subprocess.Popen[bytes], home: Path, shared: Path, patience: float) -> Machine:
    def first() -> int | None:
        assert parent.poll() is None, (home / "boot.log").read_text()
        inside = [p for p in processes.children(parent.pid) if _name(p) == "systemd"]
        return inside[0] if inside else None

    processes.until(first, patience, "systemd to start")
    pid = first()
    assert pid is not None
    machine = Machine(pid, shared)
    state = ""

    def up() -> bool:
        nonlocal state
        assert parent.poll() is None, (home / "boot.log").read_text()
        asked = machine.run("systemctl", "is-system-running", check=False)
        state = asked.stdout.strip() + asked.stderr.strip()
        return state in {"running", "degraded"}

    try:
        processes.until(up, patience, "systemd to be up")
    except AssertionError as error:
        told = machine.run("systemctl", "list-jobs", check=False).stdout
        raise AssertionError(f"{error}; {state}\n{told}") from None
    return machine


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _cgroup2() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    return None


def _remove(group: Path) -> None:
    """Remove a control group and those below it, once its processes are gone."""
    deadline = time.monotonic() + 10
    while group.exists() and time.monotonic() < deadline:
        for below, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(below).rmdir()
        time.sleep(0.05)
