"""Threads that block in the middle of a send: their pages come by userfaultfd, when the test lets them.

Source: linux/userfaultfd.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
from types import TracebackType

#: userfaultfd(2) by machine.
_NUMBER = {"x86_64": 323, "aarch64": 282}
_API, _REGISTER, _ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
_VERSION, _MODE_MISSING, _MESSAGE_SIZE = 0xAA, 1, 32
#: Seconds until all threads are in the middle of it, on a busy machine.
_TIMEOUT = 60


class BlockedSenders:
    """``count`` threads of this process, each with a stream of its own, that have begun to send a page.

    At the end of ``with`` the pages come, and all is sent.  ``sent``: the inodes of the sending sockets.
    """

    def __init__(self, count: int) -> None:
        self._pairs = [socket.socketpair() for _ in range(count)]
        self.sent = {os.fstat(sender.fileno()).st_ino for sender, _ in self._pairs}
        self._memory = mmap.mmap(-1, count * mmap.PAGESIZE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._threads = [
            threading.Thread(target=self._send, args=(sender, at))
            for at, (sender, _) in enumerate(self._pairs)
        ]

    def _send(self, sender: socket.socket, at: int) -> None:
        address = ctypes.c_void_p(self._address + at * mmap.PAGESIZE)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.send(sender.fileno(), address, ctypes.c_size_t(mmap.PAGESIZE), 0) == mmap.PAGESIZE

    def __enter__(self) -> BlockedSenders:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(ctypes.c_long(_NUMBER[os.uname().machine]), os.O_CLOEXEC | os.O_NONBLOCK)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        fcntl.ioctl(self._fd, _API, struct.pack("<3Q", _VERSION, 0, 0))
        whole = struct.pack("<4Q", self._address, len(self._memory), _MODE_MISSING, 0)
        fcntl.ioctl(self._fd, _REGISTER, whole)
        for thread in self._threads:
            thread.start()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        faults = 0
        while faults < len(self._threads):
            assert poll.poll(_TIMEOUT * 1000), f"{faults} of {len(self._threads)} threads block"
            faults += len(os.read(self._fd, 64 * _MESSAGE_SIZE)) // _MESSAGE_SIZE
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.ioctl(self._fd, _ZEROPAGE, struct.pack("<4Q", self._address, len(self._memory), 0, 0))
        for thread in self._threads:
            thread.join(_TIMEOUT)
        os.close(self._fd)
        for pair in self._pairs:
            for one in pair:
                one.close()
