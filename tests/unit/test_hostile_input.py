"""Hostile input, as properties: a sentence or a result, never another exception.

``UNIXSOCK_LONG`` (``make test-faults``) tries a hundred times as many.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from unixsock_bpf import record
from unixsock_bpf.filter import FilterError, parse
from unixsock_bpf.formats import fixtures, pcapng, reader, string, text
from unixsock_bpf.formats.base import Options
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.record import Fd, FdKind, Record

TRIES = settings(max_examples=10_000 if "UNIXSOCK_LONG" in os.environ else 100)

_PRIMITIVES = "path pid src dst comm uid type inode netns cgroup fds creds less greater event and or not"
WORDS = [
    *_PRIMITIVES.split(),
    *("&&", "||", "!", "(", ")", "/run/*", "@x", "stream", "7", "-1", "9" * 20),
    *("'", '"', "\\", "[", "[!a-]"),
    *("*" * 50, "\x1b", "\u202e", "\udcff"),
]


@TRIES
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS) | st.text(max_size=5)).map(" ".join))
def test_any_filter_is_taken_or_refused_in_one_printable_sentence(text: str) -> None:
    refusal = None
    try:
        parse(text)
    except FilterError as error:
        refusal = error
    if refusal:
        assert str(refusal).isprintable()
        assert refusal.position is None or 1 <= refusal.position <= len(text) + 1


U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
BYTES = st.binary(max_size=40)
RECORDS = st.builds(
    Record,
    event=U8, type=U8, role=U8, flags=U16, src_pid=U32, dst_pid=U32, src_tid=U32, src_uid=U32, dst_gid=U32,
    src_sock=U64, dst_sock=U64, src_inode=U64, dst_inode=U64, seq=U64, ack=U64, message=U32, len=U32,
    offset=U32, src_comm=BYTES, dst_comm=BYTES, src_name=BYTES, dst_name=BYTES, src_path=BYTES, cgroup=BYTES,
    creds=st.none() | st.tuples(U32, U32, U32), lost=st.none() | st.tuples(U64, U64, U32),
    errno=st.none() | U32, how=st.none() | U32, fds_count=st.integers(1, 253),
    fds=st.lists(st.builds(Fd, st.sampled_from(FdKind), U64, BYTES), max_size=4), payload=BYTES,
)  # fmt: skip

#: What a terminal may obey.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@TRIES
@given(U64, RECORDS)
def test_any_record_is_shown_harmlessly(time_ns: int, one: Record) -> None:
    block = pcapng.packet(time_ns, record.encode(one))
    for form in FORMATS.values():
        if not form.binary:
            (piece,) = form.writer(Options()).pieces([block])
            assert not CONTROL.search(bytes(piece).decode())
    for form in fixtures.LANGUAGES:
        fixtures.source(list(fixtures.fixtures([one, one])), form)


@TRIES
@given(st.lists(RECORDS, min_size=1, max_size=3), st.data())
def test_a_mutated_file_is_read_or_refused(records: list[Record], data: st.DataObject) -> None:
    whole = bytearray(pcapng.section_header("x", "y", "z") + pcapng.interface("unixsock", "Unix sockets", 0))
    for one in records:
        whole += pcapng.packet(1, record.encode(one))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        cut = data.draw(st.integers(0, 8))
        whole[at : at + cut] = data.draw(st.binary(max_size=8))
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole)
        file.flush()
        with contextlib.suppress(reader.SavedError):
            for found in reader.read(file.name):
                text.record_text(found.time_ns, found.record, string.string)
