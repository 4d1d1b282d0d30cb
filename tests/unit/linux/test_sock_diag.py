"""The kernel's answers about its sockets, taken apart: whole ones, odd ones, and any bytes at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.linux.sock_diag import DiagError, Entry, entries, request

DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(one: Entry, more: bytes = b"") -> bytes:
    body = struct.pack("=BBBBIII", 1, one.type, one.state, 0, one.inode, 7, 8)
    if one.name:
        body += attribute(0, one.name if one.name.startswith(b"\0") else one.name + b"\0")
    if one.peer:
        body += attribute(2, struct.pack("=I", one.peer))
    body += more + attribute(4, struct.pack("=II", one.receive_queue, one.send_queue))
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


_NUMBER = st.integers(0, 0xFFFFFFFF)
_NAME = st.binary(max_size=107).map(lambda name: b"\0" + name) | st.binary(max_size=107).map(
    lambda name: name.strip(b"\0")
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        _NUMBER,
        st.integers(0, 255),
        st.integers(0, 255),
        _NAME,
        _NUMBER,
        _NUMBER,
        _NUMBER,
        st.just(0),
        st.just(0),
        st.just(()),
    ),
    max_size=4,
)


@given(ENTRIES)
def test_sockets_arrive_as_they_were_told(told: list[Entry]) -> None:
    piece = b"".join(message(one, attribute(77, b"from a newer kernel")) for one in told)
    assert entries(piece) == (told, False)
    assert entries(piece + DONE) == (told, True)


def test_the_request_is_what_ss_sends() -> None:
    """As strace shows of iproute2, but for sequence number, states and what is to be shown."""
    assert request(0x15) == bytes.fromhex(
        "28000000 1400 0103 01000000 00000000 01 00 0000 ffffffff 00000000 15000000 00000000 00000000"
    )


@pytest.mark.parametrize("kind", [2, 3])
def test_an_error_is_told(kind: int) -> None:
    with pytest.raises(DiagError, match="No such file"):
        entries(struct.pack("=IHHIIi", 20, kind, 0, 1, 0, -2))


@given(st.binary(max_size=80) | ENTRIES.map(lambda told: b"".join(map(message, told))), st.data())
def test_any_bytes_are_sockets_or_refused(piece: bytes, data: st.DataObject) -> None:
    cut = piece[: data.draw(st.integers(0, len(piece)))]
    try:
        found, _ = entries(cut)
    except DiagError:
        return
    assert all(isinstance(one, Entry) for one in found)
