from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from control_peer import Peer


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Iterator[Peer]:
    """A runtime directory that WSSUP_RUNTIME_DIR names, for the test's script."""
    peer = Peer()
    for name in list(os.environ):
        if name.startswith("WSSUP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WSSUP_RUNTIME_DIR", str(peer.runtime_dir))
    # No wssup.toml of the repository is read.
    monkeypatch.chdir(str(tmp_path))
    try:
        yield peer
    finally:
        peer.close()
