"""What /proc and control groups say, read from real texts, and what is no such text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from wssup.config.addresses import TcpAddress
from wssup.doctor.groups import memory_group, tasks_group
from wssup.doctor.listeners import conflicts
from wssup.doctor.parsing import fields, integers, ports, service, sockstat
from wssup.doctor.words import rounded, size
from wssup.kernel.cgroups import membership, mounts
from wssup.kernel.tcp import TcpSocket, TcpState


def test_fields() -> None:
    """Kilobytes become bytes; lines without a number are left out."""
    text = "MemTotal:       24684036 kB\nName:\tpython3\ninactive_file 4096\nHugePages_Total:  3\n"
    assert fields(text) == {
        "MemTotal": 24684036 * 1024,
        "inactive_file": 4096,
        "HugePages_Total": 3,
    }


def test_sockstat() -> None:
    """Pairs behind each name."""
    text = "sockets: used 8387\nTCP: inuse 6462 orphan 0 tw 2380 alloc 8336 mem 7725\n"
    found = sockstat(text)
    assert (found["TCP.inuse"], found["TCP.mem"], found["sockets.used"]) == (6462, 7725, 8387)


@pytest.mark.parametrize(
    ("span", "reserved", "count"),
    [
        ("32768\t60999\n", "\n", 28_232),
        ("32768\t60999\n", "32768-32867,8080,60999", 28_131),
        ("5 4", "", 0),
        ("", "", None),
        ("32768 60999", "x,1-y", 28_232),
    ],
)
def test_ports(span: str, reserved: str, count: int | None) -> None:
    """Reserved ports count as far as they are in the range."""
    assert ports(span, reserved) == count


@given(st.text(max_size=60))
@example("²")
@example("x --5")
@examples(max_examples=25)
def test_hostile_texts(text: str) -> None:
    """Whatever a file says, reading it fails at nothing."""
    fields(text)
    sockstat(text)
    integers(text)
    ports(text, text)
    ports("1 9", text)
    membership(text)
    mounts(text.splitlines())


@pytest.mark.parametrize(("value", "least"), [(7, 7), (99, 99), (101, 110), (20_129, 21_000)])
def test_numbers_to_set(value: int, least: int) -> None:
    """Rounded up to what people write."""
    assert rounded(value) == least


@pytest.mark.parametrize(
    ("value", "text"),
    [(512, "512 B"), (1536, "1.5 KiB"), (300 << 20, "300 MiB"), (2 << 40, "2,048 GiB")],
)
def test_sizes(value: int, text: str) -> None:
    """In the unit that reads best."""
    assert size(value) == text


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_groups_of_version_2(tmp_path: Path) -> None:
    """The group above may be the one that leaves least; pages that can be dropped are room."""
    top = tmp_path / "cg"
    tree(
        tmp_path,
        {
            "self/cgroup": "0::/a/b\n",
            "mounts": f"cgroup2 {top} cgroup2 rw 0 0\n",
            "cg/a/b/memory.max": "max\n",
            "cg/a/b/memory.current": "1\n",
            "cg/a/memory.max": "1000\n",
            "cg/a/memory.current": "900\n",
            "cg/a/memory.stat": "anon 5\ninactive_file 300\n",
            "cg/a/b/pids.max": "20\n",
            "cg/a/b/pids.current": "7\n",
            "cg/a/pids.max": "max\n",
        },
    )
    found = memory_group(None, proc=tmp_path)
    assert found is not None
    assert (found.path, found.version, found.limit, found.used) == (str(top / "a"), 2, 1000, 600)
    tasks = tasks_group(None, proc=tmp_path)
    assert tasks is not None
    assert (tasks.limit, tasks.room) == (20, 13)


def test_groups_of_version_1(tmp_path: Path) -> None:
    """Each controller has its own directory, and a huge limit is none."""
    top = tmp_path / "m"
    tree(
        tmp_path,
        {
            "5/cgroup": "4:memory:/x\n3:cpuset:/\n0::/\n",
            "mounts": f"cgroup {top} cgroup rw,memory 0 0\n",
            "m/memory.limit_in_bytes": "9223372036854771712\n",
            "m/memory.usage_in_bytes": "5\n",
            "m/x/memory.limit_in_bytes": "4096\n",
            "m/x/memory.usage_in_bytes": "96\n",
        },
    )
    found = memory_group(5, proc=tmp_path)
    assert found is not None
    assert (found.version, found.room) == (1, 4000)
    assert tasks_group(5, proc=tmp_path) is None


@pytest.mark.parametrize("path", ["/docker/9", "/../../x"])
def test_a_path_outside(tmp_path: Path, path: str) -> None:
    """In a container the path may be one that cannot be seen: the top is what limits."""
    top = tmp_path / "cg"
    tree(
        tmp_path,
        {
            "self/cgroup": f"0::{path}\n",
            "mounts": f"cgroup2 {top} cgroup2 rw 0 0\n",
            "cg/pids.max": "9\n",
            "cg/pids.current": "2\n",
        },
    )
    found = tasks_group(None, proc=tmp_path)
    assert found is not None
    assert found.path == str(top)


@pytest.mark.parametrize(
    ("host", "local", "there"),
    [
        ("127.0.0.1", "7f000001", True),
        ("127.0.0.1", "7f000002", False),
        ("0.0.0.0", "7f000002", True),
        ("127.0.0.1", "00000000", True),
        ("::1", "7f000001", False),
        ("::", "7f000001", True),
        ("127.0.0.1", "00" * 16, True),
        ("127.0.0.1", "00" * 10 + "ffff" + "7f000001", True),
        ("::1", "00" * 15 + "01", True),
        ("localhost", "7f000001", True),
    ],
)
def test_conflicts(host: str, local: str, there: bool) -> None:  # noqa: FBT001 - a case
    """Whose address is in the way of which."""
    sock = TcpSocket(TcpState.LISTEN, bytes.fromhex(local), 80, b"\0" * 4, 0, 7, 0, 0, 0)
    assert conflicts(TcpAddress(host, 80), sock) is there
    assert not conflicts(TcpAddress(host, 81), sock)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-wssup.slice/wssup@shop.service/workers", "wssup@shop.service"),
        (r"/system.slice/a\x2db.service", r"a\x2db.service"),
        ("/user.slice/user-0.slice/user@0.service/app.slice/run.scope", None),
        ("/system.slice/x;y.service", None),
        ("/docker/4711", None),
        ("/", None),
    ],
)
def test_service(path: str, unit: str | None) -> None:
    """The innermost unit of a process, if it is a service with a name that one can have."""
    assert service(f"4:cpu:/elsewhere.service\n0::{path}\n") == unit
    assert service(f"1:name=systemd:{path}\n") == unit
