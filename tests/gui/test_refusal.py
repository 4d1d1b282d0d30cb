"""Where nothing can be captured, Wireshark says why in one sentence, and goes on working.

These run on the machine itself: an unprivileged user is refused everywhere, and bcc is hidden.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gui import wireshark as gui
from gui.desktop import Desktop
from gui.wireshark import EXTCAP, Wireshark, make_home

#: A user without rights, whether it has a name here or not.
NOBODY = 65534

#: An extcap that finds no bcc, as on a machine without python3-bpfcc.
WITHOUT_BCC = f"""\
#!/usr/bin/python3
import sys
sys.path.insert(0, {str(EXTCAP.parents[1])!r})
sys.modules["bcc"] = None
from unixsock_bpf.extcap.main import main
sys.exit(main())
"""


def refusal(desktop: Desktop, home: Path, root: Path | None, picture: str, uid: int | None = None) -> str:
    """What the message box says when "Unix sockets" is started; Wireshark must still answer after it.

    It is started from its untouched options where those have a button for it, as from Wireshark 4.4 on.
    """
    make_home(home)
    if uid is not None:
        for folder, _, files in os.walk(home):
            for path in (folder, *(f"{folder}/{file}" for file in files)):
                os.chown(path, uid, uid, follow_symlinks=False)
    with Wireshark(desktop, home, uid=uid, root=root) as wireshark:
        dialog = wireshark.open_options() if root else None
        if dialog:
            dialog.find("push button", "^Start$").click()
        else:
            wireshark.interface().click(times=2)
        box = wireshark.message()
        desktop.picture(picture)
        told = " ".join(label.name for label in box.all("label"))
        box.find("push button", "OK").click()
        # Not frozen: the capture ends, and the start page comes back.
        wireshark.message("", "No packets captured").find("push button", "OK").click()
        wireshark.interface().click()
        assert not wireshark.buttons.find("push button", "^Stop$").enabled
    return told


def test_as_an_unprivileged_user(desktop: Desktop, home: Path, root: Path | None) -> None:
    told = refusal(desktop, home, root, "refused-user", NOBODY)
    assert "root" in told


def test_without_bcc(
    desktop: Desktop, home: Path, root: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = home / "unixsock"
    script.write_text(WITHOUT_BCC)
    script.chmod(0o755)
    monkeypatch.setattr(gui, "EXTCAP", script)
    assert "python3-bpfcc" in refusal(desktop, home, root, "refused-bcc")
