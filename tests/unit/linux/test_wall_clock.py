"""The wall clock's place, and word of its jumps (which need a machine of one's own: tests/kernel)."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

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


def test_the_shortest_of_three_attempts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is taken away between two reads, twice of three times."""
    boot = iter([0, 9_000_000, 20_000_000, 20_000_100, 30_000_000, 90_000_000])
    wall = iter([1_000_000_000, 1_020_000_050, 1_030_000_000])
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: next(boot))
    monkeypatch.setattr(time, "time_ns", lambda: next(wall))
    monkeypatch.setattr(wall_clock, "_namespace_offset", lambda: 0)
    assert wall_clock.offset() == 1_000_000_000


def test_a_time_namespace_is_ahead_of_the_kernel(tmp_path: Path) -> None:
    offsets = tmp_path / "timens_offsets"
    offsets.write_text("monotonic           5           0\nboottime      604800        500\n")
    assert wall_clock._namespace_offset.__wrapped__(str(offsets)) == 604_800_000_000_500
    assert wall_clock._namespace_offset.__wrapped__(str(tmp_path / "none")) == 0
