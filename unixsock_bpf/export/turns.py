"""Conversations of a saved capture as bytes in order: what servers and clients said, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from unixsock_bpf.formats.reader import Saved
from unixsock_bpf.record import Event, Flag, Record, Role, SocketType

#: Conversations that are remembered at a time.
_MOST = 1 << 16


@dataclass
class Conversation:
    """Two sockets by identity; where neither serves, the first to speak is the client.

    ``number`` counts conversations from 0 in order of appearance.
    """

    number: int
    client: int
    server: int
    type: int
    name: bytes
    client_process: tuple[bytes, int] = (b"", 0)
    server_process: tuple[bytes, int] = (b"", 0)
    #: Position after the last byte, of each direction by its sender.
    positions: dict[int, int] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    @property
    def is_stream(self) -> bool:
        """Whether its messages have no borders."""
        return self.type == SocketType.STREAM


@dataclass
class Piece:
    """Bytes of one direction, or what ended: ``event`` is as in the record.

    ``missing``: bytes that are missing before these.  ``more``: the message goes on in the next piece.
    """

    conversation: Conversation
    to_server: bool
    time_ns: int
    payload: bytes
    missing: int = 0
    event: int = Event.DATA
    more: bool = False
    frame: int = 0


def _begin(number: int, one: Record) -> Conversation:
    src_serves = one.role == Role.SRC_IS_SERVER or (
        one.role == Role.UNKNOWN and bool(one.src_name and not one.dst_name)
    )
    src, dst = one.src_sock, one.dst_sock
    client, server = (dst, src) if src_serves else (src, dst)
    return Conversation(number, client, server, one.type, one.name)


def pieces(records: Iterable[Saved]) -> Iterator[Piece]:
    """Yield the pieces of all conversations in the order of the capture.

    A conversation whose both sides are closed is forgotten; so is the oldest of too many.
    """
    known: dict[frozenset[int], Conversation] = {}
    count = 0
    for saved in records:
        one = saved.record
        if not one.src_sock or not one.dst_sock:
            continue
        key = frozenset((one.src_sock, one.dst_sock))
        found = known.get(key)
        if found is None:
            if one.event != Event.DATA:  # nothing was said, or nothing more
                continue
            if len(known) >= _MOST:
                del known[next(iter(known))]
            found = known[key] = _begin(count, one)
            count += 1
        to_server = one.dst_sock == found.server
        src, dst = (one.src_comm, one.src_pid), (one.dst_comm, one.dst_pid)
        if to_server:
            found.client_process = src if src[1] else found.client_process
            found.server_process = dst if dst[1] else found.server_process
        else:
            found.server_process = src if src[1] else found.server_process
            found.client_process = dst if dst[1] else found.client_process
        found.name = found.name or one.name
        if one.event == Event.DATA:
            at = one.seq + one.offset
            begin = 0 if one.flags & Flag.FROM_START else at
            missing = max(0, at - found.positions.get(one.src_sock, begin))
            found.positions[one.src_sock] = at + len(one.payload)
            more = bool(one.flags & Flag.MORE)
            yield Piece(found, to_server, saved.time_ns, one.payload, missing, Event.DATA, more, saved.number)
        elif one.event in (Event.SHUTDOWN, Event.CLOSE):
            if one.event == Event.SHUTDOWN and one.how not in (1, 2):
                continue
            yield Piece(found, to_server, saved.time_ns, b"", 0, one.event, False, saved.number)
            if one.event == Event.CLOSE:
                found.closed.add(one.src_sock)
                if len(found.closed) == 2:
                    del known[key]
