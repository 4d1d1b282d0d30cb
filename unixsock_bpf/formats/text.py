"""Records as text: string, hex, hexstring and JSON.  No I/O happens here.

Whatever sockets carry, what comes out is harmless to a terminal: control
characters, undecodable bytes and characters that change the direction of writing
are shown as escapes.  ``docs/json.md`` describes the JSON.
"""

from __future__ import annotations

import base64
import errno
import json
import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Any

from unixsock_bpf.record import (
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

_SHUTDOWN = {0: "read", 1: "write", 2: "read and write"}

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
    """``data`` as text for a terminal: UTF-8, all but printable characters and those of ``keep`` escaped."""
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character, keep) for character in text)


def name_text(name: bytes) -> str:
    """A socket name as people write it, harmless to a terminal."""
    return harmless(display_name(name))


def process_text(comm: bytes, pid: int) -> str:
    """``comm[pid]``, as far as they are known, harmless to a terminal."""
    return harmless(display_process(comm, pid)) or "?"


def _fd_text(kind: FdKind, path: bytes, inode: int) -> str:
    return f"{kind.name.lower()} {harmless(path) if path else f'inode {inode}'}"


def details(record: Record) -> list[str]:
    """What ``record`` tells beyond ends, path, type and payload, each in a few words."""
    said = []
    if record.flags & Flag.OOB:
        said.append("out of band")
    if record.flags & Flag.TRUNCATED and record.event == Event.DATA:
        said.append(f"{len(record.payload)} captured")
    if record.flags & Flag.UNREADABLE:
        said.append("not all readable")
    if record.offset:
        said.append(f"from byte {record.offset}")
    if record.creds is not None:
        pid, uid, gid = record.creds
        said.append(f"creds pid {pid} uid {uid} gid {gid}")
    if record.fds_count:
        shown = ", ".join(_fd_text(fd.kind, fd.path, fd.inode) for fd in record.fds)
        said.append(f"{record.fds_count} fd{'s' if record.fds_count > 1 else ''}: {shown}")
    if record.errno is not None:
        said.append(errno.errorcode.get(record.errno, str(record.errno)))
    if record.how is not None:
        said.append(_SHUTDOWN.get(record.how, str(record.how)))
    if record.lost is not None:
        messages, size, reasons = record.lost
        why = ", ".join(_reasons(reasons)).replace("_", " ")
        said.append(f"{messages} messages, {size} bytes lost{f' ({why})' if why else ''}")
    return said


def _reasons(reasons: int) -> list[str]:
    return [reason.name.lower() for reason in LostReason if reasons & reason and reason.name]


def heading(time_ns: int, record: Record) -> str:
    """The line above a payload: time, both ends, path, type, length, the rest."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    time = datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    ends = (
        f"{process_text(record.src_comm, record.src_pid)} → {process_text(record.dst_comm, record.dst_pid)}"
    )
    words = [f"{time}.{rest:09d}", ends, name_text(record.name) or "(unnamed)", type_name(record.type)]
    if record.event == Event.DATA:
        words.append(f"{record.len} byte{'' if record.len == 1 else 's'}")
    else:
        words.append(_event_name(record.event).replace("_", " "))
    return "  ".join([" ".join(words), *details(record)])


def type_name(number: int) -> str:
    """A socket type's name."""
    known = SocketType._value2member_map_
    return SocketType(number).name.lower() if number in known else "?"


def _event_name(number: int) -> str:
    known = Event._value2member_map_
    return Event(number).name.lower() if number in known else f"event {number}"


def colour(record: Record, text: str) -> str:
    """``text`` in the colour of the record's direction."""
    if record.event != Event.DATA:
        start = _NOTE
    elif record.role == Role.SRC_IS_SERVER:
        start = _TO_CLIENT
    elif record.role == Role.DST_IS_SERVER:
        start = _TO_SERVER
    else:  # either way will do, as long as a direction keeps its colour
        start = _TO_SERVER if record.src_sock < record.dst_sock else _TO_CLIENT
    return f"{start}{text}{_PLAIN}"


def string(payload: bytes) -> str:
    """Text as it is, everything else escaped; ends in a line feed."""
    text = harmless(payload, keep="\n\t")
    return text if not text or text.endswith("\n") else text + "\n"


def hexdump(payload: bytes) -> str:
    """Lines of offset, sixteen bytes and their ASCII, as text2pcap reads them."""
    lines = []
    for at in range(0, len(payload), 16):
        row = payload[at : at + 16]
        digits = (
            " ".join(f"{byte:02x}" for byte in row[:8]) + "  " + " ".join(f"{byte:02x}" for byte in row[8:])
        )
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}  {digits:<48}  |{shown}|\n")
    return "".join(lines)


def escapes(payload: bytes) -> str:
    r"""Every byte as ``\xNN``: the inside of a string literal of C, Python, Rust (bytes) or Go."""
    digits = payload.hex()
    return "".join(f"\\x{digits[at : at + 2]}" for at in range(0, len(digits), 2))


def hexstring(payload: bytes) -> str:
    r"""One line of ``\xNN``; none for an empty payload."""
    return escapes(payload) + "\n" if payload else ""


#: The formats of a payload below its heading.
TEXT: dict[str, Callable[[bytes], str]] = {"string": string, "hex": hexdump, "hexstring": hexstring}


def text(time_ns: int, record: Record, form: str, *, coloured: bool = False) -> str:
    """A whole record in one of the formats of ``TEXT``."""
    head = heading(time_ns, record)
    return f"{colour(record, head) if coloured else head}\n{TEXT[form](record.payload)}"


def _text_or_none(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _end(record: Record, side: str) -> dict[str, Any]:
    """One end; what is not known is left out."""
    known = bool(record.flags & (Flag.SRC_CREDS if side == "src" else Flag.DST_CREDS))
    values: dict[str, Any] = {
        "pid": getattr(record, f"{side}_pid") or None,
        "tid": (record.src_tid or None) if side == "src" else None,
        "comm": getattr(record, f"{side}_comm").decode("utf-8", "backslashreplace") or None,
        "uid": getattr(record, f"{side}_uid") if known else None,
        "gid": getattr(record, f"{side}_gid") if known else None,
        "inode": getattr(record, f"{side}_inode") or None,
        "sock": getattr(record, f"{side}_sock") or None,
        "name": _name(getattr(record, f"{side}_name")),
        "path": getattr(record, f"{side}_path").decode("utf-8", "backslashreplace") or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _name(name: bytes) -> str | None:
    return display_name(name).decode("utf-8", "backslashreplace") or None


def as_dict(time_ns: int, record: Record) -> dict[str, Any]:
    """A record as the object that ``docs/json.md`` describes."""
    out: dict[str, Any] = {
        "time_ns": time_ns,
        "event": _event_name(record.event),
        "type": type_name(record.type) if record.type else None,
        "path": _name(record.name),
        "abstract": True if record.name.startswith(b"\0") else None,
        "src": _end(record, "src"),
        "dst": _end(record, "dst"),
        "server": {Role.SRC_IS_SERVER: "src", Role.DST_IS_SERVER: "dst"}.get(Role(record.role))
        if record.role in Role._value2member_map_
        else None,
        "flags": [flag.name.lower() for flag in Flag if record.flags & flag and flag.name] or None,
        "netns": record.netns or None,
        "cgroup": record.cgroup.decode("utf-8", "backslashreplace") or None,
    }
    if record.event == Event.DATA:
        out |= {
            "seq": record.seq,
            "message": record.message,
            "len": record.len,
            "offset": record.offset or None,
            "caplen": len(record.payload),
            "payload": base64.b64encode(record.payload).decode("ascii"),
            "text": _text_or_none(record.payload),
        }
    if record.creds is not None:
        out["creds"] = dict(zip(("pid", "uid", "gid"), record.creds))
    if record.fds_count:
        out["fds_count"] = record.fds_count
        out["fds"] = [
            {"type": fd.kind.name.lower(), "inode": fd.inode, "path": harmless(fd.path) or None}
            for fd in record.fds
        ]
    if record.errno is not None:
        out["error"] = errno.errorcode.get(record.errno, str(record.errno))
    if record.how is not None:
        out["how"] = _SHUTDOWN.get(record.how, str(record.how))
    if record.lost is not None:
        messages, size, reasons = record.lost
        out["lost"] = {"messages": messages, "bytes": size, "reasons": _reasons(reasons)}
    return {key: value for key, value in out.items() if value is not None}


def json_line(time_ns: int, record: Record) -> str:
    """A record as one line of JSON; ASCII only, so that any terminal takes it."""
    return json.dumps(as_dict(time_ns, record), separators=(",", ":")) + "\n"
