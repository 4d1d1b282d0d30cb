"""Work on large files: progress with an estimate on a terminal, and an end in order on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from unixsock_bpf.cli.errors import say

#: Seconds before the first line, and between two.
_FIRST_S, _EVERY_S = 1.0, 0.25


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class LongWork:
    """Work that is shown and can be stopped: ``stopped`` is true then.  A second signal ends it at once."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, what: str, unit: str = "MB") -> None:
        """Name the work, and the unit of a million of its steps; none where a step is a hundredth."""
        self._what, self._unit = what, unit
        self._begun = self._shown = time.monotonic()
        self._shown += _FIRST_S - _EVERY_S
        self._drawn = False
        self.stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> LongWork:
        with suppress(ValueError):  # not the main thread: a program's, which has its own handlers
            for number in self._SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        self.clear()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._restore()

    def show(self, done: int, total: int) -> bool:
        """Show how far the work is, not too often; return ``stopped``."""
        now = time.monotonic()
        if now - self._shown >= _EVERY_S:
            self._shown = now
            with suppress(OSError, AttributeError, ValueError):
                if os.isatty(sys.stderr.fileno()):
                    self._draw(done, total, now - self._begun)
        return self.stopped

    def _draw(self, done: int, total: int, elapsed: float) -> None:
        text = f"unixsock: {self._what}"
        if total:
            text += f": {100 * done // total} %"
            if self._unit:
                text += f" of {total / 1e6:,.0f} {self._unit}"
            if done:
                text += f", {_span(elapsed * (total - done) / done)} left"
        else:
            text += f": {_span(elapsed)}"
        self._drawn = True
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line that was shown."""
        if self._drawn:
            self._drawn = False
            with suppress(OSError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def tell_end(self) -> None:
        """Tell that the work ended early, if it did."""
        if self.stopped:
            self.clear()
            say("unixsock: stopped; what was written is whole")
