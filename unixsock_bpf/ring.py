"""The BPF ring buffer as the reader sees it: records in place, without copies.

Source: Documentation/bpf/ringbuf.rst.  A page with the consumer's position, a page with the
producer's, then the data twice in a row, so that no record is ever in two parts.  Each record
has a head of 8 bytes (u32 length with two flag bits, u32 page offset) and a length rounded up to 8.
"""

from __future__ import annotations

import mmap
import struct

_HEAD = struct.Struct("<III")  # length and flags, page offset, first word of the record
_BUSY = 1 << 31
_DISCARD = 1 << 30


class Ring:
    """A consumer of the ring behind ``fd``, of ``size`` bytes (a power of two)."""

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.fd = fd
        self._mask = size - 1
        self._consumer_map = mmap.mmap(fd, page, flags=mmap.MAP_SHARED)
        self._producer_map = mmap.mmap(
            fd, page + 2 * size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=page
        )
        self._consumer = memoryview(self._consumer_map).cast("Q")
        producer = memoryview(self._producer_map)
        self._producer = producer[:page].cast("Q")
        self._data = producer[page:]
        self._next = self._consumer[0]

    def take(self, most: int) -> list[tuple[int, memoryview]]:
        """The next whole records, at most ``most``: each one's first word, and its bytes in place.

        They stay valid until ``release``.
        """
        at, end, data, mask = self._next, self._producer[0], self._data, self._mask
        unpack = _HEAD.unpack_from
        taken: list[tuple[int, memoryview]] = []
        while at < end and len(taken) < most:
            start = at & mask
            length, _, first = unpack(data, start)
            if length & _BUSY:
                break
            size = length & ~_DISCARD
            if size == length:
                taken.append((first, data[start + 8 : start + 8 + size]))
            at += 8 + (size + 7 & ~7)
        self._next = at
        return taken

    def release(self) -> None:
        """Gives the space of all taken records back to the kernel."""
        self._consumer[0] = self._next

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return self._next >= self._producer[0]
