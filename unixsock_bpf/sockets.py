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

from .record import Event, Record

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
