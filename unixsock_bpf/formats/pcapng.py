"""pcapng blocks as bytes, and the way a record is wrapped in them.

Only what this project writes and reads: section header, interface description,
enhanced packet, name resolution and interface statistics blocks, little-endian,
nanoseconds.  Source: draft-ietf-opsawg-pcapng.  No I/O happens here.
"""

from __future__ import annotations

import ipaddress
import mmap
import os
import struct
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Union

from unixsock_bpf import record
from unixsock_bpf.version import __version__

#: A whole block; captured ones are views of the ring.
Block = Union[bytes, memoryview]
#: A file's content.
Buffer = Union[bytes, memoryview, mmap.mmap]

SHB = 0x0A0D0D0A
IDB = 1
NRB = 4
ISB = 5
EPB = 6
#: A custom block, Wireshark's number as a private enterprise, and its entry for processes.
_CUSTOM, _WIRESHARK, _PROCESS_INFORMATION = 0xBAD, 32622, 3
_EPB_TYPE, _ISB_TYPE, _NRB_TYPE = (struct.pack("<I", kind) for kind in (EPB, ISB, NRB))
#: Blocks that Wireshark counts as packets: obsolete, simple and enhanced packets, the systemd
#: journal's entries, custom blocks.
_COUNTED = {2, 3, EPB, 9, 0xBAD, 0x40000BAD}

#: LINKTYPE_WIRESHARK_UPPER_PDU: packets name their own dissector, which USER0 to USER15 cannot.
LINKTYPE_UPPER_PDU = 252

#: An enhanced packet's block up to its data.
_EPB = struct.Struct("<IIIIIII")
_LENGTH = struct.Struct("<I")
_TIME = struct.Struct("<II")

_LINKTYPE = struct.pack("<H", LINKTYPE_UPPER_PDU)
#: The byte-order magic of a section, as this package writes it.
_LITTLE_ENDIAN = struct.pack("<I", 0x1A2B3C4D)

_DISSECTOR_TAG = 12  # EXP_PDU_TAG_DISSECTOR_NAME
_DISSECTOR = b"unixsock"

#: The constant first bytes of each packet: the dissector's name, then the end of the tags.
#: (Tags are big-endian, whatever the section is.)
PACKET_PREFIX = struct.pack(">HH", _DISSECTOR_TAG, len(_DISSECTOR)) + _DISSECTOR + bytes(4)

#: Where a record has its header's length, and names its sockets.
_HEADER_LEN, _HEADER_LEN_AT = struct.Struct("<H"), record.HEADER_OFFSETS["header_len"]
_SENDER_AT = record.HEADER_OFFSETS["src_pid"], record.HEADER_OFFSETS["src_tid"]
_SOCKETS, _SOCKETS_AT = struct.Struct("<QQ"), record.HEADER_OFFSETS["src_sock"]

#: A packet's option of just 8 bytes: process and thread (epb_processid_threadid).
PROCESS_OPTION = 8
#: What Wireshark and dumpcap accept as one block.
MAX_BLOCK = 262_144

#: "unix" in an unassigned network.  Its first "e" follows a letter: Wireshark's graphs draw "6e6" as a
#: power of ten.
_ENDPOINT_NET = int(ipaddress.IPv6Address("fdfe:756e:6978::"))


class PcapngError(ValueError):
    """Bytes that are not a pcapng file of ours; the text says what is wrong, and where."""


def endpoint_address(sock: int) -> ipaddress.IPv6Address:
    """Return the pseudo address of the socket with identity ``sock`` (``src_sock``, ``dst_sock``)."""
    return ipaddress.IPv6Address(_ENDPOINT_NET | sock)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    body = b"".join(struct.pack("<HH", code, len(value)) + _pad(value) for code, value in options)
    return body + bytes(4) if body else b""


def block(kind: int, body: bytes) -> bytes:
    """Return a whole block of type ``kind`` around ``body``."""
    body = _pad(body)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def section_header(hardware: str, os: str, application: str) -> bytes:
    """Return the block that begins a file; the texts name what wrote it."""
    texts = [(2, hardware.encode()), (3, os.encode()), (4, application.encode())]
    return block(SHB, _LITTLE_ENDIAN + struct.pack("<HHq", 1, 0, -1) + _options(texts))


def interface(
    name: str, description: str, snaplen: int, capture_filter: str = "", comment: str = ""
) -> bytes:
    """Return an interface of our link type with time stamps in nanoseconds since the epoch."""
    options = [(2, name.encode()), (3, description.encode()), (9, b"\x09")]
    if comment:
        options.append((1, comment.encode()))
    if capture_filter:
        options.append((11, b"\0" + capture_filter.encode()))
    return block(IDB, struct.pack("<HHI", LINKTYPE_UPPER_PDU, 0, snaplen) + _options(options))


#: How an interface's description begins: the host's name follows.
DESCRIPTION = "Unix sockets of "


@dataclass(frozen=True)
class Host:
    """A host that a capture is of, as an interface of its file; ``comment``: how its clock stands."""

    name: str
    comment: str = ""


def file_header(snaplen: int = 0, capture_filter: str = "", hosts: Iterable[Host] = ()) -> bytes:
    """Return the blocks that begin a file: section, and an interface for each of ``hosts``; none: this one.

    Each description names its host, so that what merges files keeps their interfaces apart.
    """
    system = os.uname()
    section = section_header(system.machine, f"{system.sysname} {system.release}", f"unixsock {__version__}")
    interfaces = [
        interface(host.name, f"{DESCRIPTION}{host.name}", snaplen, capture_filter, host.comment)
        for host in hosts
    ] or [interface("unixsock", f"{DESCRIPTION}{system.nodename}", snaplen, capture_filter)]
    return section + b"".join(interfaces)


def packet(time_ns: int, encoded: bytes, interface_id: int = 0) -> bytes:
    """Return an encoded record as an enhanced packet block, as the probe makes them."""
    data = PACKET_PREFIX + encoded
    head = struct.pack("<IIIII", interface_id, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), len(data))
    return block(EPB, head + _pad(data) + _options(_process(encoded)))


def _process(encoded: bytes) -> list[tuple[int, bytes]]:
    """Return the option epb_processid_threadid for a record's sender, where that is known."""
    if len(encoded) < record.HEADER_LEN:
        return []
    ids = [encoded[at : at + 4] for at in _SENDER_AT]
    return [(PROCESS_OPTION, b"".join(ids))] if any(ids[0]) else []


def with_elements(block: Block, elements: bytes, end: int = 0) -> bytes:
    """Return a packet's block with ``elements`` behind those of its record, or from byte ``end`` on."""
    view = memoryview(block)
    (caplen,) = _LENGTH.unpack_from(view, 20)
    begin = 28 + len(PACKET_PREFIX)
    (header,) = _HEADER_LEN.unpack_from(view, begin + _HEADER_LEN_AT)
    longer = _HEADER_LEN.pack(header + len(elements))
    at, end = begin + _HEADER_LEN_AT, end or begin + header
    data = b"".join((view[28:at], longer, view[at + 2 : end], elements, view[end : 28 + caplen]))
    length = struct.pack("<II", len(data), len(data))
    body = b"".join((view[8:20], length, _pad(data), view[28 + caplen + -caplen % 4 : -4]))
    total = _LENGTH.pack(len(body) + 12)
    return b"".join((view[:4], total, body, total))


def process_information(
    pid: int, comm: bytes, exe: bytes, cmdline: bytes, parent: int, uid: int | None, user: bytes
) -> bytes:
    """Return a process information block, as Wireshark 5.0 reads it; earlier ones show it as a packet."""
    options = [(2, comm), (3, exe), (4, cmdline), (5, _LENGTH.pack(parent))]
    options += [(6, b"" if uid is None else _LENGTH.pack(uid)), (7, user)]
    entry = _LENGTH.pack(pid) + _options((code, value) for code, value in options if value)
    return block(_CUSTOM, struct.pack("<III", _WIRESHARK, _PROCESS_INFORMATION, len(entry)) + entry)


def names(entries: Iterable[tuple[int, str]]) -> bytes:
    """Return a block of socket names by identity, which Wireshark shows in place of pseudo addresses."""
    records = b"".join(
        struct.pack("<HH", 2, len(value)) + _pad(value)
        for value in (endpoint_address(sock).packed + name.encode() + b"\0" for sock, name in entries)
    )
    return block(NRB, records + bytes(4))


def names_of(block: Block) -> list[tuple[int, str]]:
    """Return the sockets' identities and names in a block as ``names`` makes it; none for another kind."""
    found = []
    at, end = 8, len(block) - 4
    while block[:4] == _NRB_TYPE and at + 4 <= end:
        kind, length = struct.unpack_from("<HH", block, at)
        address, name = block[at + 4 : at + 20], bytes(block[at + 20 : at + 4 + length])
        if kind == 2 and length > 16 and at + 4 + length <= end:
            sock = int.from_bytes(address, "big") ^ _ENDPOINT_NET
            found.append((sock, name.rstrip(b"\0").decode(errors="replace")))
        at += 4 + length + -length % 4
    return found


def statistics(time_ns: int, received: int, dropped: int, interface_id: int = 0, comment: str = "") -> bytes:
    """Return the count of messages seen and dropped.  One block per interface, at the end."""
    stamp = struct.pack("<II", time_ns >> 32, time_ns & 0xFFFFFFFF)
    options = [(3, stamp), (4, struct.pack("<Q", received)), (5, struct.pack("<Q", dropped))]
    if comment:
        options.append((1, comment.encode()[:0xFFFC]))
    return block(ISB, struct.pack("<I", interface_id) + stamp + _options(options))


@dataclass
class Packet:
    """One packet of a capture: ``data`` begins after the dissector's name."""

    time_ns: int
    data: bytes


def packet_of(block: Block) -> Packet:
    """Return the packet in a whole enhanced packet block as ``packet`` makes it (nanoseconds, our prefix)."""
    high, low, caplen = struct.unpack_from("<III", block, 12)
    return Packet(high << 32 | low, bytes(block[28 + len(PACKET_PREFIX) : 28 + caplen]))


def is_packet(block: Block) -> bool:
    """Return whether a block holds a record (rather than names or statistics)."""
    return bool(block[:4] == _EPB_TYPE)


def is_statistics(block: Block) -> bool:
    """Return whether a block holds an interface's statistics."""
    return bool(block[:4] == _ISB_TYPE)


def event_of(block: Block) -> int | None:
    """Return the event of the record in a block; None where that holds none."""
    return int(block[28 + len(PACKET_PREFIX) + 1]) if is_packet(block) else None


def payload_of(block: Block) -> memoryview:
    """Return the payload of the record in a packet's block."""
    begin = 28 + len(PACKET_PREFIX)
    (captured,) = _LENGTH.unpack_from(block, 20)
    (header,) = _HEADER_LEN.unpack_from(block, begin + _HEADER_LEN_AT)
    return memoryview(block)[begin + header : 28 + captured]


def time_of(block: Block) -> int:
    """Return the time stamp in a packet's block."""
    high, low = _TIME.unpack_from(block, 12)
    return int(high << 32 | low)


def interface_of(block: Block) -> int:
    """Return the interface of a packet's block."""
    return int(_LENGTH.unpack_from(block, 8)[0])


def of_interface(block: bytes, interface_id: int) -> bytes:
    """Return a block of interface 0 as one of another interface, where it belongs to one."""
    if not interface_id or not (is_packet(block) or is_statistics(block)):
        return block
    return b"".join((block[:8], _LENGTH.pack(interface_id), block[12:]))


def sockets_of(block: Block) -> tuple[int, int]:
    """Return the identities of both sockets of the record in a packet's block."""
    return _SOCKETS.unpack_from(block, 28 + len(PACKET_PREFIX) + _SOCKETS_AT)


def _whole(view: memoryview) -> Iterator[memoryview]:
    """Yield each whole block in ``view`` up to the first that is cut.

    Raises PcapngError for an impossible length.
    """
    at = 0
    while at + 8 <= len(view):
        (length,) = struct.unpack_from("<I", view, at + 4)
        if length < 12 or length % 4:
            raise PcapngError(f"block at byte {at} is cut short or has no valid length")
        if at + length > len(view):
            return
        if struct.unpack_from("<I", view, at + length - 4)[0] != length:
            raise PcapngError(f"block at byte {at} has two different lengths")
        yield view[at : at + length]
        at += length


class Splitter:
    """Split a stream into whole blocks, however it was cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that ``data`` completes.

        Raises PcapngError for an impossible length, and for one that this package writes nowhere.
        """
        self._rest += data
        with memoryview(self._rest) as view:
            blocks = [bytes(block) for block in _whole(view)]
        del self._rest[: sum(map(len, blocks))]
        if len(self._rest) > MAX_BLOCK:
            raise PcapngError(f"a block has more than {MAX_BLOCK} bytes")
        return blocks


def blocks(stream: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and body of each whole little-endian block in ``stream``.

    Raises PcapngError where a block is cut or its lengths disagree.
    """
    view = memoryview(stream)
    end = 0
    for block in _whole(view):
        end += len(block)
        yield struct.unpack_from("<I", block)[0], block[8:-4]
    if len(view) - end >= 12:
        raise PcapngError(f"block at byte {end} is cut short or has no valid length")
    if end < len(view):
        raise PcapngError(f"file ends in the head of a block, at byte {end}")


class Span(NamedTuple):
    """Where a packet's record lies in a file: ``begin`` is 0 for a packet of another link type or program.

    ``interface`` counts the file's interfaces from 0, over all sections.
    """

    number: int
    time_ns: int
    begin: int
    end: int
    interface: int


@dataclass(frozen=True)
class Interface:
    """An interface of a file.  ``per_second``: units of its time stamps, 0 for another link type."""

    per_second: int
    description: str = ""


#: Where reading goes on, and how many packets were before, for ``spans``.
Skip = tuple[int, int]


def spans(data: Buffer, interfaces: list[Interface]) -> Generator[Span, Skip | None, None]:
    """Yield each packet's place in ``data``, numbered as in Wireshark; add to ``interfaces``.

    Understands interfaces of any time resolution.  Raises PcapngError as ``blocks`` does.  For captures of
    millions of packets, so a packet costs no more than it has to: no object beyond the span.  Who has
    read packets itself sends where they end, and how many packets were before.
    """
    size = len(data)
    prefix, prefix_length = PACKET_PREFIX, len(PACKET_PREFIX)
    unpack, trailer, make = _EPB.unpack_from, _LENGTH.unpack_from, tuple.__new__
    at = number = first = 0
    nanoseconds: set[int] = set()  # our interfaces of this section with the time stamps that we write
    while at + 28 <= size:
        kind, length, interface, high, low, caplen, _ = unpack(data, at)
        end = at + length
        if kind == EPB and interface in nanoseconds and 32 + caplen <= length and end <= size:
            if length % 4 or trailer(data, end - 4)[0] != length:
                raise PcapngError(_why_not(data, at))
            number += 1
            begin = at + 28
            if data[begin : begin + prefix_length] == prefix and caplen >= prefix_length:
                place = number, high << 32 | low, begin + prefix_length, begin + caplen, first + interface
            else:
                place = number, 0, 0, 0, 0
            skip = yield make(Span, place)
            at = end
            if skip is not None:
                at, number = skip
            continue
        if length < 12 or length % 4 or end > size or trailer(data, end - 4)[0] != length:
            raise PcapngError(_why_not(data, at))
        if kind == SHB:
            first, nanoseconds = len(interfaces), set()
        found = _other(kind, memoryview(data)[at + 8 : end - 4], interfaces, first)
        if kind == IDB and interfaces[-1].per_second == 1_000_000_000:
            nanoseconds.add(len(interfaces) - 1 - first)
        if found is not None:
            number += 1
            time_ns, caplen, interface = found
            begin = at + 28 + prefix_length if caplen else 0
            yield Span(number, time_ns, begin, begin and at + 28 + caplen, interface)
        at = end
    # What is left is too short for a packet.
    for kind, body in blocks(memoryview(data)[at:]) if at < size else ():
        if _other(kind, body, interfaces, first) is not None:
            number += 1
            yield Span(number, 0, 0, 0, 0)


def _why_not(data: Buffer, at: int) -> str:
    """Describe what is wrong with the block at ``at``."""
    (length,) = _LENGTH.unpack_from(data, at + 4)
    if length < 12 or length % 4 or at + length > len(data):
        return f"block at byte {at} is cut short or has no valid length"
    return f"block at byte {at} has two different lengths"


def _other(
    kind: int, body: memoryview, interfaces: list[Interface], first: int
) -> tuple[int, int, int] | None:
    """Take any block; return time, captured length (0: not ours) and interface if it counts as a packet."""
    if kind == SHB:
        _require(body, 16, "section header")
        if body[:4] != _LITTLE_ENDIAN:
            raise PcapngError("big-endian pcapng sections are not supported")
    elif kind == IDB:
        _require(body, 8, "interface description")
        interfaces.append(_interface(body))
    elif kind == EPB:
        return _our_packet(body, interfaces, first)
    elif kind in _COUNTED:
        return 0, 0, 0
    return None


def frames(stream: Buffer) -> Iterator[tuple[int, Packet | None]]:
    """Yield the frame number that Wireshark gives each packet, and the packet if it is ours."""
    for number, time_ns, begin, end, _ in spans(stream, []):
        yield number, Packet(time_ns, bytes(stream[begin:end])) if begin else None


def _require(body: memoryview, size: int, what: str) -> None:
    """Raise PcapngError for a block's body that is too short for what it has to hold."""
    if len(body) < size:
        raise PcapngError(f"{what} block of {len(body)} bytes, which has to have {size} at least")


def _our_packet(body: memoryview, interfaces: list[Interface], first: int) -> tuple[int, int, int]:
    """Return time, captured length and interface of a packet; length 0 for another link type or program."""
    _require(body, 20, "packet")
    interface, high, low, caplen = struct.unpack_from("<IIII", body)
    if first + interface >= len(interfaces):
        raise PcapngError(
            f"packet of interface {interface}, and only {len(interfaces) - first} are described"
        )
    _require(body, 20 + caplen, "packet")
    units = interfaces[first + interface].per_second
    prefix = len(PACKET_PREFIX)
    if not units or caplen < prefix or body[20 : 20 + prefix] != PACKET_PREFIX:
        return 0, 0, 0
    return (high << 32 | low) * 1_000_000_000 // units, caplen, first + interface


def packets(stream: Buffer) -> Iterator[Packet]:
    """Yield the packets of ours in ``stream``; others are left out.  Raises PcapngError."""
    return (packet for _, packet in frames(stream) if packet is not None)


def _interface(body: memoryview) -> Interface:
    """Return what an interface description's body says (default: time stamps in microseconds)."""
    if body[:2] != _LINKTYPE:
        return Interface(0)
    per_second, description = 1_000_000, ""
    options = body[8:]
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("<HH", options, at)
        if code == 0:
            break
        if at + 4 + length > len(options):
            raise PcapngError(f"an interface's option {code} is cut short")
        value = bytes(options[at + 4 : at + 4 + length])
        if code == 9 and length == 1:
            per_second = int(2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0])
        elif code == 3:
            description = value.decode(errors="replace")
        at += 4 + length + -length % 4
    return Interface(per_second, description)
