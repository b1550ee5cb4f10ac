"""What is told of all settings: rows, and the reference."""

from __future__ import annotations

from pathlib import Path

from tests.unit.config.test_config_loading import ROOT, loaded
from wssup.config import SETTINGS
from wssup.config.reference import render


def test_rows_show_every_setting(tmp_path: Path) -> None:
    """rows() lists every setting with value, source and whether it is live."""
    rows = loaded(tmp_path, cli={"workers": "3"}).rows()
    assert [row["key"] for row in rows] == list(SETTINGS)
    assert {"key": "workers", "value": 3, "source": "--workers", "live": True} in rows
    live = {row["key"] for row in rows if not row["live"]}
    assert live == {
        *("name", "runtime_dir", "max_workers", "backlog", "unix_mode"),
        *("log_level", "log_format"),
        *("status", "status_bind", "status_mode", "publish_token_file"),
        *("topics.bus", "topics.bus_namespace", "topics.bus_history"),
    }


def test_the_reference_is_up_to_date() -> None:
    """docs/reference/settings.md is what the table renders to."""
    committed = (ROOT / "docs/reference/settings.md").read_text()
    assert committed == render(), "python -m wssup.config.reference > docs/reference/settings.md"
