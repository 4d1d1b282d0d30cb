"""A capture of everything, whatever carries what it writes, does not feed on itself.

On an idle machine the output must not grow after it has started, and one message of another program
must add one record.  Without what is tested here, eleven bytes became hundreds of megabytes in 30 s.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from live import CHECKOUT, READY_TIMEOUT

#: Seconds in which nothing may grow.
QUIET = 5
DUMP = [sys.executable, "-m", "unixsock_bpf", "dump"]
MARKER = b"one message"

#: Passes on what comes in by descriptor 0, in ways of relays.  What it writes to is not its standard
#: output, so that only what it says can show where that goes.
RELAY = """
import json, os
out = os.dup(1)
os.dup2(2, 1)
os.setuid({uid})
"""
RELAYS = {
    "raw": "while data := os.read(0, 65536): os.write(out, data)",
    "small": "while data := os.read(0, 50): os.write(out, data)",
    "lines": "for line in os.fdopen(0, 'rb'): os.write(out, b'<30>host unixsock[7]: ' + line.rstrip(b'\\n'))",
    "framed": "while data := os.read(0, 32768): os.write(out, bytes([1, 0, 0, len(data) % 256]) + data)",
    "escaped": "for line in os.fdopen(0): os.write(out, json.dumps({'log': line}).encode())",
}


class Reader:
    """Counts what comes out of a socket."""

    def __init__(self, end: socket.socket) -> None:
        self.data = b""
        self._end = end
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._end.recv(1 << 20):
                self.data += data

    def settle(self) -> None:
        """Wait until something came, and nothing has for a while."""
        before, deadline = len(self.data), time.monotonic() + 60
        while len(self.data) == before and time.monotonic() < deadline:
            time.sleep(0.2)
        while self.grown(3) and time.monotonic() < deadline:
            pass

    def wait_for(self, text: bytes) -> None:
        """Wait until ``text`` came."""
        deadline = time.monotonic() + READY_TIMEOUT
        while text not in self.data:
            assert time.monotonic() < deadline, self.data[-2000:]
            time.sleep(0.2)

    def grown(self, seconds: float) -> int:
        """Bytes that come in ``seconds``."""
        before = len(self.data)
        time.sleep(seconds)
        return len(self.data) - before


@contextlib.contextmanager
def relayed(
    kind: str, count: int, uid: int, *options: str
) -> Iterator[tuple[Reader, subprocess.Popen[bytes]]]:
    """A capture of everything through ``count`` processes of user ``uid``; the last writes to the reader."""
    ours, output = socket.socketpair()
    dump = subprocess.Popen([*DUMP, *options, "*"], stdout=output, stderr=subprocess.PIPE, cwd=CHECKOUT)
    output.close()
    relays = []
    # Lines keep apart as datagrams do; others are streams.
    kinds = socket.SOCK_DGRAM if kind in ("lines", "escaped") else socket.SOCK_STREAM
    for _ in range(count):
        following, output = socket.socketpair(socket.AF_UNIX, kinds)
        script = RELAY.format(uid=uid) + RELAYS[kind]
        relays.append(subprocess.Popen([sys.executable, "-c", script], stdin=ours, stdout=output))
        ours.close()
        output.close()
        ours, kind = following, "raw"
    try:
        wait_capturing(dump)
        yield Reader(ours), dump
    finally:
        for process in (dump, *relays):
            process.kill()
            process.wait()


def wait_capturing(dump: subprocess.Popen[bytes]) -> str:
    """Its first sentence."""
    assert dump.stderr is not None
    said = dump.stderr.readline().decode()
    assert "capturing" in said, said + dump.stderr.read().decode()
    return said


def one_message() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.send(MARKER)
        there.recv(99)


def stopped(dump: subprocess.Popen[bytes]) -> str:
    """Ends it; what it said."""
    assert dump.stderr is not None
    dump.send_signal(signal.SIGINT)
    said = dump.stderr.read().decode()
    assert dump.wait(60) == 0
    return said


@pytest.mark.parametrize(
    ("kind", "count", "uid", "form"),
    [
        ("raw", 1, 0, "string"),
        ("raw", 2, 0, "json"),
        ("raw", 3, 65534, "pcapng"),
        ("small", 2, 0, "hex"),
        ("lines", 2, 65534, "string"),
        ("framed", 2, 65534, "pcapng"),
        ("escaped", 2, 0, "json"),
    ],
)
def test_relays(kind: str, count: int, uid: int, form: str) -> None:
    with relayed(kind, count, uid, "--format", form) as (reader, dump):
        for _ in range(3):  # a relay that is not trusted has to repeat three
            one_message()
            reader.settle()
        assert MARKER in reader.data or form in ("json", "hex")
        assert len(reader.data) < 16_384
        assert reader.grown(QUIET) == 0
        said = stopped(dump)
        assert count == 1 or "left out that repeat this output: python" in said
