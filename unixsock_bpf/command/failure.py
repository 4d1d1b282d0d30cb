"""The one error that ends a command."""

from __future__ import annotations

import os


class Failure(Exception):
    """What could not be done, in one sentence, and the exit status that says so."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


def reason(error: OSError) -> str:
    """The system's word for ``error``, without number and path."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
