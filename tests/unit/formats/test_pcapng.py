"""The pcapng codec: what is written is read again, and damage is reported."""

from __future__ import annotations

import ipaddress
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.record import Record, decode, element, encode

TIMES = st.integers(0, 2**64 - 1)
HEAD = pcapng.section_header("cpu", "Linux", "test") + pcapng.interface(
    "unixsock", "Unix sockets", 262144, "path /x"
)


@given(st.lists(st.tuples(TIMES, st.binary(max_size=99))))
def test_packets_are_read_as_written(records: list[tuple[int, bytes]]) -> None:
    stream = HEAD + b"".join(pcapng.packet(time, data) for time, data in records)
    stream += pcapng.names([(1, "a[1]")]) + pcapng.statistics(5, 10, 2)
    found = [(packet.time_ns, packet.data) for packet in pcapng.packets(stream)]
    assert found == records


@given(st.integers(0, len(HEAD) - 1))
def test_a_cut_file_is_told(size: int) -> None:
    whole = [12 + len(body) for _, body in pcapng.blocks(HEAD)]
    if size in (0, whole[0]):
        return  # nothing is cut between blocks
    with pytest.raises(pcapng.PcapngError):
        list(pcapng.blocks(HEAD[:size]))


@given(st.integers(0, 40), st.binary(max_size=300))
def test_blocks_have_whole_words_and_both_lengths(kind: int, body: bytes) -> None:
    block = pcapng.block(kind, body)
    assert len(block) % 4 == 0
    assert struct.unpack_from("<I", block, 4) == struct.unpack("<I", block[-4:]) == (len(block),)


@given(st.integers(0, 2**64 - 1))
def test_endpoint_address_holds_the_identity(sock: int) -> None:
    address = pcapng.endpoint_address(sock)
    assert address in ipaddress.IPv6Network("fdfe:756e:6978::/64")
    assert int(address) & (2**64 - 1) == sock


def test_packets_of_other_link_types_are_left_out() -> None:
    ethernet = pcapng.block(pcapng.IDB, struct.pack("<HHI", 1, 0, 65535))
    stream = HEAD + ethernet + pcapng.packet(1, b"ours") + pcapng.packet(2, b"other", interface_id=1)
    assert [packet.data for packet in pcapng.packets(stream)] == [b"ours"]


SECTION = pcapng.section_header("m", "o", "a")
DESCRIPTION = pcapng.interface("unixsock", "d", 0)


@pytest.mark.parametrize(
    "blocks",
    [
        pcapng.block(pcapng.SHB, b""),
        SECTION + pcapng.block(pcapng.IDB, b""),
        SECTION + pcapng.block(pcapng.IDB, struct.pack("<HHI", 252, 0, 0) + struct.pack("<HH", 9, 1)),
        HEAD + pcapng.block(pcapng.EPB, b""),
        HEAD + pcapng.block(pcapng.EPB, bytes(8)),
        HEAD + pcapng.block(pcapng.EPB, struct.pack("<IIIII", 0, 0, 0, 99, 99)),
        HEAD + pcapng.block(pcapng.EPB, struct.pack("<IIIII", 1, 0, 0, 0, 0)),
        SECTION + pcapng.packet(1, b"record"),
    ],
    ids=["SHB", "IDB", "option", "EPB", "EPB of 8", "caplen", "interface", "no interface"],
)
def test_a_short_block_is_told(blocks: bytes, tmp_path: Path) -> None:
    """Each alone, and behind a packet that is still read."""
    with pytest.raises(pcapng.PcapngError):
        list(pcapng.packets(blocks))
    path = tmp_path / "file"
    path.write_bytes(HEAD + pcapng.packet(1, encode(Record(payload=b"x"))) + blocks)
    found = reader.read(str(path))
    assert next(found).record.payload == b"x"
    with pytest.raises(reader.SavedError):
        next(found)


def test_reading_is_one_pass(tmp_path: Path) -> None:
    """Many interfaces before many packets cost what as many packets alone do, within reason."""
    packets = pcapng.packet(1, encode(Record(payload=b"x"))) * 2000
    took = []
    for interfaces in (DESCRIPTION, DESCRIPTION * 5000):
        path = tmp_path / "file"
        path.write_bytes(SECTION + interfaces + packets)
        began = time.process_time()
        assert len(list(reader.read(str(path)))) == 2000
        took.append(time.process_time() - began)
    assert took[1] < 5 * took[0] + 0.5


@pytest.mark.parametrize("mode", ["all", "any", "none"])
def test_mergecap_keeps_hosts_apart(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one kind, from hosts that differ in their names only."""
    here = os.uname()
    for at, host in enumerate(("db1", "db2")):
        there = os.uname_result((here.sysname, host, *here[2:]))
        monkeypatch.setattr(os, "uname", lambda there=there: there)
        packets = [pcapng.packet(time, encode(Record(payload=host.encode()))) for time in (at, at + 2)]
        (tmp_path / host).write_bytes(pcapng.file_header(0, "path /x") + b"".join(packets))
    both = tmp_path / "both"
    inputs = [str(tmp_path / host) for host in ("db1", "db2")]
    subprocess.run(["mergecap", "-I", mode, "-w", str(both), *inputs], check=True)
    capture = reader.SavedCapture(str(both))
    found = [
        (capture.host(span.interface), capture.decode(0, span.begin, span.end).payload.decode())
        for span in capture.spans()
    ]
    assert found == [("db1", "db1"), ("db2", "db2")] * 2


def test_a_packet_has_its_senders_process_and_thread_as_an_option() -> None:
    """epb_processid_threadid, of just 8 bytes: Wireshark 4.6 refuses files where it has another length."""
    known = pcapng.packet(5, encode(Record(src_pid=1234, src_tid=77, payload=b"x", len=1)))
    unknown = pcapng.packet(5, encode(Record(src_tid=77, payload=b"x", len=1)))
    assert known[-20:-4] == struct.pack("<HHIII", 8, 8, 1234, 77, 0)
    assert unknown[-8:-4] == b"x\0\0\0"
    for block in (known, unknown):
        (packet,) = pcapng.packets(pcapng.file_header() + block)
        assert packet == pcapng.packet_of(block)
        longer = pcapng.with_elements(block, element(99, b"abc"))
        assert decode(pcapng.packet_of(longer).data).unknown == [(99, b"abc")]
        assert longer.endswith(b"abc\0x\0\0\0" + (known[-20:-4] if block is known else b"") + longer[4:8])
