"""The cgroup hierarchy (version 2): where it is mounted, what it holds, and where a process is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from unixsock_bpf.linux import procfs

#: The inode of a hierarchy's root, unless a cgroup namespace shows only a part of it.
ROOT_INODE = 1


@dataclass(frozen=True)
class Group:
    """A cgroup: the kernel's numbers of those above it, outermost first, and its own.

    ``from_root``: the first one is the hierarchy's root, not that of a cgroup namespace.
    """

    ids: tuple[int, ...]
    from_root: bool


def groups() -> dict[bytes, Group]:
    """Return the existing cgroups by path as in /proc/PID/cgroup: none where version 2 is not mounted."""
    mount = mount_point()
    if mount is None:
        return {}
    top = os.fsencode(mount)
    found: dict[bytes, Group] = {}
    for directory, _, _ in os.walk(top):
        path = directory[len(top) :] or b"/"
        try:
            number = os.stat(directory).st_ino
        except OSError:  # gone meanwhile
            continue
        above = found.get(os.path.dirname(path)) if path != b"/" else None
        if above is None and path != b"/":
            continue
        ids = (*(above.ids if above else ()), number)
        found[path] = Group(ids, ids[0] == ROOT_INODE)
    return found


def mount_point() -> str | None:
    """Return where the hierarchy is mounted: /sys/fs/cgroup on most machines."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            fields = [line.split() for line in mounts]
    except OSError:
        return None
    return next((field[1] for field in fields if len(field) > 2 and field[2] == "cgroup2"), None)


def cgroup_of(pid: int) -> bytes:
    """Return a process's cgroup, as in the unified hierarchy's line of /proc/PID/cgroup; empty if unknown."""
    lines = procfs.read(pid, "cgroup").split(b"\n")
    return next((line[3:] for line in lines if line.startswith(b"0::")), b"")
