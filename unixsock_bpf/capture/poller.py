"""What a capture waits for: descriptors with callbacks, the next second, and to be stopped."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable


class Poller:
    """The part of a capture that is the same whoever captures: this process, or the privileged part."""

    def __init__(self) -> None:
        #: A pipe that ends the wait when something is written to it.
        self.wake, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self.wake, select.POLLIN)
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._stopped = False
        #: Called about once a second, however much or little comes in.
        self.each_second: Callable[[], None] | None = None
        self._next_second = 0.0

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Calls ``callback`` with what poll says of ``fd`` while ``blocks`` waits."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Ends ``watch``, if that has not ended."""
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def unwatch_all(self) -> None:
        """Ends every ``watch``."""
        for fd in list(self._callbacks):
            self.unwatch(fd)

    def stop(self) -> None:
        """Ends ``blocks`` after everything captured so far.  Safe in a signal handler."""
        self._stopped = True
        self.wake_up()

    def wake_up(self) -> None:
        """Ends the present wait."""
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            os.write(self.waker, b"\0")

    def _dispatch(self, events: Iterable[tuple[int, int]]) -> list[int]:
        """Calls back for what poll told; returns the descriptors that have no callback."""
        others = []
        for fd, happened in events:
            if fd == self.wake:
                os.read(fd, 1024)
            elif fd in self._callbacks:
                self._callbacks[fd](happened)
            else:
                others.append(fd)
        now = time.monotonic()
        if self.each_second and now >= self._next_second:
            self._next_second = now + 1.0
            self.each_second()
        return others

    def _close(self) -> None:
        os.close(self.wake)
        os.close(self.waker)
