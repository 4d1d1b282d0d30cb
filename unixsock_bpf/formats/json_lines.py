"""Format ``json``: one object a line, as ``docs/json.md`` describes."""

from __future__ import annotations

import base64
import errno
import json
import os
from typing import Any

from unixsock_bpf.formats.base import Format, Options, RecordWriter
from unixsock_bpf.formats.pcapng import Block, interface_of
from unixsock_bpf.formats.text import SHUTDOWN, event_name, harmless, reason_names, type_name
from unixsock_bpf.record import (
    ATTRIBUTES,
    ELEMENT_FIELDS,
    Element,
    Event,
    Flag,
    Record,
    Role,
    container_of,
    display_name,
    unit_of,
)


def _text_or_none(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def endpoint(record: Record, side: str) -> dict[str, Any]:
    """Return what is known of one endpoint; ``side``: ``src`` or ``dst``."""
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
    for name in ("exe", "user"):
        values[name] = getattr(record, f"{side}_{name}").decode("utf-8", "backslashreplace") or None
    if cmdline := getattr(record, f"{side}_cmdline"):
        values["cmdline"] = [one.decode("utf-8", "backslashreplace") for one in cmdline.split(b"\0")]
    values["parent"] = getattr(record, f"{side}_parent")
    if side == "src" and record.cgroup:
        values["unit"] = unit_of(record.cgroup).decode("utf-8", "backslashreplace") or None
        values["container"] = container_of(record.cgroup).decode("utf-8", "backslashreplace") or None
    return {key: value for key, value in values.items() if value is not None}


def _name(name: bytes) -> str | None:
    return display_name(name).decode("utf-8", "backslashreplace") or None


def as_dict(time_ns: int, record: Record) -> dict[str, Any]:
    """Return a record as the object that ``docs/json.md`` describes."""
    out: dict[str, Any] = {
        "time_ns": time_ns,
        "event": event_name(record.event),
        "type": type_name(record.type) if record.type else None,
        "path": _name(record.name),
        "abstract": True if record.name.startswith(b"\0") else None,
        "src": endpoint(record, "src"),
        "dst": endpoint(record, "dst"),
        "server": {Role.SRC_IS_SERVER: "src", Role.DST_IS_SERVER: "dst"}.get(Role(record.role))
        if record.role in Role._value2member_map_
        else None,
        "flags": [flag.name.lower() for flag in Flag if record.flags & flag and flag.name] or None,
        "netns": record.netns or None,
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
    elif record.event == Event.UNDELIVERED:
        out |= {"seq": record.seq, "len": record.len}
    if record.fds_count:
        out["fds_count"] = record.fds_count
        out["fds"] = [
            {"type": fd.kind.name.lower(), "inode": fd.inode, "path": harmless(fd.path) or None}
            for fd in record.fds
        ]
    if record.errno is not None:
        out["errno"] = record.errno
        out["error"] = errno.errorcode.get(record.errno, str(record.errno))
    if record.how is not None:
        out["how"] = SHUTDOWN.get(record.how, str(record.how))
    if record.lost is not None:
        messages, size, reasons = record.lost
        out["lost"] = {"messages": messages, "bytes": size, "reasons": reason_names(reasons)}
    for kind in sorted(ATTRIBUTES.keys() - _OWN_FORM):
        out[ATTRIBUTES[kind]] = _element(kind, getattr(record, ATTRIBUTES[kind]))
    return {key: value for key, value in out.items() if value is not None}


#: Elements that are shown in a form of their own; others as text, a number, or an object of numbers.
_OWN_FORM = {
    *(Element.SRC_COMM, Element.SRC_NAME, Element.SRC_PATH, Element.DST_COMM, Element.DST_NAME),
    *(Element.DST_PATH, Element.FDS, Element.ERROR, Element.SHUTDOWN, Element.LOST),
    *range(Element.SRC_EXE, Element.DST_PARENT + 1),
}


def _element(kind: Element, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace") or None
    if isinstance(value, tuple):
        return {name: number for (name, _), number in zip(ELEMENT_FIELDS[kind], value)}
    return value


def json_line(time_ns: int, record: Record, host: str) -> str:
    """Return a record of ``host`` as one line of JSON; ASCII only, so that any terminal takes it."""
    return json.dumps({"host": host, **as_dict(time_ns, record)}, separators=(",", ":")) + "\n"


class _JsonWriter(RecordWriter):
    """Writes each record with its host."""

    def __init__(self, options: Options) -> None:
        super().__init__(lambda time_ns, record: json_line(time_ns, record, self._host).encode())
        self._hosts = [host.name for host in options.hosts] or [os.uname().nodename]
        self._host = ""  # of the record that is being written

    def piece(self, block: Block) -> bytes:
        self._host = self._hosts[interface_of(block)]
        return super().piece(block)


FORMAT = Format("json", _JsonWriter)
