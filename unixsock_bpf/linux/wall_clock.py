"""The wall clock: where it stands to the clock that never jumps, and when it was set.

BPF programs can only read the time since boot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from functools import lru_cache

from unixsock_bpf.linux import libc

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


#: Nanoseconds by which a new offset has to differ: less is what reading two clocks is uncertain by, and
#: would only make later messages have earlier times.
NOTABLE = 50_000


def offset() -> int:
    """Return the nanoseconds from the kernel's time since boot to wall-clock time.

    Between two reads of a clock this thread may lose the processor: of three attempts the shortest counts.
    """
    attempts = []
    for _ in range(3):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        attempts.append((after - before, wall - (before + after) // 2))
    return min(attempts)[1] + _namespace_offset()


@lru_cache(maxsize=1)
def _namespace_offset(path: str = "/proc/self/timens_offsets") -> int:
    """Return by how many nanoseconds this time namespace's time since boot is ahead of the kernel's."""
    try:
        with open(path) as file:
            for line in file:
                clock, seconds, nanoseconds = line.split()
                if clock == "boottime":
                    return int(seconds) * 1_000_000_000 + int(nanoseconds)
    except OSError:  # a kernel without time namespaces
        pass
    return 0


def jumps() -> int:
    """Return a descriptor that becomes readable whenever the wall clock is set.  Raises OSError."""
    fd = libc.call("timerfd_create", time.CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
    never = _Itimerspec(value=(_NEVER, 0))
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    try:
        libc.call("timerfd_settime", fd, flags, ctypes.byref(never), None)
    except OSError:
        os.close(fd)
        raise
    return fd


def seen(fd: int) -> bool:
    """Make ``fd`` wait for the next jump; return whether there was one."""
    try:
        os.read(fd, 8)
    except OSError as error:
        return error.errno == errno.ECANCELED
    return False
