"""Records in saved captures: pcapng, and classic pcap as ``unixsock dump --format pcap`` writes it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng

#: Classic pcap: magic number (little-endian) to nanoseconds in a unit of its time stamps.
_PCAP = {b"\xd4\xc3\xb2\xa1": 1000, b"\x4d\x3c\xb2\xa1": 1}
_PCAPNG = struct.pack("<I", pcapng.SHB)
#: Blocks that Wireshark counts as packets: obsolete, simple and enhanced packets, the systemd
#: journal's entries, custom blocks.
_COUNTED = {2, 3, pcapng.EPB, 9, 0xBAD, 0x40000BAD}


class SavedError(ValueError):
    """A file that holds no records of ours: says why, and where."""


@dataclass
class Saved:
    """One record of a file.  ``number`` is Wireshark's frame number, from 1."""

    number: int
    time_ns: int
    record: record.Record


def read(path: str) -> Iterator[Saved]:
    """The records in a file, in order; packets of other link types are left out.

    Raises OSError for a file that cannot be read; SavedError for one of another kind, without
    a packet of ours, cut short, or of a newer version.
    """
    with open(path, "rb") as file:
        data = _content(file.fileno())
    others = 0
    ours = 0
    for number, time_ns, packet in _packets(data):
        if packet is None:
            others += 1
            continue
        ours += 1
        try:
            yield Saved(number, time_ns, record.decode(packet))
        except record.RecordError as error:
            raise SavedError(f"packet {number}: {error}") from None
    if others and not ours:
        raise SavedError("it holds packets, but none of Unix sockets (another link type)")


def _content(fd: int) -> bytes | mmap.mmap:
    """A file's bytes; mapped, so that large captures do not have to fit."""
    try:
        return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # a pipe, or empty
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read()


def _packets(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, bytes | None]]:
    """Frame number, time in ns and record of each packet; None for packets that aren't ours."""
    magic = data[:4]
    if magic == _PCAPNG:
        return _from_pcapng(data)
    if magic in _PCAP:
        return _from_pcap(data, _PCAP[magic])
    if not magic:
        raise SavedError("it is empty")
    raise SavedError("it is neither a pcapng nor a pcap file (little-endian, not compressed)")


def _from_pcapng(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, bytes | None]]:
    """Wraps pcapng's reader, which knows of no frame numbers, block by block."""
    head = b""  # the section so far: what tells interfaces
    number = 0
    try:
        for kind, body in pcapng.blocks(memoryview(data)):
            if kind == pcapng.SHB:
                head = pcapng.block(kind, bytes(body))
            elif kind == pcapng.IDB:
                head += pcapng.block(kind, bytes(body))
            elif kind in _COUNTED:
                number += 1
                found = None
                if kind == pcapng.EPB:
                    found = next(pcapng.packets(head + pcapng.block(kind, bytes(body))), None)
                yield number, found.time_ns if found else 0, found.data if found else None
    except pcapng.PcapngError as error:
        raise SavedError(str(error)) from None


def _from_pcap(data: bytes | mmap.mmap, unit_ns: int) -> Iterator[tuple[int, int, bytes | None]]:
    if len(data) < 24:
        raise SavedError("it ends in its header")
    ours = struct.unpack_from("<I", data, 20)[0] & 0xFFFF == pcapng.LINKTYPE_UPPER_PDU
    at, number = 24, 0
    while at < len(data):
        if at + 16 > len(data):
            raise SavedError(f"it ends in the head of a packet, at byte {at}")
        seconds, rest, caplen, _ = struct.unpack_from("<IIII", data, at)
        if at + 16 + caplen > len(data):
            raise SavedError(f"packet at byte {at} is cut short")
        packet = data[at + 16 : at + 16 + caplen]
        number += 1
        prefixed = ours and packet.startswith(pcapng.PACKET_PREFIX)
        yield (
            number,
            seconds * 1_000_000_000 + rest * unit_ns,
            packet[len(pcapng.PACKET_PREFIX) :] if prefixed else None,
        )
        at += 16 + caplen
