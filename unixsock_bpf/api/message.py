"""A record and its packet as Python programs get them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from unixsock_bpf import record
from unixsock_bpf.formats import json_lines, reader


class MessagesError(Exception):
    """A capture that could not be made or read, in one sentence."""


@dataclass(frozen=True)
class End:
    """One endpoint of a conversation.  None is "not known"; ``name`` is as people write it."""

    pid: int | None
    comm: str | None
    uid: int | None
    gid: int | None
    inode: int | None
    name: str | None


@dataclass(frozen=True)
class Message:
    """One record.

    ``number`` is the frame number, ``time_ns`` the time since the epoch in nanoseconds,
    ``path`` the bound name of the conversation, ``event`` a number if this version does not know it,
    ``packet`` pyshark's packet.
    """

    number: int
    time_ns: int
    event: record.Event | int
    type: record.SocketType | None
    path: str | None
    src: End
    dst: End
    payload: bytes
    fds: tuple[record.Fd, ...]
    record: record.Record
    packet: Any


def _name(name: bytes) -> str | None:
    return record.display_name(name).decode("utf-8", "backslashreplace") or None


def _endpoint(one: record.Record, side: str) -> End:
    known = json_lines.endpoint(one, side)
    return End(**{each.name: known.get(each.name) for each in fields(End)})


def message(one: reader.Saved, packet: Any) -> Message:
    """Return the message for a record and pyshark's packet of the same frame."""
    decoded = one.record
    types = record.SocketType._value2member_map_
    events = record.Event._value2member_map_
    return Message(
        one.number,
        one.time_ns,
        record.Event(decoded.event) if decoded.event in events else decoded.event,
        record.SocketType(decoded.type) if decoded.type in types else None,
        _name(decoded.name),
        _endpoint(decoded, "src"),
        _endpoint(decoded, "dst"),
        decoded.payload,
        tuple(decoded.fds),
        decoded,
        packet,
    )
