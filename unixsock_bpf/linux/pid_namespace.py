"""The pid namespace whose numbers /proc and ps show, which need not be this process's own."""

from __future__ import annotations

import os
from contextlib import suppress

#: PROC_PID_INIT_INO in the kernel: the namespace in which all processes are visible.
_INITIAL = 0xEFFFFFFC


def pid_namespace() -> int:
    """Return the inode of the namespace that the mounted /proc belongs to; 0 for the initial one.

    A process is in it if /proc knows one number of it: with more, it is in a namespace further down.
    Where no such process may be looked at, this process's own namespace is taken.
    """
    others = (name for name in os.listdir("/proc") if name.isdigit())
    for pid in ("self", *others):
        with suppress(OSError):
            if len(_numbers(pid)) == 1:
                inode = os.stat(f"/proc/{pid}/ns/pid").st_ino
                return 0 if inode == _INITIAL else inode
    return os.stat("/proc/self/ns/pid").st_ino


def _numbers(pid: str) -> list[bytes]:
    """Return a process's numbers, from that in /proc's namespace to that in its own."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return file.read().partition(b"\nNSpid:")[2].partition(b"\n")[0].split()


def identity() -> str:
    """Name that namespace among those of all machines, as a word for any shell; empty without /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}.{pid_namespace()}"
    except OSError:
        return ""


def own_pid() -> int:
    """Return the number of this process in that namespace."""
    return int(os.readlink("/proc/self"))


def parent_pid() -> int:
    """Return the number of its parent there; 0 if that is not visible."""
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
