"""The C library, for system calls that Python lacks."""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def library() -> ctypes.CDLL:
    """Load the C library, with errno kept for ctypes.get_errno."""
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Call a function that returns a negative number on failure.  Raises OSError."""
    result = int(getattr(library(), name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
