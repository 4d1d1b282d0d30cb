"""The AF_UNIX sockets that exist now: who holds them, what they are called, who is at the other end.

Sources: sock_diag(7) through pyroute2 for the sockets themselves, ``/proc/PID/fd``
for the processes that hold them.  Works without BPF; without root the processes
of other users stay unknown.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from unixsock_bpf.filter.evaluate import End

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter


_CLONE_NEWNET = 0x40000000


class SocketsError(OSError):
    """The kernel does not list its sockets: says why."""


class State(IntEnum):
    """Socket states; the kernel gives Unix sockets those of TCP."""

    ESTABLISHED = 1
    UNCONNECTED = 7
    LISTENING = 10


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a socket, with its real user and group."""

    tgid: int
    uid: int
    gid: int
    comm: bytes


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket.

    ``name`` is as bound: abstract ones begin with NUL, ``b""`` is unnamed.  ``peer`` is
    the inode of the other end; 0: not connected, or not accepted yet.  Queues are
    bytes; of a listening socket, the connections that wait and the backlog.
    ``netns`` is the inode of its network namespace.  ``owners``: youngest process first.
    """

    inode: int
    type: int
    state: int
    name: bytes
    peer: int
    receive_queue: int
    send_queue: int
    netns: int
    owners: tuple[Owner, ...] = ()


def owners() -> dict[int, Owner]:
    """The process behind each socket inode; of several, the one that started last.

    The youngest is the best guess at who really uses an inherited socket: a worker
    rather than its master.  Inodes of other families' sockets are in it too.
    """
    return {inode: held[0] for inode, held in holders().items()}


def holders() -> dict[int, list[Owner]]:
    """All processes that hold each socket inode, youngest first."""
    found: dict[int, list[tuple[int, Owner]]] = {}
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        # A process may end, or be another user's, at any step: then it holds nothing for us.
        with suppress(OSError):
            if inodes := _socket_inodes(pid):
                started, owner = _owner(pid)
                for inode in inodes:
                    found.setdefault(inode, []).append((started, owner))
    return {
        inode: [owner for _, owner in sorted(held, key=lambda item: (item[0], item[1].tgid), reverse=True)]
        for inode, held in found.items()
    }


def _socket_inodes(pid: str) -> set[int]:
    folder = f"/proc/{pid}/fd"
    inodes = set()
    for fd in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{fd}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def _owner(pid: str) -> tuple[int, Owner]:
    """A process's start, in clock ticks since boot, and who it is."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        stat = file.read()
    with open(f"/proc/{pid}/status", "rb") as file:
        status = file.read()
    # comm may hold anything, parentheses too; the fields after it hold none.
    comm, _, rest = stat.partition(b"(")[2].rpartition(b")")
    started = int(rest.split()[19])
    uid = int(status.partition(b"\nUid:")[2].split(None, 1)[0])
    gid = int(status.partition(b"\nGid:")[2].split(None, 1)[0])
    return started, Owner(int(pid), uid, gid, comm)


def sockets() -> list[Socket]:
    """The AF_UNIX sockets of every network namespace that can be entered, this one's first.

    Raises SocketsError if the kernel lists none because it lacks unix_diag.
    """
    held = holders()
    found: dict[int, Socket] = {}
    for netns, path in _namespaces().items():
        for entry in _dump(netns, path):
            found.setdefault(entry.inode, entry)
    return [
        Socket(s.inode, s.type, s.state, s.name, s.peer, s.receive_queue, s.send_queue, s.netns,
               tuple(held.get(s.inode, ())))
        for s in found.values()
    ]  # fmt: skip


def _namespaces() -> dict[int, str | None]:
    """Network namespaces by inode, with a path to enter each by; None is the current one."""
    spaces: dict[int, str | None] = {os.stat("/proc/self/ns/net").st_ino: None}
    if os.geteuid() != 0:  # nobody else may enter one
        return spaces
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with suppress(OSError):
                path = f"/proc/{pid}/ns/net"
                spaces.setdefault(os.stat(path).st_ino, path)
    return spaces


def _dump(netns: int, path: str | None) -> list[Socket]:
    """The sockets of one namespace.  One whose last process has gone meanwhile has none."""
    if path is None:
        return list(_diag(netns))
    found: list[Socket] = []

    def enter() -> None:
        # setns changes the calling thread only, so the thread ends with its namespace.
        with suppress(OSError), open(path, "rb") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), _CLONE_NEWNET) == 0:
                found.extend(_diag(netns))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found


def _diag(netns: int) -> Iterator[Socket]:
    from pyroute2.netlink import diag

    class Message(diag.unix_diag_msg):  # type: ignore[misc]
        # pyroute2 takes names for text; abstract ones hold NULs, and any may hold any byte.
        nla_map = tuple((name, "cdata" if name == "UNIX_DIAG_NAME" else kind)
                        for name, kind in diag.unix_diag_msg.nla_map)  # fmt: skip

    show = diag.UDIAG_SHOW_NAME | diag.UDIAG_SHOW_PEER | diag.UDIAG_SHOW_RQLEN
    with diag.DiagSocket() as netlink:
        netlink.marshal.msg_map = {**netlink.marshal.msg_map, socket.AF_UNIX: Message}
        netlink.bind()
        for message in netlink.get_sock_stats(family=socket.AF_UNIX, show=show):
            if message["header"]["type"] != diag.SOCK_DIAG_BY_FAMILY:
                raise SocketsError(
                    "this kernel does not list Unix sockets: load its module unix_diag (CONFIG_UNIX_DIAG)"
                )
            queues = message.get_attr("UNIX_DIAG_RQLEN") or {}
            name = message.get_attr("UNIX_DIAG_NAME") or b""
            yield Socket(
                inode=message["udiag_ino"],
                type=message["udiag_type"],
                state=message["udiag_state"],
                name=name if name.startswith(b"\0") else name.rstrip(b"\0"),
                peer=message.get_attr("UNIX_DIAG_PEER") or 0,
                receive_queue=queues.get("udiag_rqueue", 0),
                send_queue=queues.get("udiag_wqueue", 0),
                netns=netns,
            )


def visit_relative_names() -> None:
    """Makes the kernel list its sockets, if any has a relative name: the probe then learns where they lie.

    Without unix_diag, those of sockets that exist already stay unknown.
    """
    for netns, path in _namespaces().items():
        table = f"{os.path.dirname(os.path.dirname(path))}/net/unix" if path else "/proc/self/net/unix"
        with suppress(OSError):
            with open(table, "rb") as file:
                next(file)  # titles
                names = [fields[7] for fields in map(bytes.split, file) if len(fields) > 7]
            if any(name[:1] not in (b"/", b"@") for name in names):
                _dump(netns, path)


def chosen(present: list[Socket], wanted: Filter) -> list[tuple[Socket, bool]]:
    """The sockets that ``wanted`` takes, each with whether it takes all that they carry.

    A socket with several holders is taken if it is with any of them; an end that does not
    exist matches nothing.
    """
    by_inode = {socket.inode: socket for socket in present}
    with_cgroup = "cgroup" in wanted.text
    found = []
    for one in present:
        other = by_inode.get(one.peer)
        verdicts = {
            wanted.judge(near, far, one.type)
            for near in _ends(one, with_cgroup)
            for far in (_ends(other, with_cgroup) if other else [_NOBODY])
        }
        if verdicts != {False}:
            found.append((one, True in verdicts))
    return found


def _ends(one: Socket, with_cgroup: bool) -> list[End]:
    """The socket as the filter sees it, once for each process that holds it."""
    known: dict[str, Any] = {"name": one.name, "inode": one.inode, "netns": one.netns}
    if not one.owners:
        return [End(**known, pid=0, uid=-1, comm=b"", cgroup=b"")]  # nobody that can be seen
    return [
        End(
            **known,
            path=_absolute(one.name, owner.tgid),
            pid=owner.tgid,
            uid=owner.uid,
            comm=owner.comm,
            cgroup=cgroup_of(owner.tgid) if with_cgroup else b"",
        )
        for owner in one.owners
    ]


_NOBODY = End(name=b"", inode=0, netns=0, pid=0, uid=-1, comm=b"", cgroup=b"")


def _absolute(name: bytes, pid: int) -> bytes:
    """Where a relative name most likely lies: in its owner's present directory."""
    if not name or name.startswith((b"/", b"\0")):
        return b""
    try:
        return os.path.normpath(os.path.join(os.readlink(f"/proc/{pid}/cwd".encode()), name))
    except OSError:
        return b""


def cgroup_of(pid: int) -> bytes:
    """A process's cgroup, as in the unified hierarchy's line of /proc/PID/cgroup; empty if unknown."""
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            return next((line[3:].rstrip(b"\n") for line in file if line.startswith(b"0::")), b"")
    except OSError:
        return b""
