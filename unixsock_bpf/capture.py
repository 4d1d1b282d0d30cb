"""A live capture: from the probe's ring to whoever wants pcapng blocks."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from unixsock_bpf import pcapng, record
from unixsock_bpf.announcement import ANNOUNCEMENT, endpoint_name

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings

#: Blocks in one batch: as many as one writev takes.
BATCH = 1000
#: Seconds between two looks while messages come in, and the longest sleep when none do.
BUSY_WAIT = 0.005
IDLE_WAIT = 1.0

Block = bytes | memoryview


@dataclass
class Statistics:
    """Messages and bytes that matched, and how many of them were lost."""

    messages: int = 0
    bytes: int = 0
    lost_messages: int = 0
    lost_bytes: int = 0
    truncated: int = 0
    untracked: int = 0

    @property
    def lost(self) -> int:
        """Messages that could not be captured, for whatever reason."""
        return self.lost_messages + self.untracked


def _clock_offset() -> int:
    """Nanoseconds from boot time to wall-clock time."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Capture:
    """Captures from ``with`` to ``stop``.

    ``blocks`` yields batches of pcapng blocks, whole and in order; file and interface
    headers are the caller's.  Entering raises ProbeError where capturing is not possible.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = False
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._final = Statistics()
        self._probe: Any = None

    def __enter__(self) -> Capture:
        from unixsock_bpf.pipeline import capture_processes
        from unixsock_bpf.probe.loader import Probe
        from unixsock_bpf.ring import Ring
        from unixsock_bpf.sockets import owners

        probe = Probe(self._settings)
        self._probe = probe
        probe.settings[0] = _clock_offset()
        probe.fill_holders(owners())
        if not self._settings.include_capture_processes:
            probe.fill_capturers(capture_processes())
        self._ring = Ring(probe.ring_fd, probe.ring_size)
        self._poll.register(self._ring.fd, select.POLLIN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._probe is not None:
            self._probe.detach()
        os.close(self._wake)
        os.close(self._waker)

    @property
    def attached(self) -> str:
        """How the probe is attached: ``fentry`` or ``kprobe``."""
        return str(self._probe.attached)

    @property
    def statistics(self) -> Statistics:
        """What was seen and lost so far."""
        totals = self._probe.totals
        return Statistics(totals[0], totals[1], totals[2], totals[3], totals[4], totals[5])

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Calls ``callback`` with what poll says of ``fd`` while ``blocks`` waits."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Ends ``watch``."""
        self._poll.unregister(fd)
        del self._callbacks[fd]

    def stop(self) -> None:
        """Ends ``blocks`` after everything captured so far.  Safe in a signal handler."""
        self._stopped = True
        try:
            os.write(self._waker, b"\0")
        except OSError:
            pass  # full: it will wake up anyway

    def pause(self, paused: bool) -> None:
        """Captures nothing until called with False."""
        self._probe.settings[2] = int(paused)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """Batches of blocks.  A batch is valid until the next one is asked for."""
        while not self._stopped:
            batch = self._take()
            if batch:
                yield batch
                self._ring.release()
            self._wait(len(batch))
        self._probe.detach()
        while batch := self._take():
            yield batch
            self._ring.release()
        yield self._owed()

    def _take(self) -> list[Block]:
        batch: list[Block] = []
        for first, data in self._ring.take(BATCH):
            if first == pcapng.EPB:
                batch.append(data)
            elif first == ANNOUNCEMENT:
                batch.append(pcapng.names([endpoint_name(data)]))
        return batch

    def _wait(self, taken: int) -> None:
        """Until there may be something to do."""
        if taken >= BATCH:
            return
        if taken:
            timeout = BUSY_WAIT
            events = self._poll_others(timeout)
        else:
            self._probe.settings[0] = _clock_offset()
            self._probe.settings[1] = 1
            timeout = IDLE_WAIT if self._ring.empty else 0.001
            events = self._poll.poll(timeout * 1000)
            self._probe.settings[1] = 0
        for fd, happened in events:
            if fd in self._callbacks:
                self._callbacks[fd](happened)

    def _poll_others(self, timeout: float) -> list[tuple[int, int]]:
        """Waits without the ring, so that a burst is read in few batches."""
        self._poll.unregister(self._ring.fd)
        try:
            return self._poll.poll(timeout * 1000)
        finally:
            self._poll.register(self._ring.fd, select.POLLIN)

    def _owed(self) -> list[Block]:
        """Losses that no later record could report."""
        if not self.statistics.lost_messages:
            return []
        now = time.time_ns()
        return [pcapng.packet(now, record.encode(lost)) for lost in self._probe.pending_losses()]
