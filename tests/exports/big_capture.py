"""Large captures for measurements, as the project's own writer would write them, but quickly."""

from __future__ import annotations

import struct
from pathlib import Path

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Flag, Record, Role, SocketType, encode

#: Time stamp of the first packet, ns since the epoch: 2023-11-14 22:13:20 UTC.
START = 1_700_000_000_000_000_000
_PATHS = [
    b"/run/docker.sock",
    b"/run/php/php8.2-fpm.sock",
    b"/run/redis/redis-server.sock",
    b"/run/dbus/system_bus_socket",
]
_RECORD = 28 + len(pcapng.PACKET_PREFIX)  # in a block


def request(number: int) -> bytes:
    """Return a request that is text, of nearly always the same length."""
    method = b"DELETE" if number % 997 == 512 else b"GET"  # of each path
    return (
        b"%b /v1.41/containers/%08x/json?size=%d HTTP/1.1\r\nHost: docker\r\nUser-Agent: tests/1.0\r\n"
        b"Accept: application/json\r\n\r\n" % (method, number * 2654435761 % (1 << 32), number % 10)
    )


def answer(number: int) -> bytes:
    """Return the answer to ``request(number)``."""
    body = b'{"Id":"%08x","State":{"Status":"running","Pid":%d},"Image":"sha256:%08x","Size":%d}' % (
        number * 2654435761 % (1 << 32), number % 32768, number % 17 * 99991, number % 1000 * 4096,
    )  # fmt: skip
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def write(
    path: Path, count: int, conversations: int = 64, step_ns: int = 8_640_000, padding: bytes = b""
) -> Path:
    """Write ``count`` records of requests and answers in ``conversations`` streams, ``step_ns`` apart.

    Each answer is followed by ``padding``.
    """
    heads = []
    for at in range(conversations):
        client, server, name = 2 * at + 256, 2 * at + 257, _PATHS[at % len(_PATHS)]
        common = {"type": SocketType.STREAM, "flags": Flag.SRC_CREDS | Flag.DST_CREDS | Flag.FROM_START}
        one = Record(
            src_sock=client, dst_sock=server, src_pid=1000 + at, src_tid=1000 + at, dst_pid=77,
            src_comm=b"curl", dst_comm=b"dockerd", dst_name=name, role=Role.DST_IS_SERVER,
            netns=4026531840, **common,
        )  # fmt: skip
        two = Record(
            src_sock=server, dst_sock=client, src_pid=77, src_tid=77, dst_pid=1000 + at,
            src_comm=b"dockerd", dst_comm=b"curl", src_name=name, role=Role.SRC_IS_SERVER,
            netns=4026531840, **common,
        )  # fmt: skip
        heads.append((bytearray(encode(one)), bytearray(encode(two)), [0, 0]))
    positions = struct.Struct("<QQIIII")
    with path.open("wb") as file:
        file.write(pcapng.file_header())
        pieces = []
        for number in range(count):
            exchange, back = divmod(number, 2)
            *both, sent = heads[exchange % conversations]
            head = both[back]
            payload = answer(exchange) + padding if back else request(exchange)
            positions.pack_into(
                head, 72, sent[back], sent[1 - back], exchange // conversations, len(payload), 0, len(payload)
            )
            sent[back] += len(payload)
            pieces.append(pcapng.packet(START + number * step_ns, bytes(head) + payload))
            if len(pieces) == 10_000:
                file.write(b"".join(pieces))
                pieces = []
        file.write(b"".join(pieces))
    return path
