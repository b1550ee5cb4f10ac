"""How many workers: a number, one that follows from the connections, one that follows the load."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.config import SETTINGS, Settings, load
from wssup.config.kinds import Given
from wssup.config.plan import (
    busiest,
    descriptors_needed,
    planned_workers,
    room,
    workers_meant,
)
from wssup.config.scaling import Autoscale
from wssup.errors import ConfigError, UserError

WORKERS = SETTINGS["workers"].kind
TABLE = "{min = 2, max = 8, connections_per_worker = 5000}"


def loaded(cwd: Path, text: str = "", **cli: str) -> Any:
    (cwd / "wssup.toml").write_text(text)
    return load(cli=cli, environ={}, cwd=str(cwd))


def test_bounds_are_read_as_a_table_and_as_text(tmp_path: Path) -> None:
    """A table, its inline form, and text on the command line say the same; so does what is shown,
    and what a worker is told.
    """
    expected = Autoscale(2, 8, 5000)
    inline = loaded(tmp_path, f"workers = {TABLE}").settings
    table = "[workers]\nmin = 2\nmax = 8\nconnections_per_worker = 5000\n"
    text = loaded(tmp_path, workers=" max=8, min=2 ,connections_per_worker=5000").settings
    assert inline.workers == loaded(tmp_path, table).settings.workers == text.workers == expected
    assert WORKERS.show(expected) == WORKERS.show(WORKERS.public(expected)) == TABLE
    rows = {row["key"]: row["value"] for row in loaded(tmp_path, f"workers = {TABLE}").rows()}
    assert rows["workers"] == {"min": 2, "max": 8, "connections_per_worker": 5000}
    told = msgspec.to_builtins(inline)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(told)), Settings) == inline


@settings(max_examples=25)
@given(st.integers(1, 1000), st.integers(0, 999), st.integers(1, 10_000_000))
def test_what_is_shown_is_read_back(least: int, more: int, each: int) -> None:
    """Any bounds that are shown are the same when they are read, as TOML and as text."""
    bounds = Autoscale(least, min(1000, least + more), each)
    shown = WORKERS.show(bounds)
    assert WORKERS.read(tomllib.loads(f"x = {shown}")["x"], Given(text=False, base="/")) == bounds
    assert WORKERS.read(shown[1:-1], Given(text=True, base="/")) == bounds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min=2,max=8", "connections_per_worker is missing"),
        ("min=3,max=2,connections_per_worker=5", "min = 3 is more than max = 2"),
        ("min=0,max=2,connections_per_worker=5", "min: not in the range 1 to 1000"),
        ("min=1,max=x,connections_per_worker=5", "max: not a whole number"),
        ("min=1,max=2,connections_per_worker=", "connections_per_worker: not a whole number"),
        ("min=1,max=2,connections=5", "'connections' is none of min, max"),
        ("min=1,min=2,max=2,connections_per_worker=5", "min is given twice"),
        ("min=1,max=2,", "'' is not KEY=N"),
        ("min=1,max=65,connections_per_worker=5", "more than max_workers = 64 (the default)"),
    ],
)
def test_impossible_bounds_are_named(tmp_path: Path, text: str, words: str) -> None:
    """What cannot be is an error that names the key, the value and the remedy."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, workers=text)
    assert words in str(caught.value)
    assert caught.value.key == "workers"
    assert caught.value.remedy


def test_a_table_with_other_types_is_an_error(tmp_path: Path) -> None:
    """In a file the numbers are numbers, with a line."""
    with pytest.raises(ConfigError, match=r"wssup\.toml:1.*min: a boolean where a number"):
        loaded(tmp_path, "workers = {min = true, max = 2, connections_per_worker = 5}")
    with pytest.raises(ConfigError, match="a string where a number is expected"):
        loaded(tmp_path, 'workers = "min=1,max=2,connections_per_worker=5"')


def test_one_thing_says_how_many_workers_there_are(tmp_path: Path) -> None:
    """Connections to plan for contradict a number of workers, bounds, and a limit below; both are
    named.
    """
    for workers in ("4", TABLE):
        with pytest.raises(ConfigError) as caught:
            loaded(tmp_path, f"workers = {workers}\n", connections="50000")
        assert "connections = 50000 (from --connections)" in str(caught.value)
        assert "(from wssup.toml:1)" in str(caught.value)
    for workers in ("11", "min=1,max=11,connections_per_worker=5"):
        with pytest.raises(ConfigError, match="fewer than workers"):
            loaded(tmp_path, "max_connections = 10", workers=workers)
    with pytest.raises(ConfigError, match="more than max_connections = 10"):
        loaded(tmp_path, "max_connections = 10", connections="11")
    both = loaded(tmp_path, 'workers = "auto"\nmax_connections = 11', connections="11").settings
    assert both.connections == 11


# The plan.


def test_the_arithmetic() -> None:
    """The busiest of W workers has N/W + 5·√(N/W·(1 - 1/W)), and 128 more descriptors at least."""
    assert busiest(100_000, 1) == 100_000
    assert busiest(100_000, 4) == 25_000 + 685
    assert descriptors_needed(100_000, 4) == 25_685 + 128
    assert descriptors_needed(100_000, 4, 1000) == 26_685
    assert busiest(3, 2) == 3
    assert room(20_000, 64) == 19_872
    assert room(20_000, 64, 5000) == room(20_000, 64, 5000) == 5000
    assert room(100, 64) == 0
    assert planned_workers(100_000, room(20_000)) == 6
    assert planned_workers(100_000, room(20_000), least=8) == 8
    assert planned_workers(100_000, room(20_000), most=5) is None
    assert planned_workers(1, 0) is None


@settings(max_examples=50)
@given(st.integers(1, 10**8), st.integers(0, 10**6), st.integers(1, 64), st.integers(1, 1000))
def test_the_plan_is_the_smallest_that_fits(count: int, each: int, least: int, most: int) -> None:
    """The connections fit into the planned workers, and into no smaller number that may be; none is
    planned only if none fits.
    """
    found = planned_workers(count, each, least=least, most=most)
    lowest = min(least, most)
    assert found is None or (lowest <= found <= most and busiest(count, found) <= each)
    assert all(
        busiest(count, w) > each for w in range(lowest, most + 1 if found is None else found)
    )


@settings(max_examples=50)
@given(st.integers(1, 10**8), st.integers(2, 999))
def test_more_workers_need_less_each(count: int, workers: int) -> None:
    """From two workers on, one more never has the busiest carry more, and together they carry all
    of them.
    """
    assert busiest(count, workers + 1) <= busiest(count, workers)
    assert busiest(count, workers) * workers >= count


def test_what_a_configuration_means(tmp_path: Path) -> None:
    """A number is itself; auto goes by the processors, or by what the connections need if that is
    more; bounds hold the number that there is.
    """

    def meant(text: str, now: int = 0) -> int:
        return workers_meant(loaded(tmp_path, text).settings, cpus=4, nofile=1024, now=now)

    assert meant("workers = 7") == 7
    assert meant("") == 4
    assert meant("max_workers = 3") == 3
    assert meant("connections = 100") == 4
    assert meant("connections = 10_000") == planned_workers(10_000, 1024 - 128) == 14
    assert meant("connections = 10_000\nreserve_fds = 500") == planned_workers(10_000, 524) == 24
    assert meant("connections = 10_000\nworker_connections = 400") == planned_workers(10_000, 400)
    assert [meant(f"workers = {TABLE}", now) for now in (0, 2, 5, 9)] == [2, 2, 5, 8]


def test_what_does_not_fit_is_told_with_the_arithmetic(tmp_path: Path) -> None:
    """The error names the connections, the limit, what a worker would get, the workers it would
    take, and what to raise.
    """

    def refused(text: str, nofile: int = 1024) -> UserError:
        with pytest.raises(UserError) as caught:
            workers_meant(loaded(tmp_path, text).settings, cpus=2, nofile=nofile)
        return caught.value

    plain = refused("connections = 100_000")
    assert plain.message == (
        "connections = 100000 does not fit: with max_workers = 64 a worker gets up to 1759 "
        "(100000/64 + 5·√(100000/64·(1-1/64))), and may have 896 (RLIMIT_NOFILE 1024 - 128 for "
        "other things = 896); it would take 132 workers"
    )
    assert plain.remedy == (
        "raise the limit of open files to 1887 (LimitNOFILE= or ulimit -Hn), or max_workers to 132"
    )
    setting = refused("connections = 100_000\nworker_connections = 500", nofile=20_000)
    assert "may have 500 (worker_connections = 500); it would take" in setting.message
    assert setting.remedy.startswith("raise worker_connections to 1759, or max_workers to ")
    both = refused("connections = 100_000\nworker_connections = 500")
    assert "raise worker_connections to 1759 and the limit of open files to 1887" in both.remedy
    hopeless = refused("connections = 100_000_000", nofile=200)
    assert "it would take more than 1000 workers" in hopeless.message
    assert "max_workers" not in hopeless.remedy
