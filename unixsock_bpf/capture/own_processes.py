"""The processes of the capture itself: not to be captured, and what started it ends it by ending."""

from __future__ import annotations

import os
from pathlib import Path

from unixsock_bpf.capture.downstream import downstream

#: Programs that start an extcap, or stand between such a program and it.
_CAPTURE_PROGRAMS = {
    b"wireshark",
    b"tshark",
    b"dumpcap",
    b"stratoshark",
    b"termshark",
    b"sharkd",
    b"rawshark",
    b"sudo",
    b"pkexec",
}


def _status(pid: int) -> tuple[bytes, int] | None:
    """comm and parent of a process, or None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    end = stat.rindex(b")")  # comm can hold parentheses
    return stat[stat.index(b"(") + 1 : end], int(stat[end + 2 :].split()[1])


def capture_processes() -> set[int]:
    """This process, the Wireshark programs above it, those that they started, and who reads our output."""
    pids = {os.getpid()}
    pid = os.getppid()
    while pid > 1:
        status = _status(pid)
        if status is None or status[0] not in _CAPTURE_PROGRAMS:
            break
        pids.add(pid)
        pid = status[1]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            status = _status(int(entry))
            if status and status[1] in pids and status[0] in _CAPTURE_PROGRAMS:
                pids.add(int(entry))
    return pids | downstream(pids)


def starter() -> int | None:
    """A pidfd of the Wireshark program that started this process, readable once that has ended.

    None if something else did: a shell may end while what it started goes on.
    """
    pid = os.getppid()
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # it has just ended, or may not be looked at
        return None
    status = _status(pid)
    if os.getppid() == pid and status and status[0] in _CAPTURE_PROGRAMS:
        return fd
    os.close(fd)
    return None
