"""Records as text for people: a heading, and below it the payload in one of several formats.

Whatever sockets carry, what comes out is harmless to a terminal: control
characters, undecodable bytes and characters that change the direction of writing
are shown as escapes.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable
from datetime import datetime

from unixsock_bpf.formats.base import Format, Options, RecordWriter, Writer
from unixsock_bpf.record import (
    ATTRIBUTES,
    ELEMENT_FIELDS,
    Element,
    Event,
    FdKind,
    Flag,
    LostReason,
    Record,
    Role,
    SocketType,
    display_name,
    display_process,
)

#: SGR sequences: towards the server, back, and what is not data.
_TO_SERVER, _TO_CLIENT, _NOTE, _PLAIN = "\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[0m"

#: What a shutdown ends, by the system call's second argument.
SHUTDOWN = {0: "read", 1: "write", 2: "read and write"}

#: Why a connect, or a send to an address, was refused.
_REFUSALS = {
    errno.EPERM: "a security module forbids it",
    errno.ENOENT: "no such name",
    errno.EINTR: "interrupted while there was no room",
    errno.EAGAIN: "the queue is full",
    errno.EACCES: "no permission",
    errno.EPROTOTYPE: "a socket of another type",
    errno.ECONNREFUSED: "nobody listens there",
    errno.EISCONN: "connected already",
}

#: Unicode categories that are escaped: controls, formats (bidi), surrogates, private, unassigned, separators.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def _escape(character: str, keep: str) -> str:
    if character in keep:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in _HIDDEN:
        return character
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return short or (
        f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def harmless(data: bytes, keep: str = "") -> str:
    """Return ``data`` as text for a terminal: all but printable characters and those of ``keep`` escaped."""
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character, keep) for character in text)


def name_text(name: bytes) -> str:
    """Return a socket name as people write it, harmless to a terminal."""
    return harmless(display_name(name))


def process_text(comm: bytes, pid: int) -> str:
    """Return ``comm[pid]``, as far as they are known, harmless to a terminal."""
    return harmless(display_process(comm, pid)) or "?"


def _fd_text(kind: FdKind, path: bytes, inode: int) -> str:
    return f"{kind.name.lower()} {harmless(path) if path else f'inode {inode}'}"


#: Elements that have a form of their own, or are not shown, in a heading; others: names and numbers.
_OWN_FORM = {
    *(Element.SRC_COMM, Element.SRC_NAME, Element.SRC_PATH, Element.DST_COMM, Element.DST_NAME),
    *(Element.DST_PATH, Element.CGROUP, Element.FDS, Element.ERROR, Element.SHUTDOWN, Element.LOST),
    Element.BACKLOG,
    *range(Element.SRC_EXE, Element.DST_PARENT + 1),
}


def details(record: Record) -> list[str]:
    """Return what ``record`` has beyond endpoints, path, type and payload, each in a few words."""
    parts = []
    if record.flags & Flag.OOB:
        parts.append("out of band")
    if record.flags & Flag.TRUNCATED and record.event == Event.DATA:
        parts.append(f"{len(record.payload)} captured")
    if record.flags & Flag.UNREADABLE:
        parts.append("not all readable")
    if record.offset:
        parts.append(f"from byte {record.offset}")
    for kind in sorted(ATTRIBUTES.keys() - _OWN_FORM):
        value = getattr(record, ATTRIBUTES[kind])
        if isinstance(value, tuple):
            numbers = (f"{name} {number}" for (name, _), number in zip(ELEMENT_FIELDS[kind], value))
            parts.append(" ".join([ATTRIBUTES[kind], *numbers]))
        elif value is not None:
            parts.append(f"{ATTRIBUTES[kind].replace('_', ' ')} {value}")
    if record.fds_count:
        shown = ", ".join(_fd_text(fd.kind, fd.path, fd.inode) for fd in record.fds)
        parts.append(f"{record.fds_count} fd{'s' if record.fds_count > 1 else ''}: {shown}")
    if record.errno is not None:
        parts.append(errno.errorcode.get(record.errno, str(record.errno)))
        if record.event == Event.REFUSED and record.errno in _REFUSALS:
            parts[-1] += f", {_REFUSALS[record.errno]}"
    if record.backlog is not None:
        parts.append("{} waiting, limit {}".format(*record.backlog))
    if record.how is not None:
        parts.append(SHUTDOWN.get(record.how, str(record.how)))
    if record.lost is not None:
        messages, size, reasons = record.lost
        why = ", ".join(reason_names(reasons)).replace("_", " ")
        parts.append(f"{messages} messages, {size} bytes lost{f' ({why})' if why else ''}")
    return parts


def reason_names(reasons: int) -> list[str]:
    """Return the names of a loss's reasons."""
    return [reason.name.lower() for reason in LostReason if reasons & reason and reason.name]


def heading(time_ns: int, record: Record) -> str:
    """Return the line above a payload: time, both endpoints, path, type, length, the rest."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    time = datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    ends = (
        f"{process_text(record.src_comm, record.src_pid)} → {process_text(record.dst_comm, record.dst_pid)}"
    )
    words = [f"{time}.{rest:09d}", ends, name_text(record.name) or "(unnamed)", type_name(record.type)]
    if record.event == Event.DATA:
        words.append(f"{record.len} byte{'' if record.len == 1 else 's'}")
    else:
        words.append(event_name(record.event).replace("_", " "))
    if record.event == Event.UNDELIVERED:
        words.append(f"{record.len} bytes from position {record.seq}")
    return "  ".join([" ".join(words), *details(record)])


def type_name(number: int) -> str:
    """Return a socket type's name."""
    known = SocketType._value2member_map_
    return SocketType(number).name.lower() if number in known else "?"


def event_name(number: int) -> str:
    """Return an event's name."""
    known = Event._value2member_map_
    return Event(number).name.lower() if number in known else f"event {number}"


def colour(record: Record, text: str) -> str:
    """Return ``text`` in the colour of the record's direction."""
    if record.event != Event.DATA:
        start = _NOTE
    elif record.role == Role.SRC_IS_SERVER:
        start = _TO_CLIENT
    elif record.role == Role.DST_IS_SERVER:
        start = _TO_SERVER
    else:  # either way will do, as long as a direction keeps its colour
        start = _TO_SERVER if record.src_sock < record.dst_sock else _TO_CLIENT
    return f"{start}{text}{_PLAIN}"


def escapes(payload: bytes) -> str:
    r"""Return every byte as ``\xNN``: the inside of a string literal of C, Python, Rust (bytes) or Go."""
    digits = payload.hex()
    return "".join(f"\\x{digits[at : at + 2]}" for at in range(0, len(digits), 2))


def record_text(
    time_ns: int, record: Record, payload_text: Callable[[bytes], str], *, coloured: bool = False
) -> str:
    """Return a whole record: its heading, then its payload, which ``payload_text`` shows."""
    head = heading(time_ns, record)
    return f"{colour(record, head) if coloured else head}\n{payload_text(record.payload)}"


def payload_format(name: str, payload_text: Callable[[bytes], str]) -> Format:
    """Return the format that shows payloads by ``payload_text``, below each record's heading."""

    def writer(options: Options) -> Writer:
        return RecordWriter(
            lambda time_ns, record: record_text(
                time_ns, record, payload_text, coloured=options.coloured
            ).encode()
        )

    return Format(name, writer)
