"""The record: one event on an AF_UNIX socket, as it travels from kernel to dissector.

This module is the declaration.  ``bpf/record.h`` (C), ``dissector/unixsock/record/format.lua``
(Lua) and ``docs/format.md`` (prose) repeat it, and ``tests/unit/test_record_copies.py``
compares all of them with the tables here.

A record is a fixed header, then elements, then payload; everything is
little-endian::

    fixed header (HEADER_LEN bytes)
    element*     u16 type, u16 length, value, zeros up to a multiple of 4
    payload      caplen bytes

``header_len`` is the length of header and elements, so payload begins there.  A
reader skips elements that it does not know, and refuses a ``version`` that it
does not know.

No I/O happens here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

VERSION = 1

#: The fixed header: (name, struct format, what it holds).
HEADER = (
    ("version", "B", "major version of this format"),
    ("event", "B", "what happened: one of Event"),
    ("header_len", "H", "bytes from the start of the record to its payload"),
    ("src_pid", "I", "sender's process (tgid); 0: unknown"),
    ("dst_pid", "I", "receiver's process (tgid); 0: unknown"),
    ("type", "B", "socket type: one of SocketType; 0: unknown"),
    ("role", "B", "which side is the server: one of Role"),
    ("flags", "H", "bits of Flag"),
    ("src_tid", "I", "sending thread; 0: unknown"),
    ("src_uid", "I", "sender's user id, if flag src_creds is set"),
    ("src_gid", "I", "sender's group id, if flag src_creds is set"),
    ("dst_uid", "I", "receiver's user id, if flag dst_creds is set"),
    ("dst_gid", "I", "receiver's group id, if flag dst_creds is set"),
    ("netns", "I", "inode of the sending socket's network namespace; 0: unknown"),
    ("src_sock", "Q", "identity of the sending socket in this capture; 0: unknown"),
    ("dst_sock", "Q", "identity of the receiving socket in this capture; 0: unknown"),
    ("src_inode", "Q", "inode of the sending socket; 0: unknown"),
    ("dst_inode", "Q", "inode of the receiving socket; 0: unknown or not accepted yet"),
    ("seq", "Q", "bytes queued in this direction before this message"),
    ("ack", "Q", "bytes queued in the opposite direction so far"),
    ("message", "I", "messages queued in this direction before this one, modulo 2^32"),
    ("len", "I", "payload bytes of the whole message"),
    ("offset", "I", "where this record's payload begins in the message"),
    ("caplen", "I", "payload bytes in this record"),
)

_STRUCT = struct.Struct("<" + "".join(fmt for _, fmt, _ in HEADER))
_NAMES = tuple(name for name, _, _ in HEADER)
_ELEMENT = struct.Struct("<HH")

#: Bytes of the fixed header.
HEADER_LEN = _STRUCT.size

#: The most payload bytes that one record carries.  Wireshark refuses a pcapng block
#: of more than 262,144 bytes; the rest is left for header and elements.
MAX_PAYLOAD = 0x38000


class Event(IntEnum):
    """What a record tells."""

    DATA = 0
    CONNECT = 1
    ACCEPT = 2
    SHUTDOWN = 3
    CLOSE = 4
    SEND_ERROR = 5
    LOST = 6


class SocketType(IntEnum):
    """Socket types, as the kernel numbers them."""

    STREAM = 1
    DGRAM = 2
    SEQPACKET = 5


class Role(IntEnum):
    """Which side of the conversation is the server."""

    UNKNOWN = 0
    SRC_IS_SERVER = 1
    DST_IS_SERVER = 2


class Flag(IntFlag):
    """Bits of ``flags``."""

    #: Fewer bytes were captured than queued (snaplen, or UNREADABLE).
    TRUNCATED = 1 << 0
    #: This byte was sent with MSG_OOB.
    OOB = 1 << 1
    #: src_uid, src_gid are known.
    SRC_CREDS = 1 << 2
    #: dst_uid, dst_gid are known.
    DST_CREDS = 1 << 3
    #: Another record carries the next bytes of this message.
    MORE = 1 << 4
    #: Some of the message's memory could not be read.
    UNREADABLE = 1 << 5
    #: The receiver is whoever connected, listened or holds the socket; nobody was seen using it.
    DST_GUESSED = 1 << 6
    #: Positions count from the connection's first byte, not from the start of the capture.
    FROM_START = 1 << 7
    #: Several threads were writing at once; their messages may be queued in another order.
    UNORDERED = 1 << 8
    #: A socketpair (event connect).
    SOCKETPAIR = 1 << 9


class Element(IntEnum):
    """Types of elements.  Numbers are never used again for something else."""

    SRC_COMM = 1
    DST_COMM = 2
    SRC_NAME = 3
    DST_NAME = 4
    CREDS = 5
    FDS = 6
    FD = 7
    CGROUP = 8
    LOST = 9
    ERROR = 10
    SHUTDOWN = 11
    SRC_PATH = 12
    DST_PATH = 13


#: Fixed parts of elements: (name, struct format).  Elements that are missing here are bytes.
ELEMENT_FIELDS: dict[Element, tuple[tuple[str, str], ...]] = {
    Element.CREDS: (("pid", "I"), ("uid", "I"), ("gid", "I")),
    Element.FDS: (("count", "I"),),
    Element.FD: (("kind", "I"), ("inode", "Q")),  # then the path, if it has one
    Element.LOST: (("messages", "Q"), ("bytes", "Q"), ("reasons", "I")),
    Element.ERROR: (("errno", "I"),),
    Element.SHUTDOWN: (("how", "I"),),
}


class FdKind(IntEnum):
    """What a passed descriptor refers to."""

    OTHER = 0
    FILE = 1
    DIRECTORY = 2
    CHARDEV = 3
    BLOCKDEV = 4
    PIPE = 5
    SOCKET = 6
    MEMFD = 7
    ANON = 8  # an anon_inode that is none of the following; its path tells, as in /proc
    EVENTFD = 9
    EPOLL = 10
    TIMERFD = 11
    SIGNALFD = 12
    INOTIFY = 13
    PIDFD = 14
    DMABUF = 15
    BPF = 16
    IO_URING = 17


class LostReason(IntFlag):
    """Why messages are missing."""

    RING_FULL = 1 << 0
    NESTED = 1 << 1
    UNREADABLE = 1 << 2
    NO_STATE = 1 << 3


class RecordError(ValueError):
    """Bytes that are not a record: says what is wrong, and where."""


@dataclass
class Fd:
    """One passed descriptor."""

    kind: FdKind
    inode: int = 0
    path: bytes = b""


@dataclass
class Record:
    """One record.  Names are as bound: abstract ones begin with NUL.

    ``None`` in ``creds`` (pid, uid, gid), ``lost`` (messages, bytes, reasons), ``errno``
    and ``how`` means that the element is absent; ``b""`` means it for byte strings.
    ``unknown`` holds elements of types that this version does not know.
    """

    event: int = Event.DATA
    src_pid: int = 0
    dst_pid: int = 0
    type: int = 0
    role: int = Role.UNKNOWN
    flags: int = 0
    src_tid: int = 0
    src_uid: int = 0
    src_gid: int = 0
    dst_uid: int = 0
    dst_gid: int = 0
    netns: int = 0
    src_sock: int = 0
    dst_sock: int = 0
    src_inode: int = 0
    dst_inode: int = 0
    seq: int = 0
    ack: int = 0
    message: int = 0
    len: int = 0
    offset: int = 0
    src_comm: bytes = b""
    dst_comm: bytes = b""
    src_name: bytes = b""
    dst_name: bytes = b""
    src_path: bytes = b""
    dst_path: bytes = b""
    cgroup: bytes = b""
    creds: tuple[int, int, int] | None = None
    fds_count: int = 0
    fds: list[Fd] = field(default_factory=list)
    lost: tuple[int, int, int] | None = None
    errno: int | None = None
    how: int | None = None
    unknown: list[tuple[int, bytes]] = field(default_factory=list)
    payload: bytes = b""

    @property
    def name(self) -> bytes:
        """The bound name of the conversation: the server's, else either side's."""
        if self.role == Role.SRC_IS_SERVER:
            return self.src_name or self.dst_name
        return self.dst_name or self.src_name


#: Elements that are plain bytes, and the attribute of Record that holds them.
_BYTES = {
    Element.SRC_COMM: "src_comm",
    Element.DST_COMM: "dst_comm",
    Element.SRC_NAME: "src_name",
    Element.DST_NAME: "dst_name",
    Element.SRC_PATH: "src_path",
    Element.DST_PATH: "dst_path",
    Element.CGROUP: "cgroup",
}


def display_name(name: bytes) -> bytes:
    """A socket name as people write it: a leading ``@`` for the abstract name space.

    NULs become ``@``, as in /proc/net/unix.
    """
    return name.replace(b"\0", b"@")


def display_process(comm: bytes, pid: int) -> bytes:
    """``comm[pid]``, with ``?`` for one that is not known; nothing if neither is."""
    return (comm or b"?") + b"[%b]" % (b"%d" % pid if pid else b"?") if comm or pid else b""


def element(kind: int, value: bytes) -> bytes:
    """One element as bytes, padded to a multiple of 4."""
    return _ELEMENT.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _fields(kind: Element) -> struct.Struct:
    return struct.Struct("<" + "".join(fmt for _, fmt in ELEMENT_FIELDS[kind]))


def encode(record: Record) -> bytes:
    """The bytes of ``record``, with header_len and caplen computed."""
    parts = [element(kind, getattr(record, name)) for kind, name in _BYTES.items() if getattr(record, name)]
    if record.creds is not None:
        parts.append(element(Element.CREDS, _fields(Element.CREDS).pack(*record.creds)))
    if record.fds or record.fds_count:
        count = record.fds_count or len(record.fds)
        parts.append(element(Element.FDS, _fields(Element.FDS).pack(count)))
    parts += [element(Element.FD, _fields(Element.FD).pack(fd.kind, fd.inode) + fd.path) for fd in record.fds]
    if record.lost is not None:
        parts.append(element(Element.LOST, _fields(Element.LOST).pack(*record.lost)))
    if record.errno is not None:
        parts.append(element(Element.ERROR, _fields(Element.ERROR).pack(record.errno)))
    if record.how is not None:
        parts.append(element(Element.SHUTDOWN, _fields(Element.SHUTDOWN).pack(record.how)))
    parts += [element(kind, value) for kind, value in record.unknown]
    elements = b"".join(parts)
    computed = {
        "version": VERSION,
        "header_len": HEADER_LEN + len(elements),
        "caplen": len(record.payload),
    }
    values = [computed[n] if n in computed else getattr(record, n) for n in _NAMES]
    return _STRUCT.pack(*values) + elements + record.payload


def decode(data: bytes | memoryview) -> Record:
    """The record in ``data``; bytes after its payload are ignored.

    Raises RecordError for a newer version, a cut or contradictory record.
    """
    data = memoryview(data)
    if len(data) < 1:
        raise RecordError("empty record")
    if data[0] != VERSION:
        raise RecordError(f"record of format version {data[0]}; this reader knows version {VERSION}")
    if len(data) < HEADER_LEN:
        raise RecordError(f"record ends in its header: {len(data)} of {HEADER_LEN} bytes")
    head = dict(zip(_NAMES, _STRUCT.unpack_from(data)))
    head.pop("version")
    header_len, caplen = head.pop("header_len"), head.pop("caplen")
    if header_len < HEADER_LEN:
        raise RecordError(f"header_len {header_len} is less than the fixed header's {HEADER_LEN}")
    if header_len + caplen > len(data):
        raise RecordError(f"record ends early: {len(data)} of {header_len + caplen} bytes")
    record = Record(**head)
    at = HEADER_LEN
    while at < header_len:
        if at + _ELEMENT.size > header_len:
            raise RecordError(f"element at {at} ends in its head")
        kind, length = _ELEMENT.unpack_from(data, at)
        value = bytes(data[at + _ELEMENT.size : at + _ELEMENT.size + length])
        at += _ELEMENT.size + length + -length % 4
        if at > header_len:
            raise RecordError(f"element of type {kind} ends beyond the header")
        _take(record, kind, value)
    record.payload = bytes(data[header_len : header_len + caplen])
    return record


def _take(record: Record, kind: int, value: bytes) -> None:
    """Put one element's value into ``record``."""
    try:
        known = Element(kind)
    except ValueError:
        record.unknown.append((kind, value))
        return
    if known in _BYTES:
        setattr(record, _BYTES[known], value)
        return
    fields = _fields(known)
    if len(value) < fields.size:
        raise RecordError(f"element {known.name} has {len(value)} of {fields.size} bytes")
    values = fields.unpack_from(value)
    if known is Element.CREDS:
        record.creds = values
    elif known is Element.FDS:
        record.fds_count = values[0]
    elif known is Element.FD:
        kinds = FdKind._value2member_map_
        record.fds.append(
            Fd(FdKind(values[0]) if values[0] in kinds else FdKind.OTHER, values[1], value[fields.size :])
        )
    elif known is Element.LOST:
        record.lost = values
    elif known is Element.ERROR:
        record.errno = values[0]
    elif known is Element.SHUTDOWN:
        record.how = values[0]


#: The first word of an announcement (``struct announcement`` in bpf/record.h).
ANNOUNCEMENT = 0x554E4958

_ANNOUNCEMENT = struct.Struct("<IIQII16s112s")


def endpoint_name(data: bytes | memoryview) -> tuple[int, str]:
    """A socket's identity and its name for people, such as ``dockerd[77] /run/docker.sock``."""
    _, _, sock, pid, name_len, comm, name = _ANNOUNCEMENT.unpack_from(data)
    who = display_process(comm.split(b"\0")[0], pid) if pid else b""
    text = b" ".join(part for part in (who, display_name(name[:name_len])) if part)
    return sock, "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
