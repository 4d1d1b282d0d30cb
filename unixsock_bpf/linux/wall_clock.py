"""The wall clock: where it stands to the clock that never jumps, and when it was set.

BPF programs can only read the time since boot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

#: linux/timerfd.h and fcntl.h
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1 << 0
_TFD_TIMER_CANCEL_ON_SET = 1 << 1

#: A time that never comes, in seconds; the kernel takes less than 2^63 nanoseconds.
_NEVER = 9_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval", ctypes.c_long * 2),
        ("value", ctypes.c_long * 2),
    )


def offset() -> int:
    """Nanoseconds from time since boot to wall-clock time."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def jumps() -> int:
    """Return a descriptor that becomes readable whenever the wall clock is set.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(time.CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    never = _Itimerspec(value=(_NEVER, 0))
    if libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET, ctypes.byref(never), None):
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, os.strerror(error))
    return int(fd)


def seen(fd: int) -> bool:
    """Make ``fd`` wait for the next jump; return whether there was one."""
    try:
        os.read(fd, 8)
    except OSError as error:
        return error.errno == errno.ECANCELED
    return False
