"""The processes that our standard output goes to: the rest of a pipeline, the terminal that shows it.

What they say on Unix sockets is said because of what we print (``| logger``, a terminal that
draws), so that to capture it would make them say more, without an end.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def downstream(pids: set[int]) -> set[int]:
    """The processes behind standard output of ``pids`` (the capture's own), as far as /proc tells.

    A program that runs the capture and reads it itself may well want to see its own sockets, so
    those above are left out; but not a terminal that has at least a shell between.
    """
    above = [pid for pid in _above(os.getpid()) if pid not in pids]
    readers, terminals = _ends()
    found: set[int] = set()
    outputs = {_target(f"/proc/{pid}/fd/1") for pid in pids}
    seen: set[str] = set()
    while outputs:
        output = outputs.pop()
        seen.add(output)
        next_ones = readers.get(output, set()) - set(above)
        shown = terminals.get(output, set()) - set(above[:1])
        found |= next_ones | shown
        outputs |= {_target(f"/proc/{pid}/fd/1") for pid in next_ones}
        for pid in shown:  # a multiplexer (tmux, screen) shows it in terminals that it holds open
            outputs |= {target for _, target in _descriptors(pid) if target.startswith("/dev/pts/")}
        outputs -= seen
    return found - pids


def _above(pid: int) -> list[int]:
    """Parent, its parent, and so on up to init."""
    found: list[int] = []
    while pid > 1:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            break
        pid = int(stat[stat.rindex(b")") + 2 :].split()[1])
        found.append(pid)
    return found


def _ends() -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Who reads each pipe (``pipe:[7]``), and who shows each terminal (``/dev/pts/7``)."""
    readers: dict[str, set[int]] = defaultdict(set)
    terminals: dict[str, set[int]] = defaultdict(set)
    for name in filter(str.isdigit, os.listdir("/proc")):
        pid = int(name)
        for fd, target in _descriptors(pid):
            if target.startswith("pipe:"):
                if int(_fdinfo(pid, fd).get("flags", "1"), 8) & os.O_ACCMODE == os.O_RDONLY:
                    readers[target].add(pid)
            elif target in ("/dev/ptmx", "/dev/pts/ptmx"):
                number = _fdinfo(pid, fd).get("tty-index", "?")
                terminals[f"/dev/pts/{number}"].add(pid)
    return readers, terminals


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """A process's descriptors, each with what it refers to."""
    with suppress(OSError):  # gone, or not for us to see
        for fd in os.listdir(f"/proc/{pid}/fd"):
            yield fd, _target(f"/proc/{pid}/fd/{fd}")


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _fdinfo(pid: int, fd: str) -> dict[str, str]:
    """What the kernel tells of a descriptor (Documentation/filesystems/proc.rst)."""
    try:
        lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
