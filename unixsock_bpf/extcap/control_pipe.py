"""Non-blocking writer for Wireshark's control pipe.

The capture's only thread writes here: if it waited for a window to be painted, the ring
would run over.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Protocol

#: Bytes that may wait to be written; what comes on top of them is dropped.
MOST_WAITING = 1 << 20


class Watcher(Protocol):
    """A poller that calls back when a pipe has room: a capture."""

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Watch ``fd``."""

    def unwatch(self, fd: int) -> None:
        """Undo ``watch``."""


class ControlPipe:
    """The pipe at ``path``.  Messages go out whole and in order, as soon as they can."""

    def __init__(self, path: str, watcher: Watcher) -> None:
        self._path = path
        self._watcher = watcher
        self._fd: int | None = None
        self._waiting = bytearray()
        self._gone = False
        self._watched = False

    def send(self, message: bytes) -> None:
        """Write ``message`` now or later.  Drop it if the pipe lost its reader, or too much waits."""
        if not self._gone and len(self._waiting) + len(message) <= MOST_WAITING:
            self._waiting += message
            self.flush()

    def flush(self) -> None:
        """Write what the pipe takes.  Call it now and then: the reader may come late."""
        if self._gone or not self._waiting:
            return
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            del self._waiting[: os.write(self._fd, self._waiting)]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENXIO:  # that: it is not open for reading yet
                self._close()
                return
        self._watch(self._fd is not None and bool(self._waiting))

    def _watch(self, wanted: bool) -> None:
        if self._fd is None or wanted == self._watched:
            return
        self._watched = wanted
        if wanted:
            self._watcher.watch(self._fd, select.POLLOUT, lambda _: self.flush())
        else:
            self._watcher.unwatch(self._fd)

    def _close(self) -> None:
        self._watch(False)
        self._gone = True
        self._waiting.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
