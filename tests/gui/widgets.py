"""What a program's windows hold, as AT-SPI tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import gi

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi, GLib  # noqa: E402

from gui.desktop import PICTURES, Desktop  # noqa: E402

# Milliseconds for an answer, and for a program's first; the library's own 0.8 s are too few under emulation.
Atspi.set_timeout(60_000, 120_000)

T = TypeVar("T")

#: Seconds for which a test waits for something to appear, and how often it looks at least.  On a slow machine
#: each look takes long, so that the wait grows with them.
PATIENCE, LOOKS = 120, 30
#: Children of one widget that are looked through: the lists of all protocols are endless.
_MOST = 400


def wait(what: str, ask: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Wait for the first answer of ``ask`` that is true.

    Fails after ``seconds``, but not before LOOKS looks.  ``what`` is for the failure, which leaves a picture
    of the screen and a list of what is in its windows.
    """
    began, looks = time.monotonic(), 0
    while True:
        look = time.monotonic()
        answer = ask()
        if answer:
            return answer
        looks += 1
        now = time.monotonic()
        if now - began > seconds and looks >= LOOKS:
            raise AssertionError(f"in {now - began:.0f} s there was no {what}; {_evidence()}")
        time.sleep(max(0.1, now - look))  # looking keeps the program busy, too: give it half of the time


def _evidence() -> str:
    """Save a picture of the screen and the tree of all windows, and return where they are."""
    desktop = Desktop.current
    assert desktop
    desktop.picture("failed")
    file = PICTURES / f"{desktop.prefix}failed.txt"
    root = Atspi.get_desktop(0)
    nodes = (root.get_child_at_index(at) for at in range(root.get_child_count()))
    file.write_text("\n".join(Widget(node, desktop).tree() for node in nodes if node is not None))
    return f"the screen is in {file.with_suffix('.png')}, its widgets in {file}"


class Widget:
    """A widget, or a cell of a table: something with a role, a name and a place."""

    def __init__(self, node: Atspi.Accessible, desktop: Desktop) -> None:
        self.node = node
        self.desktop = desktop

    @property
    def role(self) -> str:
        """Such as ``push button``, ``text`` or ``table cell``."""
        name = str(self.node.get_role_name())
        return "push button" if name == "button" else name  # its name from at-spi2-core 2.56 on

    @property
    def name(self) -> str:
        """The text on it, for most."""
        return str(self.node.get_name())

    @property
    def text(self) -> str:
        """What was typed into it, or what it shows of a longer text."""
        return str(Atspi.Text.get_text(self.node, 0, Atspi.Text.get_character_count(self.node)))

    @property
    def showing(self) -> bool:
        """Whether it can be seen."""
        return self._is(Atspi.StateType.SHOWING)

    @property
    def enabled(self) -> bool:
        """Whether it can be used."""
        return self._is(Atspi.StateType.ENABLED)

    @property
    def checked(self) -> bool:
        """Whether it is ticked."""
        return self._is(Atspi.StateType.CHECKED)

    def _is(self, state: Atspi.StateType) -> bool:
        return bool(self.node.get_state_set().contains(state))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom on the screen."""
        place = self.node.get_extents(Atspi.CoordType.SCREEN)
        return place.x, place.y, place.x + place.width, place.y + place.height

    @property
    def centre(self) -> tuple[int, int]:
        """Its middle on the screen."""
        left, top, right, bottom = self.box
        return (left + right) // 2, (top + bottom) // 2

    @property
    def parent(self) -> Widget:
        """What it is in."""
        return Widget(self.node.get_parent(), self.desktop)

    def children(self) -> Iterator[Widget]:
        """What it holds."""
        for at in range(min(self.node.get_child_count(), _MOST)):
            child = self.node.get_child_at_index(at)
            if child is not None:
                yield Widget(child, self.desktop)

    def all(self, role: str, name: str = "", hidden: bool = False) -> Iterator[Widget]:
        """What it holds, at any depth, of this role and with a name in which the pattern ``name`` is found.

        ``hidden``: also what can't be seen, and what is in it.
        """
        for child in self.children():
            if not hidden and not child.showing:
                continue
            if child.role == role and re.search(name, child.name):
                yield child
            yield from child.all(role, name, hidden)

    def has(self, role: str, name: str = "", hidden: bool = False) -> Widget | None:
        """The first of ``all``.  A window may change while it is looked through: then None."""
        try:
            return next(self.all(role, name, hidden), None)
        except GLib.Error:
            return None

    def find(self, role: str, name: str = "", seconds: float = PATIENCE, hidden: bool = False) -> Widget:
        """The first of ``all``, waited for."""
        return wait(f"{role} '{name}'", lambda: self.has(role, name, hidden), seconds)

    def table(self) -> list[list[Widget]]:
        """The cells of a table's rows, of those that can be seen."""
        rows: list[list[Widget]] = []
        columns = range(Atspi.Table.get_n_columns(self.node))
        for at in range(Atspi.Table.get_n_rows(self.node)):
            first = Atspi.Table.get_accessible_at(self.node, at, 0)
            if first is not None and Widget(first, self.desktop).showing:
                others = [Atspi.Table.get_accessible_at(self.node, at, column) for column in columns[1:]]
                rows.append([Widget(cell, self.desktop) for cell in (first, *others)])
            elif rows:
                break
        return rows

    def click(self, times: int = 1) -> None:
        """Clicks into its middle."""
        self.desktop.click(self.centre, times)

    def enter(self, text: str, *keys: str) -> None:
        """Replaces what is in it, then presses ``keys``."""
        self.click()
        self.desktop.keys("ctrl+a", "BackSpace")
        self.desktop.type(text)
        self.desktop.keys(*keys)

    def tree(self, depth: int = 0) -> str:
        """All of it that can be seen, for people."""
        lines = [f"{'  ' * depth}{self.role} {self.name!r} {self.box}"]
        lines += [child.tree(depth + 1) for child in self.children() if child.showing]
        return "\n".join(lines)


def application(pid: int, desktop: Desktop) -> Widget | None:
    """The program with process ``pid``, once it is on the AT-SPI bus."""
    root = Atspi.get_desktop(0)
    for at in range(root.get_child_count()):
        node = root.get_child_at_index(at)
        if node is not None and node.get_process_id() == pid:
            node.set_cache_mask(Atspi.Cache.NONE)  # the cache needs an event loop to stay true
            return Widget(node, desktop)
    return None
