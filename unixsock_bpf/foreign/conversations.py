"""Records of what other programs saw: positions are counted here, what is not known stays unknown."""

from __future__ import annotations

from collections.abc import Iterator

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.record import MAX_PAYLOAD, Flag, Record

#: Directions whose positions are remembered.
_MOST = 1 << 17


class ForeignError(UnixsockError):
    """A file that cannot be imported: one sentence."""


class Positions:
    """Counts bytes and messages of each direction since the file's begin."""

    def __init__(self) -> None:
        self._directions: dict[tuple[int, int], tuple[int, int]] = {}

    def records(self, record: Record, payload: bytes, length: int) -> Iterator[Record]:
        """Yield the records of a message of ``length`` bytes, of which ``payload`` was seen."""
        src, dst = record.src_sock, record.dst_sock
        seq, message = self._directions.pop((src, dst), (0, 0))
        record.seq, record.message, record.len = seq, message & 0xFFFFFFFF, min(length, 0xFFFFFFFF)
        record.ack = self._directions.get((dst, src), (0, 0))[0]
        if len(self._directions) >= _MOST:
            del self._directions[next(iter(self._directions))]
        self._directions[src, dst] = seq + length, message + 1
        flags = record.flags | (Flag.TRUNCATED if len(payload) < length else 0)
        for at in range(0, max(1, len(payload)), MAX_PAYLOAD):
            record.offset, record.payload = at, payload[at : at + MAX_PAYLOAD]
            record.flags = flags | (Flag.MORE if at + MAX_PAYLOAD < len(payload) else 0)
            yield record

    def of(self, record: Record) -> tuple[int, int]:
        """Return how many bytes a record's direction and the opposite one have had."""
        src, dst = record.src_sock, record.dst_sock
        return self._directions.get((src, dst), (0, 0))[0], self._directions.get((dst, src), (0, 0))[0]
