"""Wireshark on a desktop: its home, its windows, and what a user does with them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from patience import soon
from vm import wiresharks

from gui.desktop import Desktop
from gui.widgets import PATIENCE, Widget, application, wait
from unixsock_bpf.install import profile

CHECKOUT = Path(__file__).resolve().parents[2]

_FILES = {
    "recent_common": "privs.warn_if_elevated: FALSE\nsys.warn_if_no_capture: FALSE\n"
    "gui.geometry_main_maximized: TRUE\n",
    "recent": 'gui.interface_toolbar_show: "Unix sockets"\n',
    "preferences": "gui.update.enabled: FALSE\ngui.ask_unsaved: FALSE\n",
}


#: The row of the start page, not that of the second interface "Unix sockets of another host".
INTERFACE = "^Unix sockets: unixsock$"

#: Seconds after which a double click is taken for two single ones.
LATE = 20.0

EXTCAP = CHECKOUT / "extcap" / "unixsock"


def make_home(home: Path) -> Path:
    """A home folder in which extcap and dissector are linked.  Returns Wireshark's folder in it."""
    profile, later = home / ".config" / "wireshark", home / ".local/lib/wireshark"
    for folder, target in (
        (profile / "extcap", EXTCAP),
        (later / "extcap", EXTCAP),  # from 4.4 on
        (profile / "plugins", CHECKOUT / "dissector" / "unixsock.lua"),
    ):
        folder.mkdir(parents=True)
        (folder / target.name).symlink_to(target)
    for name, text in _FILES.items():
        (profile / name).write_text(text)
    return profile


def add_profile(home: Path) -> None:
    """Add the profile "Unix sockets" as ``install`` does."""
    folder = home / ".config" / "wireshark" / "profiles" / profile.NAME
    folder.mkdir(parents=True)
    for name, text in profile.FILES.items():
        (folder / name).write_text(text)


def chosen_profile(root: Path | None) -> tuple[str, ...]:
    """Arguments for the profile: from 4.4 on, which none here is, a capture of Unix sockets changes to it."""
    return () if root else ("-C", profile.NAME)


class Wireshark:
    """Wireshark from ``with`` on, with ``home`` as the user ``uid``.  ``root``: where it is, if not here."""

    def __init__(
        self,
        desktop: Desktop,
        home: Path,
        *arguments: str,
        uid: int | None = None,
        root: Path | None = None,
        **env: str,
    ):
        self.desktop = desktop
        self._command = ["wireshark", *arguments]
        self._uid = uid
        if root:
            self._command, self._uid = wiresharks.inside(root, self._command, uid), None
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("XDG_")
        } | {"HOME": str(home), "TMPDIR": str(home), **desktop.environment, **env}
        self._said = home / "wireshark.said"

    def __enter__(self) -> Wireshark:
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                user=self._uid,
                group=self._uid,
                extra_groups=[] if self._uid else None,
            )
        try:
            self.app = wait(
                "Wireshark", lambda: self._alive(application(self.process.pid, self.desktop)), soon(120)
            )
            self.main = self.window("")
            self.find_parts()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _alive(self, answer: Widget | None) -> Widget | None:
        assert self.process.poll() is None, f"Wireshark ended: {self._said.read_text()}"
        return answer

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def find_parts(self) -> None:
        """Looks up what is used again and again: each question takes its time."""
        self.status = self.main.find("status bar")
        self._count: Widget | None = None
        self.buttons = self.main.find("push button", "^Stop$").parent
        self.display_filter = self.main.find("text", "Display filter entry")
        self.toolbar = self.main.find("check box", "^Pause$").parent

    def window(self, title: str, seconds: float = PATIENCE) -> Widget:
        """The window whose title has the pattern ``title`` in it."""
        return wait(f"window '{title}'", lambda: self.has_window(title), seconds)

    def has_window(self, title: str) -> Widget | None:
        """The same, if it is there now."""
        for child in self.app.children():
            if re.search(title, child.name) and child.showing:
                return child
        return None

    def wait_without(self, title: str) -> None:
        """Until no window with such a title is there."""
        wait(f"end of window '{title}'", lambda: not self.has_window(title))

    def interface(self) -> Widget:
        """The row "Unix sockets" of the start page."""
        return self.main.find("table cell", INTERFACE)

    def start_capture(self) -> Widget:
        """Double-click the interface, and return the window that shows the capture.

        On a busy machine the second click may come too late for a double click: then once more.
        """
        pressed = -LATE

        def started() -> Widget | None:
            nonlocal pressed
            window = self.has_window("^Capturing from Unix sockets")
            if not window and time.monotonic() - pressed > LATE and self.main.has("table cell", INTERFACE):
                self.interface().click(times=2)
                pressed = time.monotonic()
            return window

        return wait("capture", started)

    def open_options(self) -> Widget:
        """The interface's options, by a click on the wheel before its name."""
        interface = self.interface()
        self.desktop.click((interface.box[0] - 12, interface.centre[1]))
        return self.window("Interface Options: Unix sockets")

    def menu(self, *names: str) -> None:
        """Clicks through the menus; of each name, the beginning is enough."""
        for name in names:
            self.app.find("menu item", f"^{name}").click()

    def packets(self) -> tuple[int, int]:
        """How many there are, and how many of them are displayed: what the status bar says."""
        text = self._count.name if self._count else ""
        if "Packets: " not in text:
            self._count = self.status.has("label", "Packets: ")
            text = self._count.name if self._count else ""
        count, shown = re.search(r"Packets: (\d+)", text), re.search(r"Displayed: (\d+)", text)
        if not count:
            return 0, 0
        return int(count[1]), int(shown[1] if shown else count[1])

    def rows(self) -> list[list[Widget]]:
        """The cells of the rows of the packet list that can be seen."""
        return self.main.find("tree", "Packet list").table()

    def details(self) -> list[tuple[int, str]]:
        """The lines that can be seen of the selected packet's details: how far right, and the text."""
        tree = self.main.find("tree", "Packet details")
        return [(line.box[0], line.name) for line in tree.children() if line.showing]

    def layers(self) -> list[str]:
        """The outermost of them."""
        lines = self.details()
        return [name for left, name in lines if left == min(lines)[0]]

    def display(self, text: str) -> None:
        """Types a display filter and applies it."""
        self.display_filter.enter(text, "Return")

    def open_log(self) -> Widget:
        """Opens the toolbar's log window, in a corner where it hides nothing that is clicked at."""
        self.toolbar.find("push button", "^Log$").click()
        window = self.window("unixsock Log")
        self.desktop.do("search", "--name", "unixsock Log", "windowmove", 650, 380)
        self.log = window.find("text")
        return window

    def wait_for_log(self, text: str, seconds: float = PATIENCE) -> None:
        """Until the log window, which must be open, says ``text``."""
        wait(f"'{text}' in the log", lambda: text in self.log.text, seconds)

    def message(self, title: str = "", text: str = "", seconds: float = PATIENCE) -> Widget:
        """A message box that says ``text``."""

        def shown() -> Widget | None:
            box = self.app.has("alert", title)
            return box if box and box.has("label", text) else None

        return wait(f"message box '{text}'", shown, seconds)
