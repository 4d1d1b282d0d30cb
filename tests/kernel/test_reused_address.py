"""A freed sock's address is used again at once: what was decided about the old one holds no longer."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

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
