"""A live capture: from the probe's ring to whoever wants pcapng blocks."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from types import TracebackType
from typing import TYPE_CHECKING

from unixsock_bpf import pcapng, record
from unixsock_bpf.announcement import ANNOUNCEMENT, endpoint_name

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.loader import Probe
    from unixsock_bpf.ring import Ring

#: Blocks in one batch: as many as one writev takes.
BATCH = 1000
#: Seconds between two looks while messages come in, and the longest sleep when none do.
BUSY_WAIT = 0.005
IDLE_WAIT = 1.0

Block = bytes | memoryview

#: Members of ``struct settings`` and ``struct totals`` in probe/state.h, all u64.
_CLOCK_OFFSET, _READER_WAITS, _RUNNING = 0, 1, 2
_LOST_MESSAGES = 2


@dataclass
class Statistics:
    """Messages and bytes that matched, and how many of them were lost: ``struct totals`` in probe/state.h."""

    messages: int = 0
    bytes: int = 0
    lost_messages: int = 0
    lost_bytes: int = 0
    truncated: int = 0
    untracked: int = 0
    lost_events: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

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
        self._retired: list[tuple[Probe, Ring]] = []
        self._before = Statistics()
        self._probe: Probe
        self._ring: Ring
        #: Called about once a second, however much or little comes in.
        self.each_second: Callable[[], None] | None = None
        self._next_second = 0.0

    def __enter__(self) -> Capture:
        self._probe, self._ring = self._attach(self._settings)
        self._probe.settings[_RUNNING] = 1
        self._poll.register(self._ring.fd, select.POLLIN)
        return self

    def _attach(self, settings: Settings) -> tuple[Probe, Ring]:
        """A probe that is set up but captures nothing yet, and its ring."""
        from unixsock_bpf.pipeline import capture_processes
        from unixsock_bpf.probe.loader import Probe
        from unixsock_bpf.ring import Ring
        from unixsock_bpf.sockets import owners

        probe = Probe(settings)
        probe.settings[_CLOCK_OFFSET] = _clock_offset()
        probe.fill_holders(owners())
        if not settings.include_capture_processes:
            probe.fill_capturers(capture_processes())
        return probe, Ring(probe.ring_fd, probe.ring_size)

    def replace(self, settings: Settings) -> None:
        """Goes on with other settings: the new probe takes over from the old one at once.

        Conversations begin anew for it: their positions count from here.  Raises ProbeError
        if that can't be done; then the old probe goes on.
        """
        probe, ring = self._attach(settings)
        probe.settings[_RUNNING], self._probe.settings[_RUNNING] = self._probe.settings[_RUNNING], 0
        self._poll.unregister(self._ring.fd)
        self._retired.append((self._probe, self._ring))
        self._probe, self._ring, self._settings = probe, ring, settings
        self._poll.register(ring.fd, select.POLLIN)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        return self._before + Statistics(*self._probe.totals[: len(fields(Statistics))])

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
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            os.write(self._waker, b"\0")

    def pause(self, paused: bool) -> None:
        """Captures nothing until called with False."""
        self._probe.settings[_RUNNING] = int(not paused)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """Batches of blocks.  A batch is valid until the next one is asked for."""
        while not self._stopped:
            yield from self._rest_of_retired()
            batch = self._take(self._ring)
            if batch:
                yield batch
                self._ring.release()
            self._wait(len(batch))
        yield from self._rest_of_retired()
        yield from self._rest(self._probe, self._ring)

    def _rest_of_retired(self) -> Iterator[Sequence[Block]]:
        while self._retired:
            probe, ring = self._retired.pop(0)
            yield from self._rest(probe, ring)
            self._before += Statistics(*probe.totals[: len(fields(Statistics))])

    def _rest(self, probe: Probe, ring: Ring) -> Iterator[Sequence[Block]]:
        """All that a probe has captured up to now, which is its last."""
        probe.detach()
        while batch := self._take(ring):
            yield batch
            ring.release()
        yield self._owed(probe)

    def _take(self, ring: Ring) -> list[Block]:
        batch: list[Block] = []
        for first, data in ring.take(BATCH):
            if first == pcapng.EPB:
                batch.append(data)
            elif first == ANNOUNCEMENT:
                batch.append(pcapng.names([endpoint_name(data)]))
        return batch

    def _wait(self, taken: int) -> None:
        """Until there may be something to do."""
        if taken:
            # The toolbar and the end of the fifo are looked at however much comes in.
            events = self._poll_others(0 if taken >= BATCH else BUSY_WAIT)
        else:
            self._probe.settings[_CLOCK_OFFSET] = _clock_offset()
            self._probe.settings[_READER_WAITS] = 1
            timeout = IDLE_WAIT if self._ring.empty else 0.001
            events = self._poll.poll(timeout * 1000)
            self._probe.settings[_READER_WAITS] = 0
        for fd, happened in events:
            if fd in self._callbacks:
                self._callbacks[fd](happened)
        now = time.monotonic()
        if self.each_second and now >= self._next_second:
            self._next_second = now + 1.0
            self.each_second()

    def _poll_others(self, timeout: float) -> list[tuple[int, int]]:
        """Waits without the ring, so that a burst is read in few batches."""
        self._poll.unregister(self._ring.fd)
        try:
            return self._poll.poll(timeout * 1000)
        finally:
            self._poll.register(self._ring.fd, select.POLLIN)

    def _owed(self, probe: Probe) -> list[Block]:
        """Losses that no later record could report."""
        if not probe.totals[_LOST_MESSAGES]:
            return []
        now = time.time_ns()
        return [pcapng.packet(now, record.encode(lost)) for lost in probe.pending_losses()]
