"""The kernel's list of the AF_UNIX sockets of one network namespace: sock_diag(7), asked over netlink(7).

Sources: linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h.  One question and one kind of answer are
decoded here, because a library for all of netlink takes as long to import as 40,000 answers take here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

#: Not in Python's ``socket`` before 3.12.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300

#: Attributes, and the bits that ask for them.
_NAME, _VFS, _PEER, _ICONS, _RQLEN = 0, 1, 2, 3, 4
_SHOW_NAME, _SHOW_VFS, _SHOW_PEER, _SHOW_ICONS, _SHOW_RQLEN = 0x1, 0x2, 0x4, 0x8, 0x10

#: struct nlmsghdr: length, type, flags, sequence number, port
_HEAD = struct.Struct("=IHHII")
#: struct unix_diag_req: family, protocol, pad, states, inode, show, cookie
_REQUEST = struct.Struct("=BBHIIIII")
#: struct unix_diag_msg: family, type, state, pad, inode, cookie
_MESSAGE = struct.Struct("=BBBxI8x")
#: struct nlattr: length, type
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
#: struct unix_diag_rqlen
_QUEUES = struct.Struct("=II")
#: struct unix_diag_vfs: inode (its lower 32 bits), device as the kernel numbers it
_FILE = struct.Struct("=II")
_MINOR_BITS = 20
_ERROR = struct.Struct("=i")

#: Bytes that hold any piece of a listing: the kernel makes none of more than 32 KiB.
_PIECE = 1 << 16


class DiagError(OSError):
    """The kernel does not answer, or not as it should."""


class Entry(NamedTuple):
    """One socket, as in ``sockets.Socket``.

    ``file``, ``device``: the file that it was bound to, as stat(2) has them, but for the upper half of the
    inode; 0 without one.  ``waiting``: of a listening socket, inodes of the clients that it has not accepted.
    """

    inode: int
    type: int
    state: int
    name: bytes
    peer: int
    receive_queue: int
    send_queue: int
    file: int = 0
    device: int = 0
    waiting: tuple[int, ...] = ()


def request(show: int) -> bytes:
    """Return the request for all sockets in any state, with the attributes in ``show``."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, show, 0, 0)
    return _HEAD.pack(_HEAD.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body


def entries(piece: bytes) -> tuple[list[Entry], bool]:
    """Return the sockets in a piece of the answer, and whether it was the last piece.  Raises DiagError."""
    found = []
    at, end = 0, len(piece)
    try:
        while at < end:
            length, kind, _, _, _ = _HEAD.unpack_from(piece, at)
            if length < _HEAD.size or at + length > end:
                raise DiagError("the kernel's list of Unix sockets is cut short")
            if kind == _SOCK_DIAG_BY_FAMILY:
                found.append(_entry(piece, at + _HEAD.size, at + length))
            elif kind in (_NLMSG_DONE, _NLMSG_ERROR):
                # The end of a listing may hold an error, too; none is 0, and old kernels leave it out.
                error = -_ERROR.unpack_from(piece, at + _HEAD.size)[0] if length > _HEAD.size else 0
                if error > 0:
                    # The kernel's own have four digits at most.
                    raise DiagError(error, os.strerror(error) if error < 4096 else f"error {error}")
                return found, True
            at += (length + 3) & ~3
    except struct.error:
        raise DiagError("the kernel's list of Unix sockets is cut short") from None
    return found, False


def _entry(piece: bytes, at: int, end: int) -> Entry:
    _, kind, state, inode = _MESSAGE.unpack_from(piece, at)
    at += _MESSAGE.size
    name, peer, receive_queue, send_queue = b"", 0, 0, 0
    file = device = 0
    waiting: tuple[int, ...] = ()
    while at < end:
        length, attribute = _ATTRIBUTE.unpack_from(piece, at)
        if length < 4 or at + length > end:
            raise DiagError("the kernel's list of Unix sockets is cut short")
        if attribute == _NAME:
            name = piece[at + 4 : at + length]
            if not name.startswith(b"\0"):
                name = name.rstrip(b"\0")
        elif attribute == _PEER:
            (peer,) = _NUMBER.unpack_from(piece, at + 4)
        elif attribute == _RQLEN:
            receive_queue, send_queue = _QUEUES.unpack_from(piece, at + 4)
        elif attribute == _VFS:
            file, number = _FILE.unpack_from(piece, at + 4)
            device = os.makedev(number >> _MINOR_BITS, number & ((1 << _MINOR_BITS) - 1))
        elif attribute == _ICONS:
            waiting = struct.unpack_from(f"={(length - 4) // 4}I", piece, at + 4)
        at += (length + 3) & ~3
    return Entry(inode, kind, state, name, peer, receive_queue, send_queue, file, device, waiting)


def _pieces(show: int) -> Iterator[bytes]:
    """Yield pieces of the kernel's answer, which may have no end: the reader looks for that."""
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        ) as asked:
            asked.sendto(request(show), (0, 0))
            while True:
                yield asked.recv(_PIECE)
    except OSError as error:
        raise DiagError(error.errno, error.strerror) from None


def listed() -> Iterator[Entry]:
    """List the sockets of the calling thread's network namespace.  Raises DiagError."""
    for piece in _pieces(_SHOW_NAME | _SHOW_VFS | _SHOW_PEER | _SHOW_ICONS | _SHOW_RQLEN):
        found, last = entries(piece)
        yield from found
        if last:
            return


def visit() -> None:
    """Have the kernel go through its sockets, for a hook on that path.  Raises DiagError."""
    for piece in _pieces(0):
        if entries(piece)[1]:
            return
