"""Import of sockdump's pcaps, which have a header of their own before each message.

It holds the receiver's and the sender's process, big-endian, and in newer versions the path before them, as
a length and 108 bytes.  They tell no socket, no type, no role: a conversation is what two processes say at
one path.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from unixsock_bpf.foreign.conversations import ForeignError, Positions
from unixsock_bpf.formats.pcapng import Buffer
from unixsock_bpf.record import Record

_FILE_HEADER = struct.Struct("<IHHiIII")
_PACKET_HEADER = struct.Struct("<IIII")
_UNITS_NS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
#: The link type that sockdump writes, USER0.
LINKTYPE = 147
_PIDS = struct.Struct(">QQ")
_PATH = 109
_LARGEST_PID = 1 << 22


def recognise(head: bytes) -> bool:
    """Tell whether a file that begins like this may be sockdump's."""
    if len(head) < _FILE_HEADER.size:
        return False
    values = _FILE_HEADER.unpack_from(head)
    return values[0] in _UNITS_NS and values[6] & 0xFFFF == LINKTYPE


def _packets(data: Buffer) -> Iterator[tuple[int, int, int, int]]:
    """Yield time, begin, end and original length of each packet.  Raises ForeignError."""
    unit_ns = _UNITS_NS[_FILE_HEADER.unpack_from(data)[0]]
    at = _FILE_HEADER.size
    while at < len(data):
        if at + _PACKET_HEADER.size > len(data):
            raise ForeignError(f"it ends in the head of a packet, at byte {at}")
        seconds, rest, caplen, length = _PACKET_HEADER.unpack_from(data, at)
        begin = at + _PACKET_HEADER.size
        if begin + caplen > len(data):
            raise ForeignError(f"packet at byte {at} is cut short")
        yield seconds * 1_000_000_000 + rest * unit_ns, begin, begin + caplen, length
        at = begin + caplen


def _has_pids(data: Buffer, at: int, end: int) -> bool:
    return at + _PIDS.size <= end and all(pid < _LARGEST_PID for pid in _PIDS.unpack_from(data, at))


def _has_path(data: Buffer, begin: int, end: int) -> bool:
    """Tell whether a packet has the newer header: a path's length, the path in 108 bytes, processes."""
    if not _has_pids(data, begin + _PATH, end):
        return False
    length = data[begin]
    path = bytes(data[begin + 1 : begin + _PATH])
    return length < _PATH and not any(path[length:])


def records(data: Buffer, tick: Callable[[int], bool]) -> Iterator[tuple[int, Record]]:
    """Yield time and record of each message.  Raises ForeignError where it is another kind of file."""
    newer = older = True
    try:
        for number, (_, begin, end, _) in enumerate(_packets(data)):
            newer = newer and _has_path(data, begin, end)
            older = older and _has_pids(data, begin, end)
            if not (newer or older) or number == 10_000:
                break
    except ForeignError:
        pass  # reported below, after what is whole
    if not (newer or older):
        raise ForeignError("its packets (link type 147) have neither of the headers that sockdump writes")
    skip = _PATH if newer else 0
    positions = Positions()
    first: dict[tuple[int, int, bytes], int] = {}  # the process that received first
    for time_ns, begin, end, length in _packets(data):
        if tick(begin):
            return
        path = bytes(data[begin + 1 : begin + 1 + data[begin]]) if skip else b""
        if not _has_pids(data, begin + skip, end):
            raise ForeignError(f"the packet at byte {begin} has another header than those before")
        peer, pid = _PIDS.unpack_from(data, begin + skip)
        one = Record(src_pid=pid, dst_pid=peer)
        one.src_sock, one.dst_sock = _identity(path, pid, peer), _identity(path, peer, pid)
        # At which end the path is, is not told: it is kept at the one that received first.
        key = min(pid, peer), max(pid, peer), path
        if len(first) > 1 << 16:
            first.clear()
        if first.setdefault(key, peer) == peer:
            one.dst_name = path
        else:
            one.src_name = path
        payload = bytes(data[begin + skip + _PIDS.size : end])
        total = max(len(payload), length - skip - _PIDS.size)
        for record in positions.records(one, payload, total):
            yield time_ns, record


def _identity(path: bytes, pid: int, peer: int) -> int:
    """Return an identity for one end: which socket it was is not told."""
    return zlib.crc32(path + _PIDS.pack(pid, peer)) << 24 | pid & 0xFFFFFF or 1
