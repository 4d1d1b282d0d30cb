"""Cgroup primitives: from a path to the cgroup that the kernel knows."""

from __future__ import annotations

import os

from unixsock_bpf.filter.ast import Cgroup
from unixsock_bpf.filter.errors import FilterError, shorten
from unixsock_bpf.linux.cgroups import ROOT_INODE, mount_point

#: Levels that the probe compares: the root is level 0.
LEVELS = 16


def find(path: str) -> Cgroup:
    """Find the cgroup at ``path``: absolute, or as in /proc/PID/cgroup.  Raises FilterError."""
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
    if len(parts) >= LEVELS:
        raise FilterError(
            f"the cgroup {shorten(path)} lies {len(parts)} levels deep; at most {LEVELS - 1} are possible"
        )
    return Cgroup("/" + "/".join(parts), inode, len(parts) if root == ROOT_INODE else None)
