"""Captures for the dissector's tests, made by the project's own writer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Flag, Record, Role, SocketType, encode

#: Time stamp of the first packet, ns since the epoch; the others follow a millisecond apart.
START = 1_700_000_000_000_000_000
CLIENT, SERVER = 0x1001, 0x2002

#: What one side says: True if it is the client, and the bytes.
Turn = tuple[bool, bytes]


def write(path: Path, records: Iterable[Record | bytes]) -> Path:
    """Write ``records`` (bytes go out as they are) as a capture file; gives its path."""
    parts = [
        pcapng.section_header("test", "Linux", "tests"),
        pcapng.interface("unixsock", "Unix sockets", 262144),
        pcapng.names([(CLIENT, "client[10]"), (SERVER, "server[20]")]),
    ]
    for number, record in enumerate(records):
        data = encode(record) if isinstance(record, Record) else record
        parts.append(pcapng.packet(START + number * 1_000_000, data))
    path.write_bytes(b"".join(parts))
    return path


def side(client: bool, name: bytes, kind: SocketType = SocketType.STREAM) -> Record:
    """A data record without payload, from the client or the server at ``name``."""
    common = {"type": kind, "flags": Flag.SRC_CREDS | Flag.DST_CREDS | Flag.FROM_START}
    if client:
        return Record(
            src_sock=CLIENT, dst_sock=SERVER, src_pid=10, dst_pid=20, src_comm=b"client",
            dst_comm=b"server", dst_name=name, role=Role.DST_IS_SERVER, **common,
        )  # fmt: skip
    return Record(
        src_sock=SERVER, dst_sock=CLIENT, src_pid=20, dst_pid=10, src_comm=b"server",
        dst_comm=b"client", src_name=name, role=Role.SRC_IS_SERVER, **common,
    )  # fmt: skip


def conversation(
    name: bytes, turns: Sequence[Turn], kind: SocketType = SocketType.STREAM, close: bool = True
) -> list[Record]:
    """Records in which each turn is one message, with right positions, and a close of both sides."""
    sent = {True: 0, False: 0}
    count = {True: 0, False: 0}
    records = []
    for client, data in turns:
        records.append(
            replace(
                side(client, name, kind),
                seq=sent[client],
                ack=sent[not client],
                message=count[client],
                len=len(data),
                payload=data,
            )
        )
        sent[client] += len(data)
        count[client] += 1
    if close and kind == SocketType.STREAM:
        records += [
            replace(side(client, name), event=Event.CLOSE, seq=sent[client], ack=sent[not client])
            for client in (True, False)
        ]
    return records
