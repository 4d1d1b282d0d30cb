"""The capture filter box of the start page: green for a filter, red for what is none, as it is typed."""

from __future__ import annotations

from pathlib import Path

from gui.desktop import Desktop
from gui.widgets import Widget, wait
from gui.wireshark import Wireshark, make_home


def colour(box: Widget) -> str:
    """What colour the box has, away from its text."""
    left, _, right, _ = box.box
    red, green, blue = box.desktop.picture().getpixel(((left + right) // 2, box.centre[1]))
    if green > red and green > blue:
        return "green"
    return "red" if red > green else "none"


def test_the_box_turns_green_and_red(desktop: Desktop, home: Path, root: Path | None) -> None:
    make_home(home)
    with Wireshark(desktop, home, root=root) as wireshark:
        wireshark.interface().click()
        box = wireshark.main.find("text", "Capture filter entry")
        box.click()
        desktop.type("fds")
        wait("green box for 'fds'", lambda: colour(box) == "green")
        desktop.type(" an")
        wait("red box for 'fds an'", lambda: colour(box) == "red")
        desktop.picture("filter-box-red")
        desktop.type("d creds")
        wait("green box for 'fds and creds'", lambda: colour(box) == "green")
        desktop.picture("filter-box-green")
