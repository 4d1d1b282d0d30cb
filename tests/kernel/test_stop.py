"""However a capture ends, what was captured is delivered and nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest
from leftovers import SOON, gone
from live import READY_TIMEOUT, Live
from patience import soon

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_in_the_middle_of_a_burst_loses_nothing(number: signal.Signals) -> None:
    left, right = socket.socketpair()
    with left, right, Live() as live:
        inode = os.fstat(left.fileno()).st_ino
        for n in range(5000):
            left.send(n.to_bytes(4, "little"))
            right.recv(4)
        begin = time.monotonic()
        live.stop(number)
        assert time.monotonic() - begin < soon(SOON)
    assert live.status == 0
    assert live.messages == ""
    ours = [r.payload for r in live.records if r.src_inode == inode and r.event == Event.DATA]
    assert ours == [n.to_bytes(4, "little") for n in range(5000)]
    assert live.blocks[-1][0] == pcapng.ISB
    gone()


def test_a_reader_that_goes_away_ends_it() -> None:
    live = Live(ready=False)
    os.mkfifo(live.fifo)
    process = subprocess.Popen(live._command, stderr=subprocess.PIPE)
    reader = os.open(live.fifo, os.O_RDONLY)
    assert os.read(reader, 4) == b"\x0a\x0d\x0d\x0a"
    time.sleep(1)
    os.close(reader)
    # It may still be compiling: that it finishes.
    assert process.wait(READY_TIMEOUT) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    gone()
