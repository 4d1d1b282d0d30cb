"""The ring's reader, on a ring that the test fills as the kernel does."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from fake_kernel_ring import OTHER, PAGE, PLAIN, SIZE, Kernel

from unixsock_bpf.capture.ringbuf import Ring


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    fd = os.memfd_create("ring")
    yield Kernel(fd)
    os.close(fd)


def take(ring: Ring, most: int = 1000, space: int = SIZE) -> list[bytes]:
    return [bytes(record) for record in ring.take(most, space, PLAIN, lambda data: b"made of " + data)]


def test_records_come_whole_and_in_order_for_many_rounds(kernel: Kernel) -> None:
    ring = Ring(kernel.fd, SIZE)
    for number in range(500):
        written = [kernel.write(PLAIN, bytes([number % 256]) * (number * size % 3001)) for size in (1, 7, 13)]
        assert take(ring) == written
        assert ring.empty
        ring.release()
        assert kernel.consumed == kernel.at


def test_other_records_are_translated_or_left_out(kernel: Kernel) -> None:
    ring = Ring(kernel.fd, SIZE)
    first, other, last = kernel.write(PLAIN, b"1"), kernel.write(OTHER, b"2"), kernel.write(PLAIN, b"3")
    assert take(ring) == [first, b"made of " + other, last]
    kernel.write(OTHER, b"")
    assert ring.take(9, SIZE, PLAIN, lambda _: None) == []
    assert ring.empty


def test_a_record_in_the_making_stops_the_reader_and_a_discarded_one_does_not(kernel: Kernel) -> None:
    ring = Ring(kernel.fd, SIZE)
    first = kernel.write(PLAIN, b"1")
    kernel.write(PLAIN, b"discarded", 1 << 30)
    second = kernel.write(PLAIN, b"2")
    at = kernel.at
    kernel.write(PLAIN, b"busy", 1 << 31)
    third = kernel.write(PLAIN, b"3")
    assert take(ring) == [first, second]
    assert take(ring) == []
    assert not ring.empty
    os.pwrite(kernel.fd, struct.pack("<I", 8), 2 * PAGE + at)  # committed
    assert take(ring) == [struct.pack("<I", PLAIN) + b"busy", third]


def test_a_batch_has_bounds(kernel: Kernel) -> None:
    ring = Ring(kernel.fd, SIZE)
    written = [kernel.write(PLAIN, bytes(100)) for _ in range(100)]
    assert ring.waiting == kernel.at
    assert take(ring, most=30) == written[:30]
    ring.release()
    assert take(ring, space=10 * 112) == written[30:40]
    assert take(ring) == written[40:]
    assert kernel.consumed == 30 * 112
    ring.release()
    assert kernel.consumed == kernel.at


def test_where_loads_are_reordered_barriers_keep_each_in_its_place(kernel: Kernel) -> None:
    """A processor may load early, until the barrier, what the kernel stores before what was loaded."""
    stale = struct.pack("<II", 8, 0) + struct.pack("<I", PLAIN) + b"old\0"
    late: list[tuple[bytes, int]] = []

    def barrier() -> None:
        for _ in range(min(len(late), 1)):
            data, at = late.pop(0)
            os.pwrite(kernel.fd, data, at)

    ring = Ring(kernel.fd, SIZE, barrier)
    first, second = kernel.write(PLAIN, b"the first"), kernel.write(PLAIN, b"the second")
    # Before the barrier behind the position, the head is one of the last round; before that behind the
    # length, so are the bytes.
    heads = struct.pack("<II", len(first), 0)
    for data, at in ((stale, 0), (stale[8:], 8)):
        os.pwrite(kernel.fd, data, 2 * PAGE + at)
    late += [(heads, 2 * PAGE), (first, 2 * PAGE + 8)]
    assert take(ring) == [first, second]
    assert not late


def test_where_stores_are_reordered_space_is_given_back_behind_a_barrier(kernel: Kernel) -> None:
    consumed: list[int] = []
    ring = Ring(kernel.fd, SIZE, lambda: consumed.append(kernel.consumed))
    kernel.write(PLAIN, b"1")
    assert len(take(ring)) == 1
    consumed.clear()
    ring.release()
    assert consumed == [0]
    assert kernel.consumed == kernel.at


def test_with_barriers_records_in_the_making_stop_the_reader(kernel: Kernel) -> None:
    ring = Ring(kernel.fd, SIZE, lambda: None)
    first = kernel.write(PLAIN, b"1")
    kernel.write(PLAIN, b"discarded", 1 << 30)
    kernel.write(PLAIN, b"busy", 1 << 31)
    assert take(ring) == [first]
    assert take(ring) == []
    assert not ring.empty
