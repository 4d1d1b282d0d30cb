"""The record: one event on an AF_UNIX socket, as it travels from kernel to dissector.

This module is the declaration.  ``make generate`` writes ``bpf/record.h`` (C), the tables of
``dissector/unixsock/record/format.lua`` (Lua) and those of ``docs/format.md`` from it; the comments
that begin with ``#:`` are the page's text.

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

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

VERSION = 1

#: The fixed header: (name, struct format, what it holds).
HEADER = (
    ("version", "B", "major version of this format"),
    ("event", "B", "what happened: see below"),
    ("header_len", "H", "bytes from the start of the record to its payload"),
    ("src_pid", "I", "sender's process (tgid); 0: unknown"),
    ("dst_pid", "I", "receiver's process (tgid); 0: unknown"),
    ("type", "B", "socket type: see below; 0: unknown"),
    ("role", "B", "which side is the server: see below"),
    ("flags", "H", "see below"),
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
#: Where each of its fields is.
HEADER_OFFSETS = {
    name: struct.calcsize("<" + "".join(fmt for _, fmt, _ in HEADER[:at])) for at, name in enumerate(_NAMES)
}

#: The most payload bytes that one record carries.  Wireshark refuses a pcapng block
#: of more than 262,144 bytes; the rest is left for header and elements.
MAX_PAYLOAD = 0x38000


class Event(IntEnum):
    """What happened."""

    #: a message, or a part of one, was queued for its receiver
    DATA = 0
    #: src connected to dst, or the two are a socket pair
    CONNECT = 1
    #: src accepted the connection of dst
    ACCEPT = 2
    #: src called shutdown; element SHUTDOWN says how
    SHUTDOWN = 3
    #: src is gone
    CLOSE = 4
    #: a send failed; element ERROR says why. Nothing was queued
    SEND_ERROR = 5
    #: messages of this direction are missing; element LOST says how many
    LOST = 6
    #: a connect, or a send to an address, failed; element ERROR says why, DST_NAME which name was asked for
    REFUSED = 7
    #: `len` bytes from position `seq` on were recorded, or counted as lost, and then not queued (see below)
    UNDELIVERED = 8


class SocketType(IntEnum):
    """Socket types, as the kernel numbers them."""

    STREAM = 1
    DGRAM = 2
    SEQPACKET = 5


class Role(IntEnum):
    """Which side of the conversation is the server."""

    UNKNOWN = 0
    #: the sender listened or is the named side
    SRC_IS_SERVER = 1
    #: the receiver listened or is the named side
    DST_IS_SERVER = 2


class Flag(IntFlag):
    """Bits of ``flags``."""

    #: fewer bytes were captured than queued
    TRUNCATED = 1 << 0
    #: this byte was sent with MSG_OOB
    OOB = 1 << 1
    #: src_uid and src_gid are known
    SRC_CREDS = 1 << 2
    #: dst_uid and dst_gid are known
    DST_CREDS = 1 << 3
    #: another record carries the next bytes of this message
    MORE = 1 << 4
    #: some of the message's memory could not be read
    UNREADABLE = 1 << 5
    #: no process was seen using the receiving socket; dst_pid connected, listened or holds it
    DST_GUESSED = 1 << 6
    #: positions count from the connection's first byte, not from the start of the capture
    FROM_START = 1 << 7
    #: several threads were writing; their messages may be queued in another order
    UNORDERED = 1 << 8
    #: a socket pair (event CONNECT)
    SOCKETPAIR = 1 << 9


class Element(IntEnum):
    """Types of elements.  Their numbers are never reused."""

    #: sender's command name (its first thread's comm)
    SRC_COMM = 1
    #: receiver's command name
    DST_COMM = 2
    #: name that the sending socket is bound to, as bound; an abstract one begins with NUL
    SRC_NAME = 3
    #: name that the receiving socket is bound to; where there is none, the one that was asked for
    DST_NAME = 4
    #: SCM_CREDENTIALS as the receiver gets them, or may get them once it has accepted the connection
    CREDS = 5
    #: descriptors passed with SCM_RIGHTS
    FDS = 6
    #: then its path if it has one; once for each passed descriptor that was looked at
    FD = 7
    #: sender's control group, a path
    CGROUP = 8
    #: messages of this direction that were not captured before this record
    LOST = 9
    #: why the send or the connect failed
    ERROR = 10
    #: 0 SHUT_RD, 1 SHUT_WR, 2 SHUT_RDWR
    SHUTDOWN = 11
    #: absolute path of the file behind SRC_NAME
    SRC_PATH = 12
    #: absolute path of the file behind DST_NAME
    DST_PATH = 13
    #: the process of the pidfd that the receiver gets (SO_PASSPIDFD, SCM_PIDFD)
    CREDS_PIDFD = 14
    #: the kernel's number of the security context that the receiver gets as text (SO_PASSSEC, SCM_SECURITY)
    CREDS_SECURITY = 15
    #: what waited in the receiving socket's queue when it was full (EAGAIN): connections or datagrams
    BACKLOG = 16
    #: executable of the sending process, a path (18 to 25: with `--process-details` only)
    SRC_EXE = 18
    #: executable of the receiving process
    DST_EXE = 19
    #: the sender's arguments, each but the last followed by NUL; at most 1024 bytes
    SRC_CMDLINE = 20
    #: the receiver's arguments
    DST_CMDLINE = 21
    #: name of the sender's user
    SRC_USER = 22
    #: name of the receiver's user
    DST_USER = 23
    #: the sender's parent, a process
    SRC_PARENT = 24
    #: the receiver's parent
    DST_PARENT = 25


#: Fixed parts of elements: (name, struct format).  Elements that are missing here are bytes.
ELEMENT_FIELDS: dict[Element, tuple[tuple[str, str], ...]] = {
    Element.CREDS: (("pid", "I"), ("uid", "I"), ("gid", "I")),
    Element.FDS: (("count", "I"),),
    Element.FD: (("kind", "I"), ("inode", "Q")),
    Element.LOST: (("messages", "Q"), ("bytes", "Q"), ("reasons", "I")),
    Element.ERROR: (("errno", "I"),),
    Element.SHUTDOWN: (("how", "I"),),
    Element.CREDS_PIDFD: (("pid", "I"),),
    Element.CREDS_SECURITY: (("secid", "I"),),
    Element.BACKLOG: (("waiting", "I"), ("limit", "I")),
    Element.SRC_PARENT: (("pid", "I"),),
    Element.DST_PARENT: (("pid", "I"),),
}

#: The attribute of Record that holds an element's value: bytes, or the number or numbers of its fixed part.
#: FD, which may be repeated, is in ``Record.fds``.
ATTRIBUTES = {
    Element.SRC_COMM: "src_comm",
    Element.DST_COMM: "dst_comm",
    Element.SRC_NAME: "src_name",
    Element.DST_NAME: "dst_name",
    Element.SRC_PATH: "src_path",
    Element.DST_PATH: "dst_path",
    Element.CGROUP: "cgroup",
    Element.CREDS: "creds",
    Element.FDS: "fds_count",
    Element.LOST: "lost",
    Element.ERROR: "errno",
    Element.SHUTDOWN: "how",
    Element.CREDS_PIDFD: "creds_pidfd",
    Element.CREDS_SECURITY: "creds_security",
    Element.BACKLOG: "backlog",
    Element.SRC_EXE: "src_exe",
    Element.DST_EXE: "dst_exe",
    Element.SRC_CMDLINE: "src_cmdline",
    Element.DST_CMDLINE: "dst_cmdline",
    Element.SRC_USER: "src_user",
    Element.DST_USER: "dst_user",
    Element.SRC_PARENT: "src_parent",
    Element.DST_PARENT: "dst_parent",
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
    #: an anon_inode that is none of the following; its path says which, as in /proc
    ANON = 8
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

    #: the reader did not keep up
    RING_FULL = 1 << 0


class RecordError(ValueError):
    """Bytes that are not a record; the text says what is wrong, and where."""


@dataclass
class Fd:
    """One passed descriptor."""

    kind: FdKind
    inode: int = 0
    path: bytes = b""


@dataclass
class Record:
    """One record.  Names are as bound: abstract ones begin with NUL.

    ``None`` in ``creds`` (pid, uid, gid), ``creds_pidfd`` (pid), ``creds_security`` (secid),
    ``lost`` (messages, bytes, reasons), ``errno``, ``how``, ``backlog`` (waiting, limit) and parents means
    that the element is absent; ``b""`` means it for byte strings.
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
    creds_pidfd: int | None = None
    creds_security: int | None = None
    fds_count: int = 0
    fds: list[Fd] = field(default_factory=list)
    lost: tuple[int, int, int] | None = None
    errno: int | None = None
    how: int | None = None
    backlog: tuple[int, int] | None = None
    src_exe: bytes = b""
    dst_exe: bytes = b""
    src_cmdline: bytes = b""
    dst_cmdline: bytes = b""
    src_user: bytes = b""
    dst_user: bytes = b""
    src_parent: int | None = None
    dst_parent: int | None = None
    unknown: list[tuple[int, bytes]] = field(default_factory=list)
    payload: bytes = b""

    @property
    def name(self) -> bytes:
        """The bound name of the conversation: the server's, else either side's."""
        if self.role == Role.SRC_IS_SERVER:
            return self.src_name or self.dst_name
        return self.dst_name or self.src_name


def display_name(name: bytes) -> bytes:
    """Return a socket name as people write it: a leading ``@`` for the abstract name space.

    NULs become ``@``, as in /proc/net/unix.
    """
    return name.replace(b"\0", b"@")


def display_process(comm: bytes, pid: int) -> bytes:
    """Return ``comm[pid]``, with ``?`` for one that is not known; nothing if neither is."""
    return (comm or b"?") + b"[%b]" % (b"%d" % pid if pid else b"?") if comm or pid else b""


#: Endings of cgroups that are units of systemd with processes of their own.
_UNIT = re.compile(rb"[^/]+\.(?:service|scope|socket|mount|swap)")
#: Cgroups of Docker, Podman, containerd and CRI-O; of LXC; of systemd-nspawn and libvirt.
_CONTAINER = re.compile(
    rb"/(?:[a-z-]+-)?([0-9a-f]{12})[0-9a-f]{52}(?:\.scope)?(?=/|$)"
    rb"|/lxc(?:\.payload\.|/)([^/]+)|/machine-([^/]+)\.scope(?=/|$)"
)
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def unit_of(cgroup: bytes) -> bytes:
    """Return the innermost systemd unit that a cgroup's path lies in; empty if there is none."""
    found = [part for part in cgroup.split(b"/") if _UNIT.fullmatch(part)]
    return found[-1] if found else b""


def containers_of(cgroup: bytes) -> list[bytes]:
    """Return the containers that a cgroup's path lies in, the innermost last: as ``container_of``."""
    names = (next(filter(None, found.groups())) for found in _CONTAINER.finditer(cgroup))
    return [_ESCAPED.sub(lambda digits: bytes([int(digits[1], 16)]), name) for name in names]


def container_of(cgroup: bytes) -> bytes:
    """Return the container that a cgroup's path lies in: 12 digits of its id, or its name.

    Empty if it is in none.  Of containers within containers, the innermost.
    """
    return next(reversed(containers_of(cgroup)), b"")


def element(kind: int, value: bytes) -> bytes:
    """Return one element as bytes, padded to a multiple of 4."""
    return _ELEMENT.pack(kind, len(value)) + value + bytes(-len(value) % 4)


_FIXED = {
    kind: struct.Struct("<" + "".join(fmt for _, fmt in fields)) for kind, fields in ELEMENT_FIELDS.items()
}


def _values(record: Record) -> Iterator[tuple[int, bytes]]:
    """Type and value of each element of ``record``."""
    for kind, attribute in ATTRIBUTES.items():
        value = getattr(record, attribute)
        if kind is Element.FDS:
            value = value or len(record.fds) or None
        if value is not None and value != b"":
            numbers = value if isinstance(value, tuple) else (value,)
            yield kind, _FIXED[kind].pack(*numbers) if kind in _FIXED else value
        if kind is Element.FDS:
            for fd in record.fds:
                yield Element.FD, _FIXED[Element.FD].pack(fd.kind, fd.inode) + fd.path
    yield from record.unknown


def encode(record: Record) -> bytes:
    """Return the bytes of ``record``, with header_len and caplen computed."""
    elements = b"".join(element(kind, value) for kind, value in _values(record))
    computed = {
        "version": VERSION,
        "header_len": HEADER_LEN + len(elements),
        "caplen": len(record.payload),
    }
    values = [computed[n] if n in computed else getattr(record, n) for n in _NAMES]
    return _STRUCT.pack(*values) + elements + record.payload


def decode(data: bytes | memoryview) -> Record:
    """Return the record in ``data``; bytes after its payload are ignored.

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
    fixed = _FIXED.get(known)
    if fixed is None:
        setattr(record, ATTRIBUTES[known], value)
        return
    if len(value) < fixed.size:
        raise RecordError(f"element {known.name} has {len(value)} of {fixed.size} bytes")
    numbers = fixed.unpack_from(value)
    if known is Element.FD:
        kinds = FdKind._value2member_map_
        fd_kind = FdKind(numbers[0]) if numbers[0] in kinds else FdKind.OTHER
        record.fds.append(Fd(fd_kind, numbers[1], value[fixed.size :]))
    else:
        setattr(record, ATTRIBUTES[known], numbers if len(numbers) > 1 else numbers[0])


#: The first word of an announcement (``struct announcement`` in bpf/record.h).
ANNOUNCEMENT = 0x554E4958

#: What the ring carries besides pcapng blocks, for the reader alone: (name, struct format).  An
#: endpoint is announced before its first record and whenever its process changes, so that the
#: reader can name its address.
ANNOUNCEMENT_FIELDS = (
    ("block_type", "I"),
    ("block_len", "I"),
    ("sock", "Q"),
    ("pid", "I"),
    ("name_len", "I"),
    ("comm", "16s"),
    ("name", "112s"),
)

_ANNOUNCEMENT = struct.Struct("<" + "".join(fmt for _, fmt in ANNOUNCEMENT_FIELDS))


def endpoint_name(data: bytes | memoryview) -> tuple[int, str]:
    """Return a socket's identity and its name for people, such as ``dockerd[77] /run/docker.sock``."""
    _, _, sock, pid, name_len, comm, name = _ANNOUNCEMENT.unpack_from(data)
    who = display_process(comm.split(b"\0")[0], pid) if pid else b""
    text = b" ".join(part for part in (who, display_name(name[:name_len])) if part)
    return sock, "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
