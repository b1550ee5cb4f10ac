"""The API's names, which are imported when they are asked for."""

from __future__ import annotations

import pytest

import wssup
from tests.harness import fresh


def test_a_name_is_looked_for_once() -> None:
    """A name brings its module with it the first time, and is a plain one of the package from then
    on: handlers look it up for each message.
    """
    said = fresh.python(
        """
        import wssup
        assert "wssup.server.topics.api" not in sys.modules and "publish" not in vars(wssup)
        first = wssup.publish
        assert vars(wssup)["publish"] is first is sys.modules["wssup.server.topics.api"].publish
        print(first.__name__)
        """
    )
    assert said == "publish\n"


def test_all_names_are_there() -> None:
    """Whatever the package says it has can be had; what it has not is an AttributeError."""
    for name in wssup.__all__:
        assert getattr(wssup, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'broadcast'"):
        _ = wssup.broadcast
