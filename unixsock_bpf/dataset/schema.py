"""The columns of a dataset: docs/dataset.md describes them.

What is not known is null, never zero.  ``time_ns`` is exact; ``time`` has microseconds, which all engines
read.  Numbers are signed, because not all engines have others: identities and positions keep their 64 bits.
"""

from __future__ import annotations

import pyarrow as pa

#: Of the columns; newer versions only add some.
VERSION = 1

_NAME = pa.dictionary(pa.int32(), pa.string())

COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("time", pa.timestamp("us", tz="UTC")),
    ("time_ns", pa.int64()),
    ("host", _NAME),
    ("event", _NAME),
    ("type", _NAME),
    ("path", _NAME),
    ("server", _NAME),
    ("src_pid", pa.int64()),
    ("src_tid", pa.int64()),
    ("src_uid", pa.int64()),
    ("src_gid", pa.int64()),
    ("src_comm", _NAME),
    ("src_name", _NAME),
    ("src_sock", pa.int64()),
    ("src_inode", pa.int64()),
    ("dst_pid", pa.int64()),
    ("dst_uid", pa.int64()),
    ("dst_gid", pa.int64()),
    ("dst_comm", _NAME),
    ("dst_name", _NAME),
    ("dst_sock", pa.int64()),
    ("dst_inode", pa.int64()),
    ("cgroup", _NAME),
    ("netns", pa.int64()),
    ("flags", pa.int32()),
    ("seq", pa.int64()),
    ("ack", pa.int64()),
    ("message", pa.int64()),
    ("len", pa.int64()),
    ("offset", pa.int64()),
    ("caplen", pa.int64()),
    ("fds_count", pa.int32()),
    ("error", _NAME),
    ("lost_messages", pa.int64()),
    ("lost_bytes", pa.int64()),
    ("payload", pa.binary()),
    ("text", pa.string()),
    ("elements", pa.dictionary(pa.int32(), pa.binary())),
)

#: What ``--dissect`` adds.
DISSECTED: tuple[tuple[str, pa.DataType], ...] = (
    ("protocol", _NAME),
    ("method", _NAME),
    ("info", pa.string()),
    ("response_time", pa.float64()),
)

_METADATA = {b"unixsock.version": str(VERSION).encode()}


def schema(dissected: bool) -> pa.Schema:
    """Return the schema of a file."""
    return pa.schema(COLUMNS + (DISSECTED if dissected else ()), _METADATA)
