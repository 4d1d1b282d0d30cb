"""The named sockets there are now, for the selector in Wireshark's dialog.

No library to import, no rights needed to list names.  Processes of other users are left out
without root.  Names are hostile: only their length, which the kernel gives, ends them.
"""

from __future__ import annotations

from collections import defaultdict

from unixsock_bpf.linux import procfs, sock_diag
from unixsock_bpf.record import SocketType, display_name, display_process


def choices() -> list[tuple[str, str]]:
    """Return, for each bound name, a glob that matches exactly it, and a text with type and processes."""
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
        text = f"{name.decode(errors='replace')}  ({'/'.join(sorted(types[name]))})  {shown}".rstrip()
        found.append((as_glob(name), "".join(c if c.isprintable() else "?" for c in text)))
    return found


def as_glob(name: bytes) -> str:
    """Return a glob for ``name`` as an option's value; what cannot stand there becomes ``?`` or ``*``."""
    text = name.decode(errors="replace")
    return "".join(_glob_character(c) for c in text)


def _glob_character(character: str) -> str:
    if character == "\ufffd":
        return "*"  # bytes that aren't UTF-8
    if character == "}" or not character.isprintable():
        return "?"
    return "\\" + character if character in "*?[\\" else character


def _named() -> list[tuple[int, str, bytes]]:
    """Return inode, type and name of each bound socket in this network namespace, where listed."""
    try:
        listed = list(sock_diag.listed())
    except sock_diag.DiagError:
        return []
    known = SocketType._value2member_map_
    return [
        (one.inode, SocketType(one.type).name.lower() if one.type in known else "?", display_name(one.name))
        for one in listed
        if one.name
    ]


def _holders() -> dict[int, list[str]]:
    """Return the processes that hold each socket, as ``comm[pid]``, by inode."""
    holders: dict[int, list[str]] = defaultdict(list)
    for pid in procfs.pids():
        inodes = procfs.socket_inodes(pid)
        if inodes and (status := procfs.status(pid)):
            process = display_process(status[0], pid).decode(errors="replace")
            for inode in inodes:
                holders[inode].append(process)
    return holders
