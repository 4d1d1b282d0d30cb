"""Pipes that hold much."""

from __future__ import annotations

import contextlib
import fcntl

#: Bytes that an unprivileged process may have a pipe hold.
PIPE_SIZE = 1 << 20
#: fcntl.F_SETPIPE_SZ, which Python has from 3.10 on.
_SET_SIZE = 1031


def widen(fd: int) -> None:
    """Has the pipe hold PIPE_SIZE, for fewer and larger reads, if it may."""
    with contextlib.suppress(OSError):  # there is a limit for all pipes of a user; or it is no pipe
        fcntl.fcntl(fd, _SET_SIZE, PIPE_SIZE)
