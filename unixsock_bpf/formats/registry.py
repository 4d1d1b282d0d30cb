"""The formats of a dump: each turns blocks of a capture into pieces to write.  No I/O happens here."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Sequence
from typing import Protocol

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng, text
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.version import __version__

#: Formats that are not for a terminal.
BINARY = ("pcap", "pcapng")
FORMATS = (*text.TEXT, "json", *BINARY)

_PCAP_MAGIC_NS = 0xA1B23C4D


class Sink(Protocol):
    """One format."""

    def header(self) -> list[Block]:
        """What stands before the first record."""

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        """``blocks`` in this format."""

    def trailer(self, time_ns: int, captured: int, lost: int) -> list[Block]:
        """What stands after the last record."""


class TextSink:
    """string, hex, hexstring and json."""

    def __init__(self, form: str, *, coloured: bool = False) -> None:
        self._form, self._coloured = form, coloured

    def header(self) -> list[Block]:
        return []

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        texts: list[Block] = []
        for block in blocks:
            if is_packet(block):
                packet = pcapng.packet_of(block)
                texts.append(self._text(packet.time_ns, record.decode(packet.data)).encode())
        return texts

    def _text(self, time_ns: int, decoded: record.Record) -> str:
        if self._form == "json":
            return text.json_line(time_ns, decoded)
        return text.text(time_ns, decoded, self._form, coloured=self._coloured)

    def trailer(self, time_ns: int, captured: int, lost: int) -> list[Block]:
        return []


class PcapngSink:
    """Blocks as they are, between a file's first and last blocks."""

    def __init__(self, snaplen: int = 0, capture_filter: str = "") -> None:
        self._snaplen, self._filter = snaplen, capture_filter

    def header(self) -> list[Block]:
        system = os.uname()
        return [
            pcapng.section_header(
                system.machine, f"{system.sysname} {system.release}", f"unixsock {__version__}"
            ),
            pcapng.interface("unixsock", f"Unix sockets of {platform.node()}", self._snaplen, self._filter),
        ]

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        return list(blocks)

    def trailer(self, time_ns: int, captured: int, lost: int) -> list[Block]:
        return [pcapng.statistics(time_ns, captured, lost)]


class PcapSink:
    """The same packets as classic pcap with nanoseconds."""

    def header(self) -> list[Block]:
        head = (_PCAP_MAGIC_NS, 2, 4, 0, 0, pcapng.MAX_BLOCK, pcapng.LINKTYPE_UPPER_PDU)
        return [struct.pack("<IHHiIII", *head)]

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        packets: list[Block] = []
        for block in blocks:
            if is_packet(block):
                packet = pcapng.packet_of(block)
                seconds, rest = divmod(packet.time_ns, 1_000_000_000)
                length = len(pcapng.PACKET_PREFIX) + len(packet.data)
                head = struct.pack("<IIII", seconds, rest, length, length)
                packets.append(head + pcapng.PACKET_PREFIX + packet.data)
        return packets

    def trailer(self, time_ns: int, captured: int, lost: int) -> list[Block]:
        return []


def is_packet(block: Block) -> bool:
    """Whether a block holds a record (rather than names)."""
    return bool(block[:4] == b"\x06\0\0\0")


def is_close(block: Block) -> bool:
    """Whether a block holds the record of a close."""
    return is_packet(block) and block[28 + len(pcapng.PACKET_PREFIX) + 1] == record.Event.CLOSE


def sink(form: str, *, coloured: bool, snaplen: int, capture_filter: str) -> Sink:
    """The sink for one of FORMATS."""
    if form == "pcapng":
        return PcapngSink(snaplen, capture_filter)
    if form == "pcap":
        return PcapSink()
    return TextSink(form, coloured=coloured)
