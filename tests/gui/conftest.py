"""What the tests of Wireshark's windows share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm import wiresharks

from gui.desktop import Desktop


@pytest.fixture(scope="session")
def desktop() -> Iterator[Desktop]:
    """One for all tests: the AT-SPI library knows one bus in its life."""
    with Desktop() as desktop:
        yield desktop


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty folder that other users can enter."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session", params=wiresharks.wanted("UNIXSOCK_WINDOWS"))
def root(request: pytest.FixtureRequest, desktop: Desktop) -> Path | None:
    """Where each Wireshark is: see ``Wireshark``."""
    desktop.prefix = "" if request.param == "local" else f"{request.param}-"
    return wiresharks.root(request.param)
