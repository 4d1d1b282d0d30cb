"""Cgroups (version 2) by their paths."""

from __future__ import annotations

import os
from dataclasses import dataclass

from unixsock_bpf.filter.ast import Cgroup
from unixsock_bpf.filter.errors import FilterError, shorten

#: The inode of a hierarchy's root, unless a cgroup namespace shows only a part of it.
_ROOT_INODE = 1


@dataclass(frozen=True)
class Group:
    """A cgroup: the kernel's numbers of those above it, outermost first, and its own.

    ``from_root``: the first one is the hierarchy's root, not that of a cgroup namespace.
    """

    ids: tuple[int, ...]
    from_root: bool


def present() -> dict[bytes, Group]:
    """The cgroups that there are, by path as in /proc/PID/cgroup.  None where version 2 is not mounted."""
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
        found[path] = Group(ids, ids[0] == _ROOT_INODE)
    return found


def mount_point() -> str | None:
    """Where the cgroup v2 hierarchy is mounted: /sys/fs/cgroup on most machines."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            fields = [line.split() for line in mounts]
    except OSError:
        return None
    return next((field[1] for field in fields if len(field) > 2 and field[2] == "cgroup2"), None)


def find(path: str) -> Cgroup:
    """The cgroup at ``path``: absolute, or as in /proc/PID/cgroup.  Raises FilterError if there is none."""
    mount = mount_point()
    if mount is None:
        raise FilterError("cgroup needs cgroup version 2, which is not mounted here")
    inside = path.removeprefix(mount) if (path + "/").startswith(mount + "/") else path
    parts = [part for part in inside.split("/") if part not in ("", ".")]
    full = os.path.join(mount, *parts)
    try:
        if ".." in parts or not os.path.isfile(os.path.join(full, "cgroup.controllers")):
            raise FileNotFoundError
        inode, root = os.stat(full).st_ino, os.stat(mount).st_ino
    except (OSError, ValueError):
        raise FilterError(f"there is no cgroup {shorten(path)} under {mount}") from None
    return Cgroup("/" + "/".join(parts), inode, len(parts) if root == _ROOT_INODE else None)
