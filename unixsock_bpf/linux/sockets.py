"""Existing AF_UNIX sockets: their owners, names and peers.

Sources: sock_diag(7) for the sockets themselves, ``/proc/PID/fd`` for the processes that
hold them.  Works without BPF; without root the processes of other users stay unknown.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import NamedTuple

from unixsock_bpf.linux import libc, procfs, sock_diag

_CLONE_NEWNET = 0x40000000


class SocketsError(OSError):
    """The kernel does not list its sockets; the text says why."""


class State(IntEnum):
    """Socket states; the kernel gives Unix sockets those of TCP.

    WAITING is ours: the server's end of a connection that was not accepted yet.
    """

    WAITING = 0
    ESTABLISHED = 1
    UNCONNECTED = 7
    LISTENING = 10


class Owner(NamedTuple):
    """A process that holds a socket, with its real user and group."""

    tgid: int
    uid: int
    gid: int
    comm: bytes


class Socket(NamedTuple):
    """One socket.

    ``name`` is as bound: abstract ones begin with NUL, ``b""`` is unnamed.  ``peer`` is
    the inode of the other end; 0: not connected, or not accepted yet.  Queues are
    bytes; of a listening socket, the connections that wait and the backlog.
    ``netns`` is the inode of its network namespace.  ``owners``: youngest process first.
    ``file``, ``device``, ``waiting``: as in ``sock_diag.Entry``.

    The server's end of a connection that was not accepted yet has the inode 0, its listener's
    name and owners, and unknown queues, as 0.
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
    file: int = 0
    device: int = 0
    waiting: tuple[int, ...] = ()


class Peers:
    """The other end of each of ``present``."""

    def __init__(self, present: list[Socket]) -> None:
        self._by_inode = {one.inode: one for one in present if one.inode}
        self._not_accepted = {one.peer: one for one in present if not one.inode}

    def of(self, one: Socket) -> Socket | None:
        """Return the other end of ``one``; None if there is none, or it is not known."""
        return self._by_inode.get(one.peer) or self._not_accepted.get(one.inode)

    def by_inode(self, inode: int) -> Socket | None:
        """Return the socket with this inode."""
        return self._by_inode.get(inode)


def owners() -> dict[int, Owner]:
    """Return the process behind each socket inode; of several, the one that started last.

    The youngest most likely uses an inherited socket: a worker
    rather than its master.  Inodes of other families' sockets are in it too.
    """
    return {inode: held[0] for inode, held in holders().items()}


def holders() -> dict[int, list[Owner]]:
    """Return all processes that hold each socket inode, youngest first."""
    found: dict[int, list[tuple[int, Owner]]] = {}
    for pid in procfs.pids():
        inodes = procfs.socket_inodes(pid)
        status, user = (procfs.status(pid), procfs.user(pid)) if inodes else (None, None)
        if status is None or user is None:
            continue
        comm, _, started = status
        for inode in inodes:
            found.setdefault(inode, []).append((started, Owner(pid, *user, comm)))
    return {
        inode: [owner for _, owner in sorted(held, key=lambda item: (item[0], item[1].tgid), reverse=True)]
        for inode, held in found.items()
    }


def sockets() -> list[Socket]:
    """List the AF_UNIX sockets of every network namespace that can be entered, this one's first.

    The server's ends of connections that were not accepted yet follow their listeners.  Raises
    SocketsError if the kernel lists none because it lacks unix_diag.
    """
    held = holders()
    found: dict[int, Socket] = {}

    def take(netns: int) -> None:
        for entry in sock_diag.listed():
            if entry.inode not in found:
                owners = tuple(held.get(entry.inode, ()))
                inode, kind, state, name, peer, receive_queue, send_queue, file, device, waiting = entry
                queues = receive_queue, send_queue
                found[inode] = Socket(
                    inode, kind, state, name, peer, *queues, netns, owners, file, device, waiting
                )

    try:
        for netns, path in _namespaces().items():
            _within(path, partial(take, netns))
    except sock_diag.DiagError as error:
        raise SocketsError(_why(error)) from None
    return [end for one in found.values() for end in (one, *_not_accepted(one))]


def _not_accepted(listener: Socket) -> Iterable[Socket]:
    """Yield the server's ends of connections that wait at ``listener``; clients without an inode are gone."""
    for client in filter(None, listener.waiting):
        yield listener._replace(
            inode=0, state=State.WAITING, peer=client, receive_queue=0, send_queue=0, waiting=()
        )


def _why(error: sock_diag.DiagError) -> str:
    if error.errno in (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return "this kernel does not list Unix sockets: load its module unix_diag (CONFIG_UNIX_DIAG)"
    return f"the kernel does not list its Unix sockets: {(error.strerror or str(error)).lower()}"


def _namespaces() -> dict[int, str | None]:
    """Return network namespaces by inode, each with a path to enter it by; None: the current one."""
    spaces: dict[int, str | None] = {os.stat("/proc/self/ns/net").st_ino: None}
    if os.geteuid() != 0:  # only root may enter one
        return spaces
    for pid in procfs.pids():
        with suppress(OSError):
            path = f"/proc/{pid}/ns/net"
            spaces.setdefault(os.stat(path).st_ino, path)
    return spaces


def _within(path: str | None, work: Callable[[], None]) -> None:
    """Run ``work`` in a network namespace, if that still exists."""
    if path is None:
        work()
        return

    def enter() -> None:
        # setns changes the calling thread only, so the thread ends with its namespace.
        with suppress(OSError), open(path, "rb") as file:
            libc.call("setns", file.fileno(), _CLONE_NEWNET)
            work()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()


def visit_relative_names() -> None:
    """Make the kernel list its sockets: the probe then learns where those with relative names lie.

    Without unix_diag, those of sockets that exist already stay unknown.
    """
    for path in _namespaces().values():
        with suppress(OSError):
            _within(path, sock_diag.visit)
