"""What does not fit is counted where it fell out, and nothing else is touched by it."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from pathlib import Path

import pytest
from live import Live, accounted

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Flag, LostReason, Record


def blast(kind: int, count: int, size: int, back: int) -> tuple[int, int]:
    """Sends ``count`` messages one way and ``back`` the other; the sockets' inodes."""
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    with left, right:
        inodes = os.fstat(left.fileno()).st_ino, os.fstat(right.fileno()).st_ino
        for number in range(max(count, back)):
            for one, other, most in ((left, right, count), (right, left, back)):
                if number < most:
                    one.send(struct.pack("<I", number) + bytes(size - 4))
                    other.recv(size)
    return inodes


def accounts_for(records: list[Record], src: int, count: int, size: int) -> int:
    """Checks that captured and lost messages make up what one socket sent.  Returns how many were lost."""
    sent = [r for r in records if r.src_inode == src and r.event in (Event.DATA, Event.LOST)]
    for r in sent:
        if r.event == Event.DATA:
            assert struct.unpack_from("<I", r.payload)[0] == r.message
        else:
            assert r.lost is not None
            messages, size_lost, reasons = r.lost
            assert reasons == LostReason.RING_FULL
            assert size_lost == messages * size
    *made_up, lost = accounted(sent)
    assert made_up == [count, count * size]
    return lost


def test_a_full_ring_loses_messages_and_counts_them() -> None:
    with Live("--buffer-size", "1") as live:
        live.reading.clear()
        stream = blast(socket.SOCK_STREAM, 6000, 1000, 100)
        dgram = blast(socket.SOCK_DGRAM, 500, 700, 500)
        seqpacket = blast(socket.SOCK_SEQPACKET, 300, 20, 0)
        live.reading.set()
        live.wait_ready()
        after = blast(socket.SOCK_STREAM, 10, 100, 10)
    assert live.status == 0
    lost = accounts_for(live.records, stream[0], 6000, 1000)
    lost += accounts_for(live.records, stream[1], 100, 1000)
    lost += accounts_for(live.records, dgram[0], 500, 700)
    lost += accounts_for(live.records, dgram[1], 500, 700)
    lost += accounts_for(live.records, seqpacket[0], 300, 20)
    assert lost > 1000
    assert accounts_for(live.records, after[0], 10, 100) == 0

    # The file's own totals: one interface statistics block, at the end.
    (statistics,) = [body for kind, body in live.blocks if kind == pcapng.ISB]
    assert live.blocks[-1][0] == pcapng.ISB
    dropped = statistics[12:].partition(struct.pack("<HH", 5, 8))[2][:8]
    total = sum(r.lost[0] for r in live.records if r.lost)
    assert struct.unpack("<Q", dropped)[0] == total >= lost


def test_the_first_message_on_each_processor_is_captured() -> None:
    """Between sockets that the probe does not know: each processor keeps little memory for the first ones."""
    processors = os.sched_getaffinity(0)
    pairs = {processor: socket.socketpair() for processor in processors}
    with Live() as live:
        for processor, (left, right) in pairs.items():
            os.sched_setaffinity(0, {processor})
            left.send(b"on %d" % processor)
            right.recv(100)
        os.sched_setaffinity(0, processors)
        live.wait_ready()
        for one in itertools.chain(*pairs.values()):
            one.close()
    captured = [r.payload for r in live.records if r.payload.startswith(b"on ")]
    assert captured == [b"on %d" % processor for processor in pairs]


def test_a_datagram_larger_than_a_record_is_split_and_can_be_joined() -> None:
    limit = Path("/proc/sys/net/core/wmem_max")
    old = limit.read_text()
    limit.write_text("8000000")
    try:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
        with left, right, Live() as live:
            sent = []
            for size in (229_376, 229_377, 1_000_000, 3_500_000):
                sent.append(os.urandom(size))
                left.send(sent[-1])
                assert right.recv(8_000_000) == sent[-1]
            inode = os.fstat(left.fileno()).st_ino
    finally:
        limit.write_text(old)
    ours = [r for r in live.records if r.src_inode == inode and r.event == Event.DATA]
    for number, payload in enumerate(sent):
        parts = [r for r in ours if r.message == number]
        assert all(r.len == len(payload) and not r.flags & Flag.TRUNCATED for r in parts)
        assert [bool(r.flags & Flag.MORE) for r in parts] == [True] * (len(parts) - 1) + [False]
        at = 0
        for r in parts:
            assert r.offset == at
            at += len(r.payload)
        assert b"".join(r.payload for r in parts) == payload
        assert len(parts) == -(-len(payload) // 229_376)


@pytest.mark.parametrize("snaplen", [100, 20_000])
def test_snaplen_truncates_and_says_so(snaplen: int) -> None:
    sizes = (snaplen - 1, snaplen, snaplen + 1, 60_000)
    left, right = socket.socketpair()
    with left, right, Live("--snaplen", str(snaplen)) as live:
        for size in sizes:
            left.send(bytes([size % 256]) * size)
            right.recv(size, socket.MSG_WAITALL)
        inode = os.fstat(left.fileno()).st_ino
    ours = [r for r in live.records if r.src_inode == inode and r.event == Event.DATA]
    assert sum(r.len for r in ours) == sum(sizes)
    for r in ours:
        assert len(r.payload) == min(r.len, snaplen)
        assert bool(r.flags & Flag.TRUNCATED) == (r.len > snaplen)
