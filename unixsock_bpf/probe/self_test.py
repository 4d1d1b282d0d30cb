"""The probe's test of itself: what it sends through sockets of its own must come through its hooks.

It happens before a capture says that it captures, while the probe records nothing: the program that would make
a record of such a message adds its length up instead (``prove`` in bpf/records.bpf.c).  A compiler may have put a
hooked function into its caller, and attaching succeeds all the same; only this shows it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from unixsock_bpf.errors import ProbeError

#: Bytes that each way of sending sends: more than one, so that each record's length counts.
_DATA = b"unixsock"


@dataclass(frozen=True)
class Proof:
    """One way of sending on one type of socket, and whether what was sent came through the hooks."""

    text: str
    seen: int
    sent: int

    @property
    def holds(self) -> bool:
        """Tell whether each byte was seen, once."""
        return self.seen == self.sent


def _write(sender: socket.socket) -> int:
    return sender.send(_DATA)


def _splice(sender: socket.socket) -> int:
    fd = os.memfd_create("unixsock")
    try:
        os.write(fd, _DATA)
        return os.sendfile(sender.fileno(), fd, 0, len(_DATA))
    finally:
        os.close(fd)


def _urgent(sender: socket.socket) -> int:
    return sender.send(_DATA[:1], socket.MSG_OOB)


_TYPES = (
    ("stream", socket.SOCK_STREAM),
    ("dgram", socket.SOCK_DGRAM),
    ("seqpacket", socket.SOCK_SEQPACKET),
)


def run(announce: Callable[[int], None], seen: Callable[[], int], urgent: bool) -> list[Proof]:
    """Send in each way, and return what came of it.

    ``announce``: tells the probe the inode of the socket whose messages count.  ``seen``: bytes that it
    counted so far.  ``urgent``: whether bytes sent with MSG_OOB are hooked.
    """
    return list(_proofs(announce, seen, urgent))


def _proofs(announce: Callable[[int], None], seen: Callable[[], int], urgent: bool) -> Iterator[Proof]:
    for name, kind in _TYPES:
        sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
        with sender, receiver:
            announce(os.fstat(sender.fileno()).st_ino)
            ways: list[tuple[str, Callable[[socket.socket], int]]] = [("write", _write), ("splice", _splice)]
            if urgent and kind == socket.SOCK_STREAM:
                ways.append(("MSG_OOB", _urgent))
            for way, send in ways:
                before = seen()
                with suppress(OSError):  # a kernel without it has nothing to capture there
                    sent = send(sender)
                    yield Proof(f"{name}, {way}", seen() - before, sent)
    announce(0)


def check(proofs: Sequence[Proof], functions: Callable[[str], str]) -> None:
    """Raise ProbeError that names the functions whose hooks did not see what was sent.

    ``functions``: names those that a way of sending goes through.
    """
    for proof in proofs:
        if not proof.holds:
            raise ProbeError(
                f"of {proof.sent} bytes sent by the probe itself ({proof.text}), its hook on "
                f"{functions(proof.text)} saw {proof.seen}"
            )
