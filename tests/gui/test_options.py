"""The interface's options: chosen in their dialog, the sockets listed anew, all kept by Wireshark."""

from __future__ import annotations

import socket
from pathlib import Path

from gui.desktop import Desktop
from gui.widgets import wait
from gui.wireshark import Wireshark, make_home


def test_options_are_chosen_listed_and_kept(desktop: Desktop, home: Path, root: Path | None) -> None:
    profile = make_home(home)
    with (profile / "preferences").open("a") as preferences:
        preferences.write("extcap.unixsock.pid: 0\n")  # version 0.1.0 saved an untouched field so
    path = str(home / "present.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Wireshark(desktop, home, root=root) as wireshark:
            dialog = wireshark.open_options()
            for button in dialog.all("push button", "^(Save|Start)$"):
                assert button.enabled, f"{button.name} is disabled in the untouched dialog"
            selector = dialog.find("combo box")
            assert not selector.has("list item", path, hidden=True)
            dialog.find("push button", "^List present sockets$").click()
            wait(f"{path} in the list", lambda: selector.has("list item", path, hidden=True))
            selector.click()
            desktop.type(path)
            desktop.keys("Return")
            desktop.picture("options")
            dialog.find("page tab", "^Processes$").click()
            dialog.find("text").enter("77", "Tab")
            dialog.find("push button", "^Save$").click()
            wireshark.wait_without("Interface Options")
    kept = (profile / "preferences").read_text()
    assert f"extcap.unixsock.path: {path}" in kept
    assert "extcap.unixsock.pid: 77" in kept
    with Wireshark(desktop, home, root=root) as wireshark:
        dialog = wireshark.open_options()
        dialog.find("page tab", "^Processes$").click()
        assert dialog.find("text").text == "77"
