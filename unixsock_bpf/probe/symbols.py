"""The addresses of some of the kernel's variables, from /proc/kallsyms.

Reading takes a tenth of a second, as long as all else before the compile, which goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

#: Variables that tell where the kernel has a page's bytes, and what is there if it can be preempted.
_NAMES = ("page_offset_base", "vmemmap_base", "preempt_schedule")


class Symbols:
    """Addresses, whose reading begins here."""

    def __init__(self, path: str = "/proc/kallsyms") -> None:
        self._path = path
        self._found: dict[str, int] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def found(self) -> dict[str, int]:
        """By name, without those that kallsyms lacks; 0 where it hides them."""
        self._thread.join()
        return self._found

    def _read(self) -> None:
        table = b""
        with contextlib.suppress(OSError):  # a kernel without
            table = Path(self._path).read_bytes()
        for name in _NAMES:
            at = table.find(b" " + name.encode() + b"\n")
            if at >= 0:
                line = table[table.rfind(b"\n", 0, at) + 1 : at]
                self._found[name] = int(line.split()[0], 16)
