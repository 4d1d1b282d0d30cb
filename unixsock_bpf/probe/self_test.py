"""The probe's test of itself: what it sends through sockets of its own must come through its hooks.

It happens before a capture says that it captures, while the probe records nothing: the program that would
make a record of such a message adds its length up instead (``prove`` in bpf/records.bpf.c).  A compiler may
have put a hooked function into its caller, and attaching succeeds all the same; only this shows it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from unixsock_bpf.probe.hook_table import URGENT

#: Bytes that are written or spliced: more than one, since one that is sent with MSG_OOB is hooked elsewhere.
_DATA = b"unixsock"
#: How often one way of sending is tried: where the kernel can be preempted, a hook may miss a message.
_TRIES = 3
_TYPES = (
    ("stream", socket.SOCK_STREAM),
    ("dgram", socket.SOCK_DGRAM),
    ("seqpacket", socket.SOCK_SEQPACKET),
)


@dataclass(frozen=True)
class Proof:
    """One way of sending on one type of socket, such as ``stream, write``: bytes sent, and seen by a hook."""

    way: str
    sent: int
    seen: int

    @property
    def holds(self) -> bool:
        """Tell whether each byte was seen, once."""
        return self.seen == self.sent


def proofs(announce: Callable[[int], None], seen: Callable[[], int], urgent: bool) -> Iterator[Proof]:
    """Send in each way, and yield how much of it the hooks saw.

    ``announce``: takes the inode of the socket whose messages the probe is to count, 0 at the end.
    ``seen``: returns the bytes counted so far.  ``urgent``: whether bytes sent with MSG_OOB are hooked.
    """
    try:
        for name, kind in _TYPES:
            sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
            with sender, receiver:
                announce(os.fstat(sender.fileno()).st_ino)
                ways = {f"{name}, write": _write, f"{name}, splice": _splice}
                if urgent and kind == socket.SOCK_STREAM:
                    ways[URGENT] = _send_urgent
                for way, send in ways.items():
                    with suppress(OSError):  # what the kernel refuses to send need not be captured
                        yield _proof(way, send, sender, seen)
    finally:
        announce(0)


def _proof(
    way: str, send: Callable[[socket.socket], int], sender: socket.socket, seen: Callable[[], int]
) -> Proof:
    for _ in range(_TRIES):
        before = seen()
        proof = Proof(way, send(sender), seen() - before)
        if proof.holds:
            break
    return proof


def _write(sender: socket.socket) -> int:
    return sender.send(_DATA)


def _send_urgent(sender: socket.socket) -> int:
    return sender.send(_DATA[:1], socket.MSG_OOB)


def _splice(sender: socket.socket) -> int:
    fd = os.memfd_create("unixsock")
    try:
        os.write(fd, _DATA)
        return os.sendfile(sender.fileno(), fd, 0, len(_DATA))
    finally:
        os.close(fd)
