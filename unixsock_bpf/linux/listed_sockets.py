"""The named sockets there are now, for the selector in Wireshark's dialog.

Reads /proc only: no library to import, no rights needed to list names.  Processes
of other users are left out without root.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

from unixsock_bpf.record import display_process

_TYPES = {"0001": "stream", "0002": "dgram", "0005": "seqpacket"}


def choices() -> list[tuple[str, str]]:
    """(glob that matches exactly this name, text with type and processes) for each bound name."""
    inodes: dict[bytes, set[int]] = defaultdict(set)
    types: dict[bytes, set[str]] = defaultdict(set)
    for inode, kind, name in _named():
        inodes[name].add(inode)
        types[name].add(kind)
    holders = _holders()
    found = []
    for name in sorted(inodes):
        processes = sorted({holder for inode in inodes[name] for holder in holders.get(inode, ())})
        shown = ", ".join(processes[:4]) + (", ..." if len(processes) > 4 else "")
        text = f"{name.decode(errors='replace')}  ({'/'.join(sorted(types[name]))})  {shown}"
        found.append((as_glob(name), text.rstrip()))
    return found


def as_glob(name: bytes) -> str:
    """A glob for ``name`` as an option's value; what can't stand there becomes ``?`` or ``*``."""
    text = name.decode(errors="replace")
    return "".join(_glob_character(c) for c in text)


def _glob_character(character: str) -> str:
    if character == "\ufffd":
        return "*"  # bytes that aren't UTF-8
    if character == "}" or not character.isprintable():
        return "?"
    return "\\" + character if character in "*?[\\" else character


def _named() -> Iterable[tuple[int, str, bytes]]:
    """Inode, type and name of each bound socket in this network namespace."""
    try:
        with open("/proc/net/unix", "rb") as table:
            lines = table.read().split(b"\n")[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split(None, 7)
        if len(fields) == 8:
            yield int(fields[6]), _TYPES.get(fields[4].decode(), "?"), fields[7]


def _holders() -> dict[int, list[str]]:
    """Processes that hold each socket, as ``comm[pid]``, by inode."""
    holders: dict[int, list[str]] = defaultdict(list)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", "rb") as file:
                process = display_process(file.read().rstrip(b"\n"), int(pid)).decode(errors="replace")
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    target = _target(descriptor.path)
                    if target.startswith("socket:["):
                        holders[int(target[8:-1])].append(process)
        except OSError:
            continue  # gone, or another user's
    return holders


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
