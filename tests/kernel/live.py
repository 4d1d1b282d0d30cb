"""A live capture for a test: the real extcap, a real fifo, and what came out of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng

CHECKOUT = Path(__file__).parents[2]
EXTCAP = CHECKOUT / "extcap" / "unixsock"

#: Seconds that compiling and attaching may take under emulation on a busy machine.
READY_TIMEOUT = 400


class Live:
    """The extcap capturing into memory from ``with`` on; ``records`` after it.

    ``messages`` are its stderr and ``status`` its exit status.  Ready means that a marker
    was captured, so the capture filter must let datagrams of this process through
    (``ready=False`` waits for nothing).  ``through``: a command that starts the extcap.
    """

    def __init__(
        self,
        *options: str,
        capture_filter: str = "",
        ready: bool = True,
        attach: str | None = None,
        through: list[str] | None = None,
        interface: str = "unixsock",
    ):
        self._folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.fifo = self._folder / "fifo"
        self._command = [
            *(through or []),
            str(EXTCAP),
            "--capture",
            "--extcap-interface",
            interface,
            "--fifo",
            str(self.fifo),
        ]
        if capture_filter:
            self._command += ["--extcap-capture-filter", capture_filter]
        self._command += options
        self._ready = ready
        self._environment = os.environ | ({"UNIXSOCK_ATTACH": attach} if attach else {})
        self._data = bytearray()
        #: Cleared: nobody reads the fifo.
        self.reading = threading.Event()
        self.reading.set()
        self.records: list[record.Record] = []
        self.packets: list[pcapng.Packet] = []
        self.messages = ""
        self.status: int | None = None

    def __enter__(self) -> Live:
        os.mkfifo(self.fifo)
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, env=self._environment)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if self._ready:
            try:
                self.wait_ready()
            except BaseException:
                self.process.kill()
                raise
        return self

    def _read(self) -> None:
        with open(self.fifo, "rb", buffering=0) as fifo:
            while data := fifo.read(1 << 20):
                self._data += data
                self.reading.wait()

    def wait_ready(self) -> None:
        """Send markers through a pair of our own until one is captured."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        def send(marker: bytes, _: socket.socket) -> None:
            here.send(marker)
            there.recv(100)

        with here, there:
            self.wait_ready_by(send)

    def wait_ready_by(self, send: Callable[[bytes, socket.socket], None]) -> None:
        """Call ``send`` with a marker and an unnamed datagram socket, until the marker is captured."""
        marker = b"marker " + os.urandom(8).hex().encode()
        deadline = time.monotonic() + READY_TIMEOUT
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            while marker not in self._data:
                if self.process.poll() is not None:
                    raise AssertionError(f"the extcap ended: {self.process.stderr.read().decode()}")
                assert time.monotonic() < deadline, "no marker was captured"
                send(marker, sender)
                time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the capture as Wireshark does, and reads what it delivered."""
        if self.status is not None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.messages = self.process.communicate(timeout=60)[1].decode()
        self.status = self.process.returncode
        self._reader.join(30)
        self.packets = list(pcapng.packets(bytes(self._data)))
        self.records = [record.decode(packet.data) for packet in self.packets]

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def save(self, path: Path) -> None:
        """What came out, as a file."""
        path.write_bytes(self._data)

    @property
    def blocks(self) -> list[tuple[int, bytes]]:
        """All blocks that came out: type and body."""
        return [(kind, bytes(body)) for kind, body in pcapng.blocks(bytes(self._data))]


def streams(records: list[record.Record]) -> dict[tuple[int, int], bytes]:
    """Payload by sending and receiving socket inode, put together by position.

    Asserts that no byte is there twice and none is missing.
    """
    out: dict[tuple[int, int], bytearray] = {}
    begin: dict[tuple[int, int], int] = {}
    for r in records:
        if r.event != record.Event.DATA:
            continue
        key = (r.src_sock, r.dst_sock)
        data = out.setdefault(key, bytearray())
        first = begin.setdefault(key, r.seq)
        assert r.seq - first + r.offset == len(data), f"position {r.seq}+{r.offset}, expected {len(data)}"
        data += r.payload
    return {key: bytes(data) for key, data in out.items()}


def accounted(sent: list[record.Record]) -> tuple[int, int, int]:
    """Messages and bytes that one socket's records of DATA and LOST make up, and how many messages were lost.

    Asserts that no position and no number is there twice or missing.
    """
    messages = size = lost = 0
    for r in sent:
        assert (r.seq, r.message) == (size, messages)
        count, length = r.lost[:2] if r.lost else (1, r.len)
        messages, size, lost = messages + count, size + length, lost + (count if r.lost else 0)
    return messages, size, lost


def decoded(batches: Iterable[Iterable[bytes | memoryview]]) -> list[record.Record]:
    """The records in batches of pcapng blocks."""
    head = pcapng.section_header("", "", "") + pcapng.interface("unixsock", "", 0)
    data = b"".join(bytes(block) for batch in batches for block in batch)
    return [record.decode(packet.data) for packet in pcapng.packets(head + data)]
