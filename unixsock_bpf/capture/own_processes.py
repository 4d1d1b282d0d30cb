"""The processes of the capture itself, and those that its output goes to.

What they write to Unix sockets, they write because of what we print (``| logger``, a terminal that
draws), so that to capture it would make them say more, without an end.  Those that are found here
are left out as processes.  What stands further behind, or serves others besides (journald, a
container engine), is left out by conversation: capture/feedback.py.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from unixsock_bpf.linux import libc, procfs, sock_diag
from unixsock_bpf.linux.pid_namespace import own_pid, parent_pid
from unixsock_bpf.record import display_process

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

_LISTENING = 10
_SYS_PIDFD_GETFD = 438
#: linux/tty.h: opens the other end of a pseudo terminal by its master.
_TIOCGPTPEER = 0x5441


@dataclass
class OwnProcesses:
    """``left_out``: processes whose messages are not captured.  ``readers``: those that read our output."""

    left_out: set[int] = field(default_factory=set)
    readers: set[int] = field(default_factory=set)


def users() -> set[int]:
    """Return the users that this capture belongs to: also the one behind sudo or pkexec."""
    asked = (os.environ.get(name, "") for name in ("SUDO_UID", "PKEXEC_UID"))
    return {os.geteuid()} | {int(uid) for uid in asked if uid.isascii() and uid.isdigit()}


def shown(pids: Iterable[int]) -> list[str]:
    """Return each process but this one as ``comm[pid]``, in printable characters."""
    processes = [(procfs.status(pid), pid) for pid in sorted(set(pids) - {own_pid()})]
    texts = [
        display_process(status[0] if status else b"", pid).decode(errors="replace")
        for status, pid in processes
    ]
    return ["".join(c if c.isprintable() else "?" for c in text) for text in texts]


def capture_processes() -> set[int]:
    """Find this process, the Wireshark programs above it, those they started, and our output's readers."""
    return find().left_out


def find() -> OwnProcesses:
    """Find the capture's processes, as they are now and as far as /proc shows them."""
    pids = {own_pid()}
    pid = parent_pid()
    while pid > 1:
        status = procfs.status(pid)
        if status is None or status[0] not in _CAPTURE_PROGRAMS:
            break
        pids.add(pid)
        pid = status[1]
    for pid in procfs.pids():
        status = procfs.status(pid)
        if status and status[1] in pids and status[0] in _CAPTURE_PROGRAMS:
            pids.add(pid)
    found = downstream(pids)
    return OwnProcesses(pids | found.left_out, found.readers)


def downstream(pids: set[int]) -> OwnProcesses:
    """Find the processes behind standard output of ``pids`` (the capture's own).

    A program that runs the capture and reads it itself may well want to see its own sockets, so
    those above are not left out; but a terminal is that has at least a shell between.
    """
    above = [pid for pid in procfs.ancestors(own_pid()) if pid not in pids]
    ends = _Ends()
    found = OwnProcesses()
    outputs = {procfs.link(f"/proc/{pid}/fd/1"): pid for pid in pids}
    seen: set[str] = set()
    while outputs:
        output, pid = outputs.popitem()
        seen.add(output)
        readers = ends.readers_of(output)
        found.readers |= readers
        next_ones = {one for one in readers if not ends.serves_others(one)} - set(above)
        shown = ends.terminals_of(output, pid) - set(above[:1])
        found.left_out |= next_ones | shown
        following = [(procfs.link(f"/proc/{one}/fd/1"), one) for one in next_ones]
        for one in shown:  # a multiplexer (tmux, screen) shows it in terminals that it holds open
            following += [
                (target, one) for _, target in procfs.descriptors(one) if target.startswith("/dev/pts/")
            ]
        outputs.update((target, one) for target, one in following if target not in seen)
    found.left_out -= pids
    found.readers -= pids
    return found


class _Master(NamedTuple):
    """A descriptor of a pseudo terminal's master."""

    pid: int
    fd: int


class _Ends:
    """The processes that read each pipe and socket, and show each terminal."""

    def __init__(self) -> None:
        self._pipes: dict[str, set[int]] = defaultdict(set)
        self._sockets: dict[int, set[int]] = defaultdict(set)
        self._masters: dict[str, list[_Master]] = defaultdict(list)  # by the terminal's number
        for pid in procfs.pids():
            for fd, target in procfs.descriptors(pid):
                if procfs.is_pipe(target):
                    if int(procfs.fdinfo(pid, fd).get("flags", "1"), 8) & os.O_ACCMODE == os.O_RDONLY:
                        self._pipes[target].add(pid)
                elif inode := procfs.socket_inode(target):
                    self._sockets[inode].add(pid)
                elif target.endswith("/ptmx"):
                    number = procfs.fdinfo(pid, fd).get("tty-index", "?")
                    self._masters[number].append(_Master(pid, fd))
        self._peers: dict[int, int] = {}
        self._servers: set[int] = set()
        with suppress(sock_diag.DiagError):
            for one in sock_diag.listed():
                self._peers[one.inode] = one.peer
                if one.state == _LISTENING:
                    self._servers |= self._sockets.get(one.inode, set())

    def readers_of(self, output: str) -> set[int]:
        """Find the processes at the other end of a pipe or a Unix socket."""
        if inode := procfs.socket_inode(output):
            return self._sockets.get(self._peers.get(inode, 0), set()) - self._sockets.get(inode, set())
        return self._pipes.get(output, set())

    def serves_others(self, pid: int) -> bool:
        """Return whether a process listens on a socket, so that its messages are not all about us."""
        return pid in self._servers

    def terminals_of(self, output: str, pid: int) -> set[int]:
        """Find the processes that show the terminal which process ``pid`` writes to."""
        if not output.startswith("/dev/pts/"):
            return set()
        try:
            terminal = os.stat(f"/proc/{pid}/fd/1")
        except OSError:
            return set()
        masters = self._masters.get(output[len("/dev/pts/") :], [])
        return {master.pid for master in masters if _shows(master, terminal)}


def _shows(master: _Master, terminal: os.stat_result) -> bool:
    """Return whether ``master`` is that of ``terminal``, not of one with its number in another devpts.

    Any user can mount a devpts in a user namespace and have any number there, so that the number
    alone would let a process choose to be left out.
    """
    try:
        opened = os.stat(f"/proc/{master.pid}/fd/{master.fd}")
    except OSError:
        return False
    if opened.st_dev == terminal.st_dev:  # through the ptmx in the same devpts
        return True
    # Through a device node, which may belong to any devpts: the slave shows which.
    try:
        process = os.pidfd_open(master.pid)
    except OSError:
        return False
    try:
        ours = libc.call("syscall", _SYS_PIDFD_GETFD, process, master.fd, 0)
    except OSError:
        # A user's own terminal may not be looked into where Yama forbids it.
        return os.geteuid() != 0 and opened.st_dev == _device("/dev/ptmx") and _like_us(master.pid)
    finally:
        os.close(process)
    try:
        other = fcntl.ioctl(ours, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        about = os.fstat(other)
        os.close(other)
    except OSError:
        return False
    finally:
        os.close(ours)
    return (about.st_dev, about.st_rdev) == (terminal.st_dev, terminal.st_rdev)


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1


def _like_us(pid: int) -> bool:
    """Return whether a process is of the same user, and sees the same files."""
    user = procfs.user(pid)
    return (
        user is not None
        and user[0] == os.getuid()
        and procfs.link(f"/proc/{pid}/ns/mnt") == procfs.link("/proc/self/ns/mnt")
    )


def starter() -> int | None:
    """Open a pidfd of the Wireshark program that started this process, readable once that has ended.

    None if something else did: a shell may end while what it started goes on.
    """
    pid = os.getppid()
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # it has just ended, or may not be looked at
        return None
    status = procfs.status(pid)
    if os.getppid() == pid and status and status[0] in _CAPTURE_PROGRAMS:
        return fd
    os.close(fd)
    return None
