"""Records as columns: a batch collects rows cheaply and turns them into Arrow arrays at once."""

from __future__ import annotations

import errno
import struct
from typing import Any, Union

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unixsock_bpf import record
from unixsock_bpf.dataset.schema import COLUMNS, DISSECTED, schema
from unixsock_bpf.formats.text import event_name, type_name
from unixsock_bpf.record import HEADER, HEADER_LEN, Flag, Role, display_name

#: The fixed header as numpy reads many at once.
_HEADERS = np.dtype(
    [(name, "<" + {"B": "u1", "H": "u2", "I": "u4", "Q": "i8"}[fmt]) for name, fmt, _ in HEADER]
)
#: Zero in these means "not known".
_UNKNOWN_AT_ZERO = {
    "src_pid", "src_tid", "dst_pid", "netns", "src_sock", "dst_sock", "src_inode", "dst_inode",
}  # fmt: skip
#: These are known if the flag is set.
_CREDENTIALS = {
    "src_uid": Flag.SRC_CREDS, "src_gid": Flag.SRC_CREDS,
    "dst_uid": Flag.DST_CREDS, "dst_gid": Flag.DST_CREDS,
}  # fmt: skip
#: These say something of messages only.
_OF_DATA = {"message", "len", "offset", "caplen"}
#: Different elements that are remembered in decoded form; programs that pass descriptors make many.
_REMEMBERED = 1 << 14

#: What is decoded from elements.
_Decoded = tuple[Union[str, bytes, int, None], ...]
_DECODED = (
    "path", "src_comm", "src_name", "dst_comm", "dst_name", "cgroup", "fds_count", "error",
    "lost_messages", "lost_bytes", "elements",
)  # fmt: skip


_CAPLEN = struct.Struct("<I")
_SIDES = {Role.SRC_IS_SERVER.value: "src", Role.DST_IS_SERVER.value: "dst"}
_KINDS = dict(COLUMNS)


def _text(data: bytes) -> str | None:
    return data.decode("utf-8", "backslashreplace") or None


class Batch:
    """Rows on their way into a file.  ``size`` counts payload bytes."""

    def __init__(self, dissected: bool = False) -> None:
        self._dissected = dissected
        self._ids: dict[tuple[bytes, int], int] = {}
        self._decoded: list[_Decoded] = []
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.size = 0
        self._times: list[int] = []
        self._hosts: list[str | None] = []
        self._records: list[bytes] = []
        self._extra: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time_ns: int, data: bytes, host: str | None, extra: tuple[Any, ...] = ()) -> None:
        """Add a record.  Raises RecordError."""
        begin = data[2] | data[3] << 8 if len(data) >= HEADER_LEN else 0
        if (
            begin < HEADER_LEN
            or data[0] != record.VERSION
            or begin + _CAPLEN.unpack_from(data, 100)[0] > len(data)
        ):
            record.decode(data)
        self._times.append(time_ns)
        self._hosts.append(host)
        self._records.append(data)
        self.size += len(data)
        if self._dissected:
            self._extra.append(extra)

    def _id(self, key: tuple[bytes, int], data: bytes) -> int:
        """Return the number of different elements, which are decoded once."""
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self._decoded)
            self._decoded.append(_decoded(data))
        return found

    def table(self) -> pa.Table:
        """Return the rows as a table in order of time."""
        if len(self._decoded) > _REMEMBERED:
            self._ids.clear()
            self._decoded.clear()
        records = self._records
        headers = np.frombuffer(b"".join([data[:HEADER_LEN] for data in records]), _HEADERS)
        begins, roles = headers["header_len"].tolist(), headers["role"].tolist()
        keys = [(data[HEADER_LEN:begin], role) for data, begin, role in zip(records, begins, roles)]
        ids = pa.array([self._id(key, data) for key, data in zip(keys, records)], pa.int32())
        ends = (headers["header_len"] + headers["caplen"].astype("i8")).tolist()
        is_data = headers["event"] == 0
        payload = pa.array([data[begin:end] for data, begin, end in zip(records, begins, ends)], pa.binary())
        if not is_data.all():
            payload = pc.if_else(pa.array(is_data), payload, pa.scalar(None, pa.binary()))
        columns: dict[str, Any] = {"payload": payload, "text": _texts(payload)}
        for name, values in zip(_DECODED, zip(*self._decoded)):
            columns[name] = pa.array(values, _value_type(name)).take(ids)
        for name in _HEADERS.names or ():
            columns[name] = headers[name]
        names = [event_name(number) for number in range(256)]
        columns["event"] = pa.array(names).take(pa.array(headers["event"]))
        kinds = [type_name(number) if number else None for number in range(256)]
        columns["type"] = pa.array(kinds).take(pa.array(headers["type"]))
        sides = [_SIDES.get(number) for number in range(256)]
        columns["server"] = pa.array(sides, pa.string()).take(pa.array(headers["role"]))
        times = np.array(self._times, "i8")
        columns["time_ns"], columns["time"], columns["host"] = times, times // 1000, self._hosts
        if self._dissected:
            columns.update(zip((name for name, _ in DISSECTED), zip(*self._extra)))
        unknown = {name: headers[name] == 0 for name in _UNKNOWN_AT_ZERO}
        unknown |= {name: headers["flags"] & flag.value == 0 for name, flag in _CREDENTIALS.items()}
        unknown |= dict.fromkeys(_OF_DATA, ~is_data)
        every = COLUMNS + (DISSECTED if self._dissected else ())
        arrays = [_array(columns[name], kind, unknown.get(name)) for name, kind in every]
        table = pa.table(arrays, schema=schema(self._dissected))
        return table if (times[:-1] <= times[1:]).all() else table.sort_by("time_ns")


def _value_type(name: str) -> pa.DataType:
    kind = _KINDS[name]
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(data: bytes) -> _Decoded:
    """Return what elements say; nothing for contradictory ones, which are kept as they are."""
    elements = data[HEADER_LEN : data[2] | data[3] << 8]
    try:
        one = record.decode(data)
    except record.RecordError:
        return (*[None] * (len(_DECODED) - 1), elements)
    messages, size = one.lost[:2] if one.lost else (None, None)
    return (
        _text(display_name(one.name)),
        _text(one.src_comm),
        _text(display_name(one.src_name)),
        _text(one.dst_comm),
        _text(display_name(one.dst_name)),
        _text(one.cgroup),
        min(one.fds_count, (1 << 31) - 1) or None,
        None if one.errno is None else errno.errorcode.get(one.errno, str(one.errno)),
        messages and min(messages, (1 << 63) - 1),
        size and min(size, (1 << 63) - 1),
        elements,
    )


def _array(values: Any, kind: pa.DataType, unknown: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        return values.dictionary_encode() if pa.types.is_dictionary(kind) else values
    if isinstance(values, np.ndarray):
        integer = pa.int64() if pa.types.is_timestamp(kind) else kind
        return pa.array(values.astype(integer.to_pandas_dtype()), integer, mask=unknown).cast(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


def _texts(payload: pa.Array) -> pa.Array:
    """Return payloads that are UTF-8 as text; null for the others."""
    try:
        return payload.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array(map(_text_or_none, payload.to_pylist()), pa.string())


def _text_or_none(payload: bytes | None) -> str | None:
    try:
        return None if payload is None else payload.decode()
    except UnicodeDecodeError:
        return None


#: Events by their names, of newer versions, too.
_EVENTS = {event_name(number): number for number in range(256)}
#: The most bytes of a record: a header with all elements, and payload.
_LONGEST = (1 << 16) + record.MAX_PAYLOAD


class RowError(ValueError):
    """A row that was not made of a record; the text says why."""


def row_record(row: dict[str, Any]) -> tuple[int, bytes]:
    """Return time (ns) and record that a row of a dataset was made of.  Raises RowError."""
    try:
        time_ns, data = row["time_ns"], _row_record(row)
        if 0 <= time_ns < 1 << 63 and len(data) <= _LONGEST:
            return int(time_ns), data
    except KeyError as error:
        raise RowError(f"there is no column {error}") from None
    except (TypeError, ValueError, struct.error):
        pass
    raise RowError("a row holds what no record does")


def _row_record(row: dict[str, Any]) -> bytes:
    elements, payload = row["elements"] or b"", row["payload"] or b""
    types = {type_name(kind): kind.value for kind in record.SocketType}
    computed: dict[str, Any] = {
        "version": record.VERSION,
        "event": _EVENTS.get(row["event"]),
        "header_len": HEADER_LEN + len(elements),
        "type": types.get(row["type"], 0),
        "role": {"src": 1, "dst": 2}.get(row["server"], 0),
        "caplen": len(payload),
    }
    values = []
    for name, fmt, _ in HEADER:
        value = computed[name] if name in computed else row[name] or 0
        values.append(value % (1 << 64) if fmt == "Q" else value)  # which a dataset has as a signed one
    return struct.pack("<" + "".join(fmt for _, fmt, _ in HEADER), *values) + elements + payload
