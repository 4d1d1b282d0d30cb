"""Long messages where kcore or kallsyms does not tell where they are, or neither does."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, streams

from unixsock_bpf.record import Event, Flag, Record

pytestmark = pytest.mark.thorough

RESTRICTION = Path("/proc/sys/kernel/kptr_restrict")
LONG = os.urandom(150_000)  # more than lies in one piece


@pytest.fixture
def hidden() -> Iterator[None]:
    """All addresses, from everybody."""
    before = RESTRICTION.read_text()
    RESTRICTION.write_text("2")
    try:
        yield
    finally:
        RESTRICTION.write_text(before)


@pytest.fixture
def without_kcore() -> Iterator[None]:
    subprocess.run(["mount", "--bind", "/dev/null", "/proc/kcore"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/proc/kcore"], check=True)


def captured() -> list[Record]:
    """What LONG looks like on a stream."""
    with Live() as live:
        left, right = socket.socketpair()
        with left, right:
            reader = threading.Thread(target=lambda: right.recv(len(LONG), socket.MSG_WAITALL))
            reader.start()
            left.sendall(LONG)
            reader.join()
            inode = os.fstat(left.fileno()).st_ino
    assert live.status == 0
    return [r for r in live.records if r.event == Event.DATA and r.src_inode == inode]


def are_whole(records: list[Record]) -> bool:
    assert not [r for r in records if r.flags & (Flag.TRUNCATED | Flag.UNREADABLE)]
    return list(streams(records).values()) == [LONG]


def test_kcore_tells_where_they_are(hidden: None) -> None:
    assert are_whole(captured())


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 has variables that tell it")
def test_kallsyms_tells_where_they_are(without_kcore: None) -> None:
    assert are_whole(captured())


def test_without_both_they_are_cut_and_say_so(hidden: None, without_kcore: None) -> None:
    records = captured()
    assert [r for r in records if r.flags & Flag.TRUNCATED]
    at = 0
    for r in records:
        assert r.payload == LONG[at : at + len(r.payload)]
        assert bool(r.flags & Flag.UNREADABLE) == bool(r.flags & Flag.TRUNCATED) == (len(r.payload) < r.len)
        at += r.len
    assert at == len(LONG)
