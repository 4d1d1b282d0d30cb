"""The one error that ends a command, and lines on stderr."""

from __future__ import annotations

import os
import sys

from unixsock_bpf.errors import harmless


class Failure(Exception):
    """A failed command: one sentence, and the exit status."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


def reason(error: OSError) -> str:
    """Return the system's text for ``error``, without number and path."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def say(text: str) -> None:
    """Print a line on stderr, whatever it holds, even where stderr is closed."""
    try:
        sys.stderr.buffer.write(harmless(text).encode() + b"\n")
        sys.stderr.flush()
    except (OSError, AttributeError):  # closed, full, or missing
        pass
