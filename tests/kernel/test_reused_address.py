"""A freed sock's address is used again at once: what was decided about the old one holds no longer."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from live import Live

from unixsock_bpf.record import Event

ROUNDS = 50


def _receive_once(sender: socket.socket, path: Path, payload: bytes) -> None:
    """Make a receiver, send it one datagram, and have the kernel free it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        sender.sendto(payload, str(path))
        assert receiver.recv(100) == payload
    path.unlink()


def test_a_new_receiver_is_captured_where_the_one_before_was_not() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        affinity = os.sched_getaffinity(0)
        with Live(capture_filter=f"path {folder}/wanted", ready=False) as live:
            live.wait_ready_by(lambda marker, sender: _receive_once(sender, folder / "wanted", marker))
            os.sched_setaffinity(0, {min(affinity)})  # the allocator hands out what this processor freed last
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                for number in range(ROUNDS):
                    _receive_once(sender, folder / "other", b"other")
                    _receive_once(sender, folder / "wanted", b"%d" % number)
            os.sched_setaffinity(0, affinity)
    payloads = [r.payload for r in live.records if r.event == Event.DATA]
    assert [p for p in payloads if not p.startswith(b"marker")] == [b"%d" % n for n in range(ROUNDS)]


@pytest.mark.thorough
def test_an_address_whose_first_socket_was_not_seen_to_be_freed_is_another_socket() -> None:
    """Without the hook on that, or passed by it, the next one at the address gets nothing of its state."""
    affinity = os.sched_getaffinity(0)
    shim = Path(__file__).parent / "hooks_shim.py"
    with Live(through=[sys.executable, str(shim), "missing", "unix_sock_destructor"]) as live:
        os.sched_setaffinity(0, {min(affinity)})
        for number in range(ROUNDS):
            left, right = socket.socketpair()
            with left, right:
                left.send(b"reused %d" % number)
                right.recv(100)
        os.sched_setaffinity(0, affinity)
    ours = [r for r in live.records if r.event == Event.DATA and r.payload.startswith(b"reused ")]
    assert [r.payload for r in ours] == [b"reused %d" % number for number in range(ROUNDS)]
    assert {(r.seq, r.ack, r.message) for r in ours} == {(0, 0, 0)}
    assert len({r.src_sock for r in ours} | {r.dst_sock for r in ours}) == 2 * ROUNDS
