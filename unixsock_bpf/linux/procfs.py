"""Processes and their descriptors from /proc: the one reader of it.

A process may end, or belong to another user, at any step: then there is nothing to return, and no
function here raises for that.  Imports ``os`` only, because listing interfaces must stay fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_PIPE, _SOCKET = "pipe:[", "socket:["


def pids() -> list[int]:
    """List the existing processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read(pid: int, name: str, most: int = -1) -> bytes:
    """Return the content of ``/proc/PID/name``, ``most`` bytes of it; empty if it cannot be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def link(path: str) -> str:
    """Return where a symbolic link leads; empty if it cannot be read."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def status(pid: int) -> tuple[bytes, int, int] | None:
    """Read comm, parent, and start in clock ticks since boot; None if the process is gone."""
    stat = read(pid, "stat")
    # comm may hold anything, parentheses too; the fields after it hold none.
    comm, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    return (comm, int(fields[1]), int(fields[19])) if len(fields) > 19 else None


def user(pid: int) -> tuple[int, int] | None:
    """Read the real user and group; None if the process is gone."""
    text = read(pid, "status")
    ids = [text.partition(b"\n" + name)[2].split(None, 1)[:1] for name in (b"Uid:", b"Gid:")]
    return (int(ids[0][0]), int(ids[1][0])) if all(ids) else None


def ancestors(pid: int) -> list[int]:
    """Yield the parent, its parent, and so on up to init."""
    found: list[int] = []
    while pid > 1 and (known := status(pid)):
        pid = known[1]
        if pid in found:  # ids were reused while we looked
            break
        found.append(pid)
    return found


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Yield a process's descriptors, each with its link, such as ``socket:[7]`` or ``/dev/pts/0``."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        if target := link(f"/proc/{pid}/fd/{name}"):
            yield int(name), target


def socket_inode(target: str) -> int:
    """Return the inode in ``socket:[INODE]``; 0 for anything else."""
    return int(target[len(_SOCKET) : -1]) if target.startswith(_SOCKET) else 0


def is_pipe(target: str) -> bool:
    """Return whether a descriptor refers to a pipe without a name."""
    return target.startswith(_PIPE)


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets that a process holds, of any family."""
    # A list of many sockets takes most of its time here.
    folder = f"/proc/{pid}/fd"
    found: set[int] = set()
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith(_SOCKET):
            found.add(int(target[8:-1]))
    return found


def fdinfo(pid: int, fd: int) -> dict[str, str]:
    """Return the fields of a descriptor's fdinfo (Documentation/filesystems/proc.rst)."""
    lines = read(pid, f"fdinfo/{fd}").decode(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
