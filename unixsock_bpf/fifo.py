"""``--capture``: from a live capture into the fifo that Wireshark's dumpcap reads.

The order of the first steps is what keeps Wireshark from waiting for ever: the toolbar's
pipe, then the fifo, then the file header, and only then the slow work.  What goes wrong is
told on stderr once both are open, because Wireshark listens only then.
"""

from __future__ import annotations

import errno
import os
import platform
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unixsock_bpf import __version__, pcapng
from unixsock_bpf.pipes import widen

if TYPE_CHECKING:
    from unixsock_bpf.capture import Block, Capture, Statistics
    from unixsock_bpf.options import Settings
    from unixsock_bpf.privilege.client import RemoteCapture

#: Seconds that dumpcap may take to open its end of the fifo.
OPEN_TIMEOUT = 30.0
#: Seconds without progress after which a reader that stopped reading is given up, once we were stopped.
STOP_TIMEOUT = 0.8


class FifoError(OSError):
    """The fifo can't be written to: says why."""


class ReaderGone(Exception):
    """Nobody reads the fifo any more: a normal way to stop."""


def open_fifo(path: str | None) -> int:
    """The fifo for writing, without blocking in writes.  Raises FifoError."""
    if not path:
        raise FifoError("--capture needs --fifo")
    deadline = time.monotonic() + OPEN_TIMEOUT
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that: nobody has opened it for reading yet
                raise FifoError(f"the fifo {path} can't be opened: {error.strerror}") from None
            if time.monotonic() > deadline:
                raise FifoError(
                    f"nobody opened the fifo {path} for reading in {OPEN_TIMEOUT:.0f} s"
                ) from None
        time.sleep(0.01)


def file_header(settings: Settings) -> bytes:
    """The blocks that begin a capture file."""
    system = platform.uname()
    section = pcapng.section_header(
        system.machine, f"{system.system} {system.release}", f"unixsock {__version__}"
    )
    return section + pcapng.interface("unixsock", "Unix sockets", 0, settings.filter.text)


def _fail(sentence: str) -> int:
    sys.stderr.buffer.write(sentence.encode(errors="replace") + b"\n")
    sys.stderr.flush()
    return 1


def run_refused(fifo: str | None, control_in: str | None, sentence: str) -> int:
    """Tells Wireshark why there is no capture, in the order in which it listens.  Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        if control_in:
            os.open(control_in, os.O_RDONLY | os.O_CLOEXEC)
        open_fifo(fifo)
    except OSError:
        pass  # then the sentence is all there is to say
    return _fail(sentence)


class Writer:
    """Writes batches of blocks to the fifo, whole and in order, however slowly it is read.

    While the fifo takes nothing and ``pressed`` says that the ring fills up, up to ``spill`` bytes
    are kept here instead, so that the ring can be drained.  What is kept goes out before all else.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept: list[Block] = []
        self.spill = 0
        self.pressed: Callable[[], bool] = lambda: False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        #: Set when the capture was stopped: then a reader that does not read is given up.
        self.stopping = False
        widen(fd)

    def keep_for(self, capture: Capture, settings: Settings) -> None:
        """Keeps as much as ``capture``'s ring holds while that fills up."""
        self.spill = settings.buffer_mib << 20
        self.pressed = lambda: capture.pressed

    def write(self, blocks: Sequence[Block]) -> None:
        """Raises ReaderGone.

        Returns when all is written, or kept because the ring fills up: then write again soon.
        """
        rest = [*self._kept, *(block for block in blocks if len(block))]
        old = len(self._kept)
        self._kept = []
        while rest:
            try:
                written = os.writev(self._fd, rest[:1024])
            except BlockingIOError:
                room = sum(map(len, rest)) <= self.spill
                if room and self.pressed():
                    self._kept = [*rest[:old], b"".join(rest[old:])]
                    return
                self._wait(room)
                continue
            except BrokenPipeError:
                raise ReaderGone from None
            done = 0
            for block in rest:
                if written < len(block):
                    break
                written -= len(block)
                done += 1
            del rest[:done]
            old = max(0, old - done)
            if written:
                rest[0] = memoryview(rest[0])[written:]

    def _wait(self, room: bool) -> None:
        """Until the reader has read something, or the ring fills up and there is ``room`` to keep more."""
        waited = 0.0
        while not self._poll.poll(20):
            waited += 0.02
            if not self.stopping:
                waited = 0.0
            elif waited >= STOP_TIMEOUT:
                raise ReaderGone
            if room and self.pressed():
                return


def run(settings: Settings) -> int:
    """Captures into ``settings.fifo`` until told to stop.  Returns the exit status."""
    # Until something is captured, a signal may simply end us: the kernel takes the probes out.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    control = None
    try:
        if settings.control_in:
            control = os.open(settings.control_in, os.O_RDONLY | os.O_CLOEXEC)
        fd = open_fifo(settings.fifo)
    except OSError as error:
        return _fail(str(error))
    writer = Writer(fd)
    try:
        writer.write([file_header(settings)])
        return _capture(settings, writer, fd, control)
    except ReaderGone:
        return 0


def _capture(settings: Settings, writer: Writer, fd: int, control: int | None) -> int:
    from unixsock_bpf.privilege.client import RemoteCapture, source
    from unixsock_bpf.probe.errors import ProbeError

    capture = source(settings, fd)
    if not isinstance(capture, RemoteCapture):  # which has a writer of its own
        writer.keep_for(capture, settings)
    try:
        with capture:
            _watch(capture, writer, fd)
            if control is not None:
                from unixsock_bpf.toolbar import Toolbar

                Toolbar(capture, settings, control).start()
            for batch in capture.blocks():
                writer.write(batch)
            if not isinstance(capture, RemoteCapture):  # which has written it
                writer.write([_final(capture.statistics)])
    except ProbeError as error:
        return _fail(str(error))
    return 0


def _watch(capture: Capture | RemoteCapture, writer: Writer, fd: int) -> None:
    """Stops on SIGTERM, SIGINT, and when the fifo is closed."""

    def stop(*_: object) -> None:
        writer.stopping = True
        capture.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    capture.watch(fd, 0, stop)  # poll always tells of POLLERR


def _final(statistics: Statistics) -> bytes:
    return pcapng.statistics(time.time_ns(), statistics.messages, statistics.lost)
