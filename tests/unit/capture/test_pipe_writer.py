"""The fifo's writer: everything goes out once and in order, and the ring is drained while nobody reads."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator

import pytest
from patience import soon

from unixsock_bpf.capture.pipe import PipeWriter, ReaderGone


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    yield reader, fd
    for one in (reader, fd):
        with contextlib.suppress(OSError):  # the test closed it
            os.close(one)


def read_all(reader: int, into: bytearray, pause: float = 0.0) -> threading.Thread:
    def run() -> None:
        while data := os.read(reader, 65_536):
            into.extend(data)
            time.sleep(pause)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def batches(count: int) -> list[list[bytes]]:
    chance = random.Random(7)
    return [[chance.randbytes(chance.choice((0, 8, 300, 70_000))) for _ in range(200)] for _ in range(count)]


@pytest.mark.parametrize("filling", [False, True])
def test_all_goes_out_in_order(pipe: tuple[int, int], filling: bool) -> None:
    """``filling``: the ring is full each second time that anybody asks."""
    reader, fd = pipe
    writer = PipeWriter(fd)
    asked = iter(range(10**9))
    if filling:
        writer.overflow_bytes, writer.filling = 20_000_000, lambda: next(asked) % 2 == 0
    seen = bytearray()
    thread = read_all(reader, seen, 0.001)
    said = batches(12)
    for batch in said:
        # As with the ring: what was handed in is overwritten later.
        buffers = [bytearray(block) for block in batch]
        writer.write([memoryview(buffer) for buffer in buffers])
        for buffer in buffers:
            buffer[:] = bytes(len(buffer))
    writer.filling = lambda: False
    writer.write([])
    end = sum(len(block) for batch in said for block in batch)
    deadline = time.monotonic() + soon(30)
    while len(seen) < end and time.monotonic() < deadline:
        time.sleep(0.01)
    os.close(fd)
    thread.join(10)
    assert bytes(seen) == b"".join(block for batch in said for block in batch)


def test_the_ring_is_drained_while_nobody_reads(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = PipeWriter(fd)
    writer.overflow_bytes, writer.filling = 8_000_000, lambda: True
    block = bytes(range(256)) * 400
    for _ in range(60):  # 6 MB: more than the pipe holds
        writer.write([block])
    seen = bytearray()
    thread = read_all(reader, seen)
    writer.filling = lambda: False
    writer.write([b"the end"])
    os.close(fd)
    thread.join(10)
    assert bytes(seen) == block * 60 + b"the end"


def test_what_is_kept_is_bounded(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = PipeWriter(fd)
    writer.overflow_bytes, writer.filling = 500_000, lambda: True
    seen = bytearray()
    starter = threading.Timer(0.3, lambda: threads.append(read_all(reader, seen)))
    threads: list[threading.Thread] = []
    began = time.monotonic()
    used = time.process_time()
    starter.start()
    for _ in range(30):
        writer.write([bytes(100_000)])
    assert time.monotonic() - began > 0.2  # it had to wait for the reader
    assert time.process_time() - used < (time.monotonic() - began) / 2  # and did so asleep
    writer.filling = lambda: False
    writer.write([])
    os.close(fd)
    starter.join()
    threads[0].join(10)
    assert len(seen) == 3_000_000


def test_a_reader_that_is_gone_ends_it(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    os.close(reader)
    with pytest.raises(ReaderGone):
        PipeWriter(fd).write([b"x"])


def test_once_stopped_a_reader_that_does_not_read_is_given_up(pipe: tuple[int, int]) -> None:
    writer = PipeWriter(pipe[1])
    writer.stopping = True
    began = time.monotonic()
    with pytest.raises(ReaderGone):
        writer.write([bytes(5_000_000)])
    assert time.monotonic() - began < soon(5)
