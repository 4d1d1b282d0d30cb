"""io_uring through raw system calls: one operation at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time

_SETUP, _ENTER, _REGISTER = 425, 426, 427  # the same on all architectures
_REGISTER_BUFFERS, _REGISTER_FILES = 0, 2
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000
_GETEVENTS, _SQ_WAKEUP = 1, 2
_NEED_WAKEUP = 1
_FIXED_FILE, _ASYNC = 1 << 0, 1 << 4
_SQPOLL = 1 << 1

WRITE_FIXED, WRITE, SEND = 5, 23, 26

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


class Ring:
    """A ring for operations on ``fd``; with ``kernel_thread`` the kernel has a thread submit them."""

    def __init__(self, fd: int, kernel_thread: bool = False) -> None:
        params = ctypes.create_string_buffer(120)
        struct.pack_into("<IIIII", params, 0, 0, 0, _SQPOLL if kernel_thread else 0, 0, 5000)
        self._fd = _call(_SETUP, 4, params)
        entries, cq_entries = struct.unpack_from("<II", params, 0)
        (_, self._tail, self._mask, _, self._flags, _, self._array) = struct.unpack_from("<7I", params, 40)
        (self._cq_head, self._cq_tail, self._cq_mask, _, _, self._cqes) = struct.unpack_from(
            "<6I", params, 80
        )
        self._sq = mmap.mmap(self._fd, self._array + 4 * entries, offset=_SQ_RING)
        self._cq = mmap.mmap(self._fd, self._cqes + 16 * cq_entries, offset=_CQ_RING)
        self._sqes = mmap.mmap(self._fd, 64 * entries, offset=_SQES)
        self._kernel_thread = kernel_thread
        _call(_REGISTER, self._fd, _REGISTER_FILES, struct.pack("<i", fd), 1)

    def _word(self, ring: mmap.mmap, at: int) -> int:
        return int(struct.unpack_from("<I", ring, at)[0])

    def run(self, operation: int, data: bytes, *, worker: bool = False) -> int:
        """The result of ``operation`` with ``data``; ``worker`` has one of io_uring's own threads do it."""
        buffer = ctypes.create_string_buffer(data, len(data))
        address = ctypes.addressof(buffer)
        if operation == WRITE_FIXED:
            _call(_REGISTER, self._fd, _REGISTER_BUFFERS, struct.pack("<QQ", address, len(data)), 1)
        tail = self._word(self._sq, self._tail)
        index = tail & self._word(self._sq, self._mask)
        offset = 0 if operation == SEND else (1 << 64) - 1  # -1: no position
        sqe = struct.pack(
            "<BBHiQQIIQ",
            operation,
            _FIXED_FILE | (_ASYNC if worker else 0),
            0,
            0,
            offset,
            address,
            len(data),
            0,
            0,
        )
        self._sqes[index * 64 : index * 64 + 64] = sqe.ljust(64, b"\0")
        struct.pack_into("<I", self._sq, self._array + 4 * index, index)
        struct.pack_into("<I", self._sq, self._tail, tail + 1)
        if not self._kernel_thread:
            _call(_ENTER, self._fd, 1, 1, _GETEVENTS, None, 0)
        deadline = time.monotonic() + 20
        while True:
            head = self._word(self._cq, self._cq_head)
            if head != self._word(self._cq, self._cq_tail):
                break
            if self._kernel_thread and self._word(self._sq, self._flags) & _NEED_WAKEUP:
                _call(_ENTER, self._fd, 1, 0, _SQ_WAKEUP, None, 0)
            assert time.monotonic() < deadline, "io_uring gave no result"
            time.sleep(0.01)
        at = self._cqes + 16 * (head & self._word(self._cq, self._cq_mask))
        (result,) = struct.unpack_from("<i", self._cq, at + 8)
        struct.pack_into("<I", self._cq, self._cq_head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def close(self) -> None:
        """Frees it."""
        for part in (self._sqes, self._cq, self._sq):
            part.close()
        os.close(self._fd)
