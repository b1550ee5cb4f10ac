"""The committed list of tests that may be skipped."""

from __future__ import annotations

from pathlib import Path

from tests.harness.skips import allowed, is_allowed

TESTS = Path(__file__).parents[1]


def test_what_is_listed_exists() -> None:
    """Every entry names a file, and a test in it, that there are."""
    assert len(allowed()) > 5
    for entry in allowed():
        file, _, test = entry.partition("::")
        assert (TESTS / file).exists(), entry
        assert f"def {test}" in (TESTS / file).read_text()


def test_who_may_be_skipped() -> None:
    """A listed file allows all its tests, a listed test itself with any parameters, and nothing
    else.
    """
    assert is_allowed("tests/integration/test_container.py::test_master_is_pid_1")
    assert is_allowed("tests/integration/test_control.py::test_other_users_are_refused[a-b]")
    assert not is_allowed("tests/integration/test_control.py::test_other")
    assert not is_allowed("tests/unit/test_skips.py::test_who_may_be_skipped")
