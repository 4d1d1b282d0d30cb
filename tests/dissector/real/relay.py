"""relay.py OUT LISTEN CONNECT [NAME]: pass on what programs say over a stream socket, and record it in OUT.

For programs that run here, in a chroot: the bytes are theirs; who speaks is read from the sockets' peer
credentials, and each read of the relay is a record.  Ends with SIGTERM, or when nothing was said for 30 s;
with NAME, which the records have for CONNECT, with SIGTERM only.
"""

from __future__ import annotations

import array
import contextlib
import os
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from unixsock_bpf.formats import pcapng  # noqa: E402
from unixsock_bpf.record import Event, Flag, Record, Role, SocketType, encode  # noqa: E402

QUIET = 30.0  # seconds
SIZE = 65536


@dataclass
class Side:
    """One end of a relayed conversation, and what it has said."""

    sock: socket.socket
    number: int
    pid: int
    comm: bytes
    sent: int = 0
    messages: int = 0
    other: Side = field(init=False)
    client: bool = False


def peer(sock: socket.socket) -> tuple[int, bytes]:
    """The process at the other end, and its name."""
    pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    with contextlib.suppress(OSError):
        return pid, Path(f"/proc/{pid}/comm").read_bytes().strip()
    return pid, b""


def record(side: Side, name: bytes, event: Event, data: bytes, fds: int) -> Record:
    """What ``side`` said, with the positions of both directions."""
    other = side.other
    return Record(
        event=event, type=SocketType.STREAM, flags=Flag.FROM_START,
        role=Role.DST_IS_SERVER if side.client else Role.SRC_IS_SERVER,
        src_pid=side.pid, dst_pid=other.pid, src_comm=side.comm, dst_comm=other.comm,
        src_name=b"" if side.client else name, dst_name=name if side.client else b"",
        src_sock=side.number, dst_sock=other.number, seq=side.sent, ack=other.sent, message=side.messages,
        len=len(data), payload=data, fds_count=fds,
    )  # fmt: skip


def main() -> int:
    out_path, listen_path, connect_path = (Path(arg) for arg in sys.argv[1:4])
    quiet = None if sys.argv[4:] else QUIET
    name = os.fsencode(sys.argv[4] if sys.argv[4:] else connect_path)
    listener = socket.socket(socket.AF_UNIX)
    listen_path.unlink(missing_ok=True)
    listener.bind(str(listen_path))
    listen_path.chmod(0o777)
    listener.listen()
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    count = 0
    with out_path.open("wb", buffering=0) as out:
        out.write(pcapng.section_header("relay", "Linux", "tests") + pcapng.interface("unixsock", "", 262144))
        while ready := waiting.select(quiet):
            for key, _ in ready:
                side: Side | None = key.data
                if side is None:
                    client, server = listener.accept()[0], socket.socket(socket.AF_UNIX)
                    server.connect(str(connect_path))
                    count += 1
                    ends = [
                        Side(sock, os.getpid() << 32 | count << 8 | at, *peer(sock))
                        for at, sock in enumerate((client, server))
                    ]
                    ends[0].client = True
                    ends[0].other, ends[1].other = ends[1], ends[0]
                    for end in ends:
                        waiting.register(end.sock, selectors.EVENT_READ, end)
                    continue
                try:
                    data, fds, _, _ = socket.recv_fds(side.sock, SIZE, 64)
                except OSError:
                    data, fds = b"", []
                event = Event.DATA if data else Event.CLOSE
                out.write(pcapng.packet(time.time_ns(), encode(record(side, name, event, data, len(fds)))))
                side.sent, side.messages = side.sent + len(data), side.messages + 1
                with contextlib.suppress(OSError):
                    if data:
                        rights = (
                            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                        )
                        # Descriptors come with the last byte: some programs read what is before without.
                        before = data[:-1] if fds else b""
                        if before:
                            side.other.sock.sendall(before)
                        sent = len(before) + side.other.sock.sendmsg([data[len(before) :]], rights)
                        side.other.sock.sendall(data[sent:])
                    else:
                        side.other.sock.shutdown(socket.SHUT_WR)
                for fd in fds:
                    os.close(fd)
                if not data:
                    waiting.unregister(side.sock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
