"""Standard output that may be closed, full, or not ready: one sentence instead of a traceback.

Imports what the interpreter has loaded already, because listing interfaces must stay fast.
"""

from __future__ import annotations

import io
import os
import sys


class OutputError(OSError):
    """Standard output can't be written to; the text says why."""


class _Output(io.RawIOBase):
    """Descriptor 1: wait where it would block, and discard everything once it has failed."""

    def __init__(self) -> None:
        self._failed = False

    def fileno(self) -> int:
        return 1

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(1)

    def write(self, data: object) -> int:
        """Write, waiting if need be.  Raises BrokenPipeError, OutputError."""
        view = memoryview(data)  # type: ignore[arg-type]
        while not self._failed:
            try:
                return os.write(1, view)
            except BlockingIOError:
                wait_writable(1)
            except BrokenPipeError:
                self._failed = True
                raise
            except OSError as error:
                self._failed = True
                why = "it is closed" if error.errno == 9 else os.strerror(error.errno or 0).lower()
                raise OutputError(f"cannot write standard output: {why}") from None
        return len(view)


def wait_writable(fd: int) -> None:
    """Wait until a non-blocking descriptor can be written to, or fails."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def prepare() -> None:
    """Open standard descriptors that are closed, so that no file gets their numbers, and wrap output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # what is written to a closed output must fail
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    old = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output()),
        encoding=old.encoding if old else "utf-8",
        errors=old.errors if old else "surrogateescape",
        line_buffering=os.isatty(1),
    )
