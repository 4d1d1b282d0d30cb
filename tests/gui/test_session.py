"""The session by mouse on each Wireshark, with relays for a probe; tests/kernel/test_gui.py has one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm import wiresharks

from gui import wireshark as gui
from gui.desktop import Desktop
from gui.session import Session, Steps
from gui.traffic import Shop
from gui.wireshark import CHECKOUT, Wireshark, add_profile, chosen_profile, make_home

_EXTCAP = """\
#!/usr/bin/python3
import sys
sys.path[:0] = [{checkout!r}, {tests!r}]
from gui.relayed_capture import main
sys.exit(main({relayed!r}))
"""


@pytest.fixture(scope="module")
def afternoon(desktop: Desktop, root: Path | None) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, pytest.MonkeyPatch.context() as patch:
        home, relayed, extcap = Path(folder), Path(folder) / "relayed", Path(folder) / "unixsock"
        relayed.mkdir()
        paths = {"checkout": str(CHECKOUT), "tests": str(CHECKOUT / "tests"), "relayed": str(relayed)}
        extcap.write_text(_EXTCAP.format(**paths))
        extcap.chmod(0o755)
        patch.setattr(gui, "EXTCAP", extcap)
        make_home(home)
        add_profile(home)
        tshark = wiresharks.inside(root, ["tshark"]) if root else ["tshark"]
        with (
            Shop(relayed) as shop,
            Wireshark(desktop, home, *chosen_profile(root), root=root) as wireshark,
        ):
            yield Session(wireshark, shop, home, tshark, "relays")


class TestSession(Steps):
    """The steps with each Wireshark."""
