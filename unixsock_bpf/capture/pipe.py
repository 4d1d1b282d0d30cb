"""Copy captured blocks into a pipe at the reader's pace: for the extcap and the privileged helper."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unixsock_bpf.capture.feedback import left_out_text
from unixsock_bpf.formats import pcapng
from unixsock_bpf.linux.write import drop_written
from unixsock_bpf.timeouts import READER_TIMEOUT_S

if TYPE_CHECKING:
    from unixsock_bpf.capture.base import CaptureSource, Statistics
    from unixsock_bpf.capture.feedback import Feedback
    from unixsock_bpf.capture.process_details import ProcessDetails
    from unixsock_bpf.formats.pcapng import Block

#: Bytes that an unprivileged process may have a pipe hold.
PIPE_SIZE = 1 << 20
#: fcntl.F_SETPIPE_SZ, which Python has from 3.10 on.
_SET_SIZE = 1031


def widen(fd: int) -> None:
    """Enlarge the pipe to PIPE_SIZE if permitted, for fewer and larger reads."""
    with contextlib.suppress(OSError):  # there is a limit for all pipes of a user; or it is no pipe
        fcntl.fcntl(fd, _SET_SIZE, PIPE_SIZE)


class ReaderGone(Exception):
    """The pipe has no reader any more: a normal way to stop."""


class PipeWriter:
    """Writes batches of blocks to a pipe, whole and in order, however slowly it is read.

    While the pipe takes nothing and ``filling`` says that the ring fills up, up to ``overflow_bytes``
    are kept here instead, so that the ring can be drained.  What is kept goes out before all else.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._kept: list[Block] = []
        self.overflow_bytes = 0
        self.filling: Callable[[], bool] = lambda: False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        #: Set when the capture was stopped: then a reader that does not read is given up.
        self.stopping = False
        widen(fd)

    @property
    def keeps(self) -> bool:
        """Whether something waits here: ``write`` has to be called again."""
        return bool(self._kept)

    def write(self, blocks: Sequence[Block]) -> None:
        """Write all blocks, or keep them because the ring fills up.  Raises ReaderGone."""
        rest = [*self._kept, *filter(len, blocks)]
        old = len(self._kept)
        self._kept = []
        while rest:
            try:
                written = os.writev(self.fd, rest[:1024])
            except BlockingIOError:
                room = sum(map(len, rest)) <= self.overflow_bytes
                if room and self.filling():
                    self._kept = [*rest[:old], b"".join(rest[old:])]
                    return
                self._wait(room)
                continue
            except BrokenPipeError:
                raise ReaderGone from None
            done, _ = drop_written(rest, written)
            old = max(0, old - done)

    def _wait(self, room: bool) -> None:
        """Wait until the reader has read, or the ring fills up and there is ``room`` to keep more."""
        waited = 0.0
        while not self._poll.poll(20):
            waited += 0.02
            if not self.stopping:
                waited = 0.0
            elif waited >= READER_TIMEOUT_S:
                raise ReaderGone
            if room and self.filling():
                return


class PipePump:
    """Copy a capture's blocks to ``writer`` until it is stopped.

    While the ring fills up and the pipe is not read, up to ``buffer_mib`` more is kept here.
    ``feedback`` leaves out what repeats the output; ``details`` adds to records.  ``own_statistics``:
    end with the capture's statistics; those of other hosts are among its blocks.
    """

    def __init__(
        self,
        capture: CaptureSource,
        writer: PipeWriter,
        buffer_mib: int,
        feedback: Feedback | None = None,
        details: ProcessDetails | None = None,
        *,
        own_statistics: bool = True,
    ) -> None:
        self._capture, self._writer = capture, writer
        self._feedback, self._details = feedback, details
        self._own_statistics = own_statistics
        writer.overflow_bytes = buffer_mib << 20
        writer.filling = lambda: capture.filling
        self._watch()

    def _watch(self) -> None:
        """Have the poller watch the pipe: whether it has a reader, and when it takes what is kept."""
        # poll always reports POLLERR
        self._capture.watch(self._writer.fd, select.POLLOUT if self._writer.keeps else 0, self._on_ready)

    def _on_ready(self, events: int) -> None:
        if events & ~select.POLLOUT:
            raise ReaderGone
        self._write([])

    def _write(self, blocks: Sequence[Block]) -> None:
        kept = self._writer.keeps
        self._writer.write(blocks)
        if kept or self._writer.keeps:
            self._watch()

    def stop(self, *_: object) -> None:
        """Stop once everything captured so far is written.  For signals, and for ``watch`` too."""
        self._writer.stopping = True
        self._capture.stop()

    def run(self) -> Statistics:
        """Copy until ``stop``; return the statistics, which end the file.  Raises ReaderGone."""
        for batch in self._capture.blocks():
            blocks = self._feedback.kept(batch) if self._feedback else batch
            self._write(self._details.added(blocks) if self._details else blocks)
        statistics = self._capture.statistics
        if self._own_statistics:
            left_out = left_out_text(self._capture.left_out, self._feedback)
            last = pcapng.statistics(time.time_ns(), statistics.messages, statistics.lost, comment=left_out)
            self._writer.write([last])
        return statistics
