"""When to read the ring.

Draining the ring costs CPU, here and in the process that writes the file; on a machine without an idle
processor the traced programs pay for it, and that is most of what a capture adds to a burst.  The ring
is there to hold a burst, so data stays in it while the processors have nothing to spare; but not longer
than ``LATEST``, and not when the ring fills up, there is little to read, or no more comes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Seconds until the next batch, at least and at most: some times as long as the last one took.
REST = (0.005, 0.1)
RESTS = 3
#: Seconds that data may wait in the ring for an idle processor.
LATEST = 1.0
#: Seconds between two looks for one: the kernel counts idle time in hundredths of a second.
LOOK = 0.04
#: Processors that must have been idle: reading the ring and writing a file are two processes, and less
#: is no more than the gaps in which two programs wait for each other's messages.  Of a
#: single processor, this part.
SPARE = 1.2
SPARE_OF_ONE = 0.75
#: Part of one processor that we take without asking.
LITTLE = 0.1


class IdleTime:
    """Idle time of all processors since boot, in seconds: proc_uptime(5)."""

    def __init__(self) -> None:
        self.fd = os.open("/proc/uptime", os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        return float(os.pread(self.fd, 64, 0).split()[1])

    def close(self) -> None:
        os.close(self.fd)


class ReadScheduler:
    """Decide how long to leave data in a ring of ``size`` bytes.

    ``idle``: seconds of idle time so far; ``now``: a clock in seconds; ``processors``: this machine's.
    """

    def __init__(
        self,
        size: int,
        idle: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
        processors: int | None = None,
    ) -> None:
        self._half = size // 2
        self._spare = SPARE if (processors or os.cpu_count() or 1) > 1 else SPARE_OF_ONE
        self._idle, self._now = idle, now
        #: When the ring was last read to its end: what waits is not older.
        self._emptied = self._ended = self._looked = float("-inf")
        self._idle_then, self._waiting_then = 0.0, 0
        #: Seconds and bytes of the last batch, and how long to rest after it.
        self._took, self._bytes, self._rest = 0.0, 1, 0.0
        #: Bytes that waited after it.
        self._left = 0

    def done(self, began: float, waited: int, size: int, left: int) -> None:
        """Take note of a batch: ``size`` bytes of the ``waited`` that there were at ``began`` are written.

        ``left``: bytes that wait now.
        """
        self._ended = self._looked = self._now()
        self._idle_then, self._waiting_then = self._idle(), left
        self._took, self._bytes, self._left = self._ended - began, max(size, 1), left
        self._rest = min(max(REST[0], RESTS * self._took), REST[1])
        if size >= waited:
            self._emptied = began

    def rest(self, waiting: int) -> float:
        """Return the seconds to leave ``waiting`` bytes alone before the next call; 0: read them now."""
        now = self._now()
        since = now - self._ended
        if not waiting or self._fills(waiting, since):
            return 0
        if since < self._rest:
            return self._rest - since
        if now - self._emptied >= LATEST or self._is_little(waiting, since):
            return 0
        passed = now - self._looked
        if passed < LOOK:
            return LOOK - passed
        idle = self._idle()
        spare, over = idle - self._idle_then >= self._spare * passed, waiting == self._waiting_then
        self._looked, self._idle_then, self._waiting_then = now, idle, waiting
        return 0 if spare or over else LOOK

    def _fills(self, waiting: int, since: float) -> bool:
        """Return whether half of the ring will be full by the next look."""
        return waiting + (waiting - self._left) / max(since, LOOK / 4) * LOOK > self._half

    def _is_little(self, waiting: int, since: float) -> bool:
        """Return whether reading takes a small part of the time since the last batch."""
        return self._took * max(1, waiting / self._bytes) <= LITTLE * since
