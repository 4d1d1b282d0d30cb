"""``--capture``: from a live capture into the fifo that Wireshark's dumpcap reads.

The order of the first steps is what keeps Wireshark from waiting for ever: the toolbar's
pipe, then the fifo, then the file header, and only then the slow work.  Errors are
reported on stderr once both are open, because Wireshark listens only then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unixsock_bpf.capture import own_processes
from unixsock_bpf.capture.feedback import Feedback
from unixsock_bpf.capture.pipe import PipePump, PipeWriter, ReaderGone
from unixsock_bpf.capture.process_details import details_of
from unixsock_bpf.errors import harmless
from unixsock_bpf.formats import pcapng
from unixsock_bpf.timeouts import FIFO_OPEN_TIMEOUT_S

if TYPE_CHECKING:
    from unixsock_bpf.capture.base import CaptureSource
    from unixsock_bpf.options import Settings
    from unixsock_bpf.remote.way import Way


class FifoError(OSError):
    """The fifo cannot be written to; the text says why."""


def open_fifo(path: str | None) -> int:
    """Open the fifo for non-blocking writes.  Raises FifoError."""
    if not path:
        raise FifoError("--capture needs --fifo")
    deadline = time.monotonic() + FIFO_OPEN_TIMEOUT_S
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that: it is not open for reading yet
                raise FifoError(f"the fifo {path} can't be opened: {error.strerror}") from None
            if time.monotonic() > deadline:
                raise FifoError(
                    f"no process opened the fifo {path} for reading within {FIFO_OPEN_TIMEOUT_S:.0f} s"
                ) from None
        time.sleep(0.01)


def _lines(sentence: str) -> str:
    """Put commands in ``sentence`` on lines of their own: Wireshark's dialog breaks lines within "--"."""
    import re

    return re.sub(r" ?'((?:sudo|unixsock) [^']+)'[,;]? ?", r"\n\1\n", sentence)


def _fail(sentence: str, in_window: bool = False) -> int:
    if in_window:
        sentence = _lines(sentence)
    sys.stderr.buffer.write(harmless(sentence).encode(errors="replace") + b"\n")
    sys.stderr.flush()
    return 1


def run_refused(fifo: str | None, control_in: str | None, sentence: str) -> int:
    """Report to Wireshark why there is no capture, in the order in which it reads.  Return the status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        if control_in:
            os.open(control_in, os.O_RDONLY | os.O_CLOEXEC)
        open_fifo(fifo)
    except OSError:
        pass  # then stderr has the only report
    return _fail(sentence, control_in is not None)


def run(settings: Settings, ways: Sequence[Way] = ()) -> int:
    """Capture into ``settings.fifo`` until stopped, on other hosts if ``ways`` are given.

    Return the exit status.
    """
    # Until something is captured, a signal may simply end us: the kernel takes the probes out.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    control = None
    try:
        if settings.control_in:
            control = os.open(settings.control_in, os.O_RDONLY | os.O_CLOEXEC)
        fd = open_fifo(settings.fifo)
    except OSError as error:
        return _fail(str(error), settings.control_in is not None)
    writer = PipeWriter(fd)
    try:
        hosts = [pcapng.Host(way.name) for way in ways]
        writer.write([pcapng.file_header(capture_filter=settings.filter.text, hosts=hosts)])
        return _capture(settings, writer, fd, control, ways)
    except ReaderGone:
        return 0


def _feedback(settings: Settings, capture: CaptureSource) -> Feedback | None:
    """Return what leaves out conversations that repeat the capture, unless those are asked for."""
    if settings.include_capture_processes:
        return None

    def report(text: str) -> None:
        capture.feedback_found(text)  # which the toolbar sets later

    return Feedback(lambda: own_processes.find().readers, report)


def _source(settings: Settings, fd: int, ways: Sequence[Way]) -> CaptureSource:
    """Return the capture: of this host, or of others, whose only one writes to the fifo itself."""
    if not ways:
        from unixsock_bpf.privilege.client import source

        return source(settings, fd)
    from unixsock_bpf.remote.capture import HostsCapture

    # A descriptor of its own: ours does not block, which the command need not expect.
    output = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC) if len(ways) == 1 else None
    return HostsCapture(settings, ways, output=output)


def _capture(
    settings: Settings, writer: PipeWriter, fd: int, control: int | None, ways: Sequence[Way]
) -> int:
    from unixsock_bpf.errors import ProbeError

    starter = own_processes.starter()  # now: it may end while the probe is compiled
    capture = _source(settings, fd, ways)
    try:
        with capture:
            pump = None
            if not capture.writes_output:
                # Other hosts leave out themselves what repeats their output.
                feedback = None if ways else _feedback(settings, capture)
                details = None if ways else details_of(settings)
                pump = PipePump(
                    capture, writer, settings.buffer_mib, feedback, details, own_statistics=not ways
                )
            stop = pump.stop if pump else lambda *_: capture.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, stop)
            # Killed, Wireshark stops nothing, and dumpcap notices with the next packet only.
            if starter is not None:
                capture.watch(starter, select.POLLIN, stop)
            if control is not None:
                from unixsock_bpf.extcap.toolbar import Toolbar

                toolbar = Toolbar(capture, settings, control, ways)
                toolbar.start()
                capture.feedback_found = toolbar.log
            if pump:
                with contextlib.suppress(ReaderGone):
                    pump.run()
                if ways:
                    return 0
                # Everything is written.  Detaching hook by hook would keep Wireshark waiting for up to a
                # second; the kernel detaches the hooks of a process that has ended.
                os._exit(0)
            else:
                capture.watch(fd, 0, stop)  # poll always reports POLLERR
                for _ in capture.blocks():
                    pass
    except ProbeError as error:
        return _fail(str(error), settings.control_in is not None)
    return 0
