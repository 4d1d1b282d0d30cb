"""Fixtures of several tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from unixsock_bpf.wireshark import folders


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, ``tmp_path``, where nothing is installed; this machine's own Wireshark does not count."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(folders, "_printed", dict)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
