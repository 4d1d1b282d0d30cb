"""Threads that wait for room in a Unix socket's queue, from /proc/PID/task/TID/wchan and syscall.

Only root sees other users' processes.  A thread may go on at any step: then it is left out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from unixsock_bpf.linux import procfs
from unixsock_bpf.linux.sockets import Owner, Peers, Socket, State
from unixsock_bpf.record import SocketType

#: Where the kernel has them wait: for room in the receiver's queue, and for the sender's own memory,
#: which the receiver holds.
_WAITS = frozenset((b"unix_wait_for_peer", b"sock_alloc_send_pskb", b"sock_wait_for_wmem"))

#: Which argument of a system call is an address, or a struct msghdr that has one: by machine and number.
_CONNECT, _SENDTO, _SENDMSG = "connect", "sendto", "sendmsg"
_CALLS = {
    "x86_64": {42: _CONNECT, 44: _SENDTO, 46: _SENDMSG, 307: _SENDMSG},
    "aarch64": {203: _CONNECT, 206: _SENDTO, 211: _SENDMSG, 269: _SENDMSG},
}
_ADDRESS_BYTES = 110
_MSGHDR = struct.Struct("=QI")


@dataclass(frozen=True)
class Blocked:
    """A thread that waits.

    ``call``: ``connect`` or ``send``.  ``socket``: its own end, if it is listed.  ``name``: as asked for, or
    its peer's.  ``queue``: the socket whose queue is full, if it is known.
    """

    owner: Owner
    tid: int
    call: str
    socket: Socket | None
    name: bytes
    queue: Socket | None


def blocked(present: list[Socket]) -> Iterator[Blocked]:
    """Yield the threads that wait, of the processes that hold one of ``present``."""
    peers = Peers(present)
    named = {(one.type, one.name): one for one in present if one.name and _takes(one)}
    processes = {owner.tgid: owner for one in present for owner in one.owners}
    for owner in processes.values():
        for tid in _threads(owner.tgid):
            where = f"task/{tid}"
            if procfs.read(owner.tgid, f"{where}/wchan") not in _WAITS:
                continue
            numbers = _numbers(procfs.read(owner.tgid, f"{where}/syscall"))
            if numbers:
                yield _blocked(owner, tid, numbers, peers, named)


def _takes(one: Socket) -> bool:
    return one.state == State.LISTENING or one.type == SocketType.DGRAM


def _threads(pid: int) -> Iterable[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return []


def _numbers(line: bytes) -> list[int]:
    """Return a system call's number and arguments; nothing where it is not told."""
    words = line.split()[:7]
    with suppress(ValueError):
        return [int(word, 0) for word in words] if len(words) == 7 else []
    return []  # "running"


def _blocked(
    owner: Owner, tid: int, numbers: list[int], peers: Peers, named: dict[tuple[int, bytes], Socket]
) -> Blocked:
    number, *arguments = numbers
    call = _CALLS.get(os.uname().machine, {}).get(number, "")
    own = None
    for descriptor in (arguments[0], arguments[2]):  # the third of splice(2)
        inode = procfs.socket_inode(procfs.link(f"/proc/{owner.tgid}/fd/{descriptor}"))
        own = own or peers.by_inode(inode)
    name = _asked(owner.tgid, call, arguments)
    queue = peers.of(own) if own and not name else None
    if name and own:
        queue = named.get((own.type, name))
    return Blocked(owner, tid, _CONNECT if call == _CONNECT else "send", own, name or _name(queue), queue)


def _name(one: Socket | None) -> bytes:
    return one.name if one else b""


def _asked(pid: int, call: str, arguments: list[int]) -> bytes:
    """Read the address from the thread's memory; empty if there is none, or it can't be read."""
    if call == _CONNECT:
        address, length = arguments[1:3]
    elif call == _SENDTO:
        address, length = arguments[4:6]
    elif call == _SENDMSG:
        head = _memory(pid, arguments[1], _MSGHDR.size)
        if len(head) < _MSGHDR.size:
            return b""
        address, length = _MSGHDR.unpack(head)
    else:
        return b""
    if not address or not 2 < length <= _ADDRESS_BYTES:
        return b""
    data = _memory(pid, address, length)
    if data[:2] != struct.pack("=H", 1):  # AF_UNIX
        return b""
    return data[2:] if data[2:3] == b"\0" else data[2:].split(b"\0")[0]


def _memory(pid: int, address: int, length: int) -> bytes:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            file.seek(address)
            return file.read(length)
    except (OSError, OverflowError, ValueError):
        return b""
