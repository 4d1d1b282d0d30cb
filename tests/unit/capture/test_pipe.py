"""From ring to fifo with everything but the kernel: a burst larger than ring and pipe, and a slow reader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kernel_ring import PLAIN, SIZE, Kernel
from fake_ring import probe
from patience import soon

from unixsock_bpf.capture.pipe import PIPE_SIZE, PipePump, PipeWriter
from unixsock_bpf.capture.ringbuf import Ring
from unixsock_bpf.capture.session import Capture
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege import protocol


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    fd = os.memfd_create("ring")
    yield Kernel(fd)
    os.close(fd)


def test_a_burst_comes_through_a_slow_reader(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "_attach", lambda *_: (probe(), Ring(kernel.fd, SIZE)))
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    writer = PipeWriter(fd)
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
        drain = PipePump(capture, writer, 1)
        threads = [threading.Thread(target=work) for work in (talk, read)]
        for thread in threads:
            thread.start()
        drain.run()
        os.close(fd)
        for thread in threads:
            thread.join(30)
    os.close(reader)
    assert bytes(seen[: -len(END)]) == b"".join(said)
    assert seen[-len(END) : -len(END) + 4] == END[:4]


END = pcapng.statistics(0, 0, 0)

#: The privileged helper from where the probe is attached, on a ring that the test fills.
PRIVILEGED = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "fakes")!r})
import fake_ring
from unixsock_bpf.capture.session import Capture
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege import helper
from unixsock_bpf.capture.ringbuf import Ring
Capture._attach = lambda *_: (fake_ring.probe(), Ring(int(sys.argv[1]), {SIZE}))
helper._signal_on_input()
helper._drain(Capture(Settings()).__enter__(), 65534, [], Settings(buffer_mib=8))
os._exit(0)
"""


def test_the_privileged_helper_keeps_what_nobody_reads(kernel: Kernel) -> None:
    """A burst of more than ring and pipe hold is over before anybody reads it, in the real confinement."""
    privileged = subprocess.Popen(
        [sys.executable, "-c", PRIVILEGED, str(kernel.fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[kernel.fd],
        bufsize=0,
    )
    assert privileged.stdin
    assert privileged.stdout
    assert privileged.stderr
    assert privileged.stderr.readline() == protocol.encode_report("attached", "fentry")
    said = []
    deadline = time.monotonic() + soon(30)
    for number in range(4000):
        while kernel.at - kernel.consumed > SIZE - 2000:
            assert time.monotonic() < deadline, "the ring is not emptied while nobody reads"
            time.sleep(0.001)
        said.append(kernel.write(PLAIN, number.to_bytes(4, "little") * 300))
    assert sum(map(len, said)) > PIPE_SIZE + SIZE
    seen = bytearray()

    def read() -> None:
        while data := privileged.stdout.read(100_000):
            seen.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    while len(seen) < sum(map(len, said)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(seen) == sum(map(len, said))  # without a further message to push it
    privileged.stdin.close()
    reader.join(10)
    assert privileged.stderr.read() == protocol.encode_report("ended", {"messages": 0, "lost": 0})
    assert privileged.wait(10) == 0
    assert bytes(seen[: -len(END)]) == b"".join(said)
    for pipe in (privileged.stdout, privileged.stderr):
        pipe.close()
