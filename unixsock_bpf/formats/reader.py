"""Records in saved captures: pcapng, and classic pcap as ``unixsock dump --format pcap`` writes it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from unixsock_bpf import record
from unixsock_bpf.formats import pcap, pcapng
from unixsock_bpf.formats.pcapng import Packet

_PCAPNG = struct.pack("<I", pcapng.SHB)


class SavedError(ValueError):
    """A file that holds no records of ours; the text says why, and where."""


@dataclass
class Saved:
    """One record of a file.  ``number`` is Wireshark's frame number, from 1."""

    number: int
    time_ns: int
    record: record.Record


def read(path: str) -> Iterator[Saved]:
    """Yield the records in a file, in order; packets of other link types are left out.

    Raises OSError for a file that cannot be read; SavedError for one of another kind, without
    a packet of ours, cut short, or of a newer version.
    """
    with open(path, "rb") as file:
        data = _content(file.fileno())
    others = 0
    ours = 0
    try:
        for number, packet in _frames(data):
            if packet is None:
                others += 1
                continue
            ours += 1
            try:
                yield Saved(number, packet.time_ns, record.decode(packet.data))
            except record.RecordError as error:
                raise SavedError(f"packet {number}: {error}") from None
    except (pcap.PcapError, pcapng.PcapngError) as error:
        raise SavedError(str(error)) from None
    if others and not ours:
        raise SavedError("it holds packets, but none of Unix sockets (another link type)")


def _content(fd: int) -> bytes | mmap.mmap:
    """Return a file's bytes; mapped, so that large captures do not have to fit in memory."""
    try:
        return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # a pipe, or empty
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read()


def _frames(data: bytes | mmap.mmap) -> Iterator[tuple[int, Packet | None]]:
    """Yield the frame number of each packet, and the packet if it is ours."""
    magic = data[:4]
    if magic == _PCAPNG:
        return pcapng.frames(memoryview(data))
    if magic in pcap.UNITS_NS:
        return pcap.frames(data)
    if not magic:
        raise SavedError("it is empty")
    raise SavedError("it is neither a pcapng nor a pcap file (little-endian, not compressed)")
