"""The wall clock's place, and word of its jumps (which need a machine of one's own: tests/kernel)."""

from __future__ import annotations

import os
import select
import time

from unixsock_bpf.linux import wall_clock


def test_the_offset_leads_from_boot_time_to_wall_clock_time() -> None:
    now = wall_clock.offset() + time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(now - time.time_ns()) < 1e9


def test_no_jump_is_told_while_there_is_none() -> None:
    fd = wall_clock.jumps()
    try:
        assert not select.select([fd], [], [], 0.05)[0]
        assert not wall_clock.seen(fd)
    finally:
        os.close(fd)
