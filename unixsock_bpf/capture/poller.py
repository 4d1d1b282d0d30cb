"""A capture's event loop: descriptors with callbacks, a call each second, and stop."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable


class Poller:
    """Event loop shared by local and privileged captures."""

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
        #: Keeps the filter's cgroups up to date, in captures that can change it.
        self.follow_cgroups: Callable[[], None] | None = None

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback`` with poll's events of ``fd`` while ``blocks`` waits."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Undo ``watch``, if that has not been undone."""
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def unwatch_all(self) -> None:
        """Undo every ``watch``."""
        for fd in list(self._callbacks):
            self.unwatch(fd)

    def stop(self) -> None:
        """Stop: ``blocks`` ends after everything captured so far.  Safe in a signal handler."""
        self._stopped = True
        self.wake_up()

    def wake_up(self) -> None:
        """Wake the poller."""
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            os.write(self.waker, b"\0")

    def _dispatch(self, events: Iterable[tuple[int, int]]) -> list[int]:
        """Call back for poll's events; return the descriptors that have no callback."""
        others = []
        for fd, happened in events:
            if fd == self.wake:
                os.read(fd, 1024)
            elif fd in self._callbacks:
                self._callbacks[fd](happened)
            else:
                others.append(fd)
        now = time.monotonic()
        if self._has_seconds and now >= self._next_second:
            self._next_second = now + 1.0
            for call in filter(None, (self.each_second, self.follow_cgroups)):
                call()
        return others

    @property
    def _has_seconds(self) -> bool:
        """Whether something is due each second."""
        return bool(self.each_second or self.follow_cgroups)

    def _close(self) -> None:
        os.close(self.wake)
        os.close(self.waker)
