"""Format ``pcap``: classic pcap, little-endian; written with nanoseconds, read with micro- or nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Sequence

from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.base import Format
from unixsock_bpf.formats.pcapng import Block, Buffer, Packet, Skip, Span

_MAGIC_NS = 0xA1B23C4D
_FILE_HEADER = struct.Struct("<IHHiIII")
_PACKET_HEADER = struct.Struct("<IIII")
#: First bytes of a file, and nanoseconds in a unit of its time stamps.
UNITS_NS = {b"\xd4\xc3\xb2\xa1": 1000, b"\x4d\x3c\xb2\xa1": 1}


class PcapError(ValueError):
    """Bytes that are not a pcap file of ours; the text says what is wrong, and where."""


class PcapWriter:
    """Writes packets without names and statistics."""

    def header(self) -> list[Block]:
        return [_FILE_HEADER.pack(_MAGIC_NS, 2, 4, 0, 0, pcapng.MAX_BLOCK, pcapng.LINKTYPE_UPPER_PDU)]

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        packets: list[Block] = []
        for block in blocks:
            if pcapng.is_packet(block):
                packet = pcapng.packet_of(block)
                seconds, rest = divmod(packet.time_ns, 1_000_000_000)
                length = len(pcapng.PACKET_PREFIX) + len(packet.data)
                head = _PACKET_HEADER.pack(seconds, rest, length, length)
                packets.append(head + pcapng.PACKET_PREFIX + packet.data)
        return packets

    def trailer(self, time_ns: int, captured: int, lost: int, comment: str = "") -> list[Block]:
        return []


def spans(data: Buffer) -> Generator[Span, Skip | None, None]:
    """Yield each packet's place in ``data``, as ``pcapng.spans`` does.  Raises PcapError."""
    unit_ns = UNITS_NS[bytes(data[:4])]
    if len(data) < _FILE_HEADER.size:
        raise PcapError("it ends in its header")
    ours = struct.unpack_from("<I", data, 20)[0] & 0xFFFF == pcapng.LINKTYPE_UPPER_PDU
    prefix = pcapng.PACKET_PREFIX
    at, number = _FILE_HEADER.size, 0
    while at < len(data):
        if at + _PACKET_HEADER.size > len(data):
            raise PcapError(f"it ends in the head of a packet, at byte {at}")
        seconds, rest, caplen, _ = _PACKET_HEADER.unpack_from(data, at)
        begin = at + _PACKET_HEADER.size
        at = begin + caplen
        if at > len(data):
            raise PcapError(f"packet at byte {begin - _PACKET_HEADER.size} is cut short")
        number += 1
        if ours and data[begin : min(begin + len(prefix), at)] == prefix:
            yield Span(number, seconds * 1_000_000_000 + rest * unit_ns, begin + len(prefix), at, 0)
        else:
            yield Span(number, 0, 0, 0, 0)


def frames(data: Buffer) -> Iterator[tuple[int, Packet | None]]:
    """Yield the frame number of each packet, and the packet if it is ours.  Raises PcapError."""
    for number, time_ns, begin, end, _ in spans(data):
        yield number, Packet(time_ns, bytes(data[begin:end])) if begin else None


FORMAT = Format("pcap", lambda _: PcapWriter(), binary=True)
