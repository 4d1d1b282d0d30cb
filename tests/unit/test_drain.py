"""From ring to fifo with everything but the kernel: a burst larger than ring and pipe, and a slow reader."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from test_ring import PLAIN, SIZE, Kernel

from unixsock_bpf.capture import Capture
from unixsock_bpf.fifo import Writer
from unixsock_bpf.options import Settings
from unixsock_bpf.ring import Ring


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    fd = os.memfd_create("ring")
    yield Kernel(fd)
    os.close(fd)


def test_a_burst_comes_through_a_slow_reader(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SimpleNamespace(settings=[0] * 8, totals=[0] * 16, detach=lambda: None)
    monkeypatch.setattr(Capture, "_attach", lambda *_: (probe, Ring(kernel.fd, SIZE)))
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    writer = Writer(fd)
    said, seen = [], bytearray()

    def talk() -> None:
        for number in range(3000):
            while kernel.at - kernel.consumed > SIZE - 2000:  # the kernel would lose it
                time.sleep(0.001)
            said.append(kernel.write(PLAIN, number.to_bytes(4, "little") * (number % 300)))
        capture.stop()

    def read() -> None:
        while data := os.read(reader, 10_000):
            seen.extend(data)
            time.sleep(0.0002)

    with Capture(Settings()) as capture:
        writer.spill, writer.pressed = 2 * SIZE, lambda: capture.pressed
        threads = [threading.Thread(target=work) for work in (talk, read)]
        for thread in threads:
            thread.start()
        for batch in capture.blocks():
            writer.write(batch)
        writer.write([b"the end"])
        os.close(fd)
        for thread in threads:
            thread.join(30)
    os.close(reader)
    assert bytes(seen) == b"".join(said) + b"the end"
