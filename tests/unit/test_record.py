"""The record codec: what is encoded is decoded, and nothing else raises anything but RecordError."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.record import (
    HEADER_LEN,
    VERSION,
    Fd,
    FdKind,
    Record,
    RecordError,
    Role,
    decode,
    display_name,
    encode,
)

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
TEXT = st.binary(max_size=40)
RECORDS = st.builds(
    Record,
    event=U8, type=U8, role=U8, flags=U16, src_pid=U32, dst_pid=U32, src_tid=U32, src_uid=U32, dst_gid=U32,
    netns=U32,
    src_sock=U64, dst_sock=U64, src_inode=U64, dst_inode=U64, seq=U64, ack=U64, message=U32, len=U32,
    offset=U32, src_comm=TEXT, dst_comm=TEXT, src_name=TEXT, dst_name=TEXT, src_path=TEXT, dst_path=TEXT,
    cgroup=TEXT, creds=st.none() | st.tuples(U32, U32, U32), lost=st.none() | st.tuples(U64, U64, U32),
    errno=st.none() | U32, how=st.none() | U32, fds_count=st.integers(1, 253),
    fds=st.lists(st.builds(Fd, st.sampled_from(FdKind), U64, TEXT), max_size=4),
    unknown=st.lists(st.tuples(st.integers(1000, 65535), TEXT), max_size=3), payload=st.binary(max_size=200),
)  # fmt: skip


@given(RECORDS, st.binary(max_size=9))
def test_decode_undoes_encode(record: Record, after: bytes) -> None:
    assert decode(encode(record) + after) == record


@given(RECORDS, st.data())
def test_every_cut_is_told(record: Record, data: st.DataObject) -> None:
    whole = encode(record)
    with pytest.raises(RecordError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=300))
def test_other_bytes_raise_record_error_or_decode(junk: bytes) -> None:
    for data in (junk, bytes([VERSION]) + junk):
        with contextlib.suppress(RecordError):
            decode(data)


def test_newer_version_is_refused() -> None:
    with pytest.raises(RecordError, match="version 2"):
        decode(b"\x02" + encode(Record())[1:])


def test_header_length() -> None:
    assert len(encode(Record())) == HEADER_LEN == 104


@given(TEXT, TEXT)
def test_name_is_the_servers(src: bytes, dst: bytes) -> None:
    record = Record(src_name=src, dst_name=dst)
    assert replace(record, role=Role.SRC_IS_SERVER).name == (src or dst)
    assert replace(record, role=Role.DST_IS_SERVER).name == record.name == (dst or src)


def test_display_name() -> None:
    assert display_name(b"\0a\0b") == b"@a@b"
    assert display_name(b"/run/x") == b"/run/x"
