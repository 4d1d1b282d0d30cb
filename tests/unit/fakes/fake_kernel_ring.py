"""The kernel's side of a ring buffer, in a file."""

from __future__ import annotations

import mmap
import os
import struct
import time

from unixsock_bpf.formats import pcapng

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE
PLAIN, OTHER = 6, 77


class Kernel:
    """Writes records.  A file has no data area mapped twice in a row, so each byte is written to both."""

    def __init__(self, fd: int) -> None:
        os.ftruncate(fd, 2 * PAGE + 2 * SIZE)
        self.fd = fd
        self.at = 0

    def write(self, first: int, body: bytes, flags: int = 0) -> bytes:
        record = struct.pack("<I", first) + body
        whole = struct.pack("<II", len(record) | flags, 0) + record
        start = self.at % SIZE
        for copy in range(2):
            os.pwrite(self.fd, whole[: 2 * SIZE - start - copy * SIZE], 2 * PAGE + copy * SIZE + start)
        if start + len(whole) > SIZE:  # the part behind the end is the beginning, too
            os.pwrite(self.fd, whole[SIZE - start :], 2 * PAGE)
        self.at += -(-len(whole) // 8) * 8
        os.pwrite(self.fd, struct.pack("<Q", self.at), PAGE)
        return record

    def write_block(self, block: bytes) -> None:
        """Writes a pcapng packet as soon as there is room, which senders would not wait for."""
        deadline = time.monotonic() + 30
        while self.at - self.consumed > SIZE - 2 * len(block) - 64:
            assert time.monotonic() < deadline, "the ring is not emptied"
            time.sleep(0.001)
        self.write(pcapng.EPB, block[4:])

    @property
    def consumed(self) -> int:
        (position,) = struct.unpack("<Q", os.pread(self.fd, 8, 0))
        assert isinstance(position, int)
        return position
