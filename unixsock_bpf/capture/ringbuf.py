"""Consumer of the BPF ring buffer: records in place, without copies.

Source: Documentation/bpf/ringbuf.rst.  A page with the consumer's position, a page with the
producer's, then the data twice in a row, so that no record is ever in two parts.  Each record
has a head of 8 bytes (u32 length with two flag bits, u32 page offset) and a length rounded up to 8.

The kernel stores a record's head before the position behind it, and its bytes before the length without the
flag that it is in the making.  They have to be loaded in the opposite order, and the consumer's position
stored after all loads.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from unixsock_bpf.linux.memory_order import needed_barrier

_BUSY = 1 << 31
_DISCARD = 1 << 30
_HEAD = 8


class Ring:
    """A consumer of the ring behind ``fd``, of ``size`` bytes (a power of two).

    ``barrier``: keeps memory accesses in order, where the processor does not.
    """

    def __init__(self, fd: int, size: int, barrier: Callable[[], None] | None = None) -> None:
        self._barrier = barrier or needed_barrier()
        page = mmap.PAGESIZE
        self.fd = fd
        self.size = size
        self._consumer_map = mmap.mmap(fd, page, flags=mmap.MAP_SHARED)
        self._producer_map = mmap.mmap(
            fd, page + 2 * size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=page
        )
        self._consumer = memoryview(self._consumer_map).cast("Q")
        producer = memoryview(self._producer_map)
        self._producer = producer[:page].cast("Q")
        self._data = producer[page:]
        self._words = self._data.cast("I")
        self._next = self._consumer[0]

    def take(
        self,
        most: int,
        space: int,
        plain: int,
        other: Callable[[memoryview], bytes | None],
    ) -> list[memoryview | bytes]:
        """Return the next whole records in place: at most ``most``, which begin within ``space`` bytes.

        Those whose first word is not ``plain`` go through ``other``, which gives bytes for them or
        None.  Records stay valid until ``release``.
        """
        # This loop is what a record costs in Python: it has no call but the slice and the append.
        at, data, words, mask = self._next, self._data, self._words, self.size - 1
        end = min(self._producer[0], at + space)
        if self._barrier and at < end:
            end = self._end_of_whole(at, end, self._barrier)
        taken: list[memoryview | bytes] = []
        add = taken.append
        while at < end and len(taken) < most:
            start = at & mask
            word = start >> 2
            length = words[word]
            if length >= _DISCARD:
                if length & _BUSY:
                    break
                at += _HEAD + (length - _DISCARD + 7 & ~7)
                continue
            start += _HEAD
            record = data[start : start + length]
            at += _HEAD + (length + 7 & ~7)
            if words[word + 2] == plain:
                add(record)
            elif made := other(record):
                add(made)
        self._next = at
        return taken

    def _end_of_whole(self, at: int, end: int, barrier: Callable[[], None]) -> int:
        """Return where the whole records end that lie from ``at`` to ``end``, in order and without a gap."""
        barrier()
        words, mask = self._words, self.size - 1
        while at < end:
            length = words[(at & mask) >> 2]
            if length & _BUSY:
                break
            at += _HEAD + ((length & ~_DISCARD) + 7 & ~7)
        barrier()
        return at

    def release(self) -> int:
        """Give the space of all taken records back to the kernel; return how many bytes that is."""
        if self._barrier:
            self._barrier()
        released: int = self._next - self._consumer[0]
        self._consumer[0] = self._next
        return released

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return self._next >= self._producer[0]

    @property
    def waiting(self) -> int:
        """Bytes that wait to be taken."""
        return self._producer[0] - self._next

    @property
    def held(self) -> int:
        """Bytes that the kernel can't use: those that wait, and those that were not released yet."""
        return self._producer[0] - self._consumer[0]
