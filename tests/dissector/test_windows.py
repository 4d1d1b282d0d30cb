"""What Wireshark's own windows show of all socket types: flow graph, conversations, endpoints, Follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from captures import conversation, write
from conftest import Tshark

from unixsock_bpf.record import Record, SocketType

TYPES = (SocketType.STREAM, SocketType.DGRAM, SocketType.SEQPACKET)
SAID = [(True, b"what?"), (False, b"that!!"), (True, b"")]


def between(records: list[Record], number: int) -> list[Record]:
    """The same between other sockets, of other processes."""
    return [
        replace(
            one,
            src_sock=one.src_sock + number,
            dst_sock=one.dst_sock + number,
            src_pid=one.src_pid + number,
            dst_pid=one.dst_pid + number,
        )
        for one in records
    ]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A conversation of each type: pids 10 and 20, 110 and 120, 210 and 220."""
    records = []
    for number, kind in enumerate(TYPES):
        records += between(conversation(b"/run/%d" % kind, SAID, kind, close=False), 100 * number)
    return write(tmp_path / "c.pcapng", records)


@pytest.mark.parametrize("shown", ["standard", "network"])
@pytest.mark.parametrize("names", ["", "n"])
def test_flow_graph_has_the_processes_as_its_lines(
    tshark: Tshark, capture: Path, shown: str, names: str
) -> None:
    options = ("-N", names) if names else ("-n",)
    lines = tshark.run(capture, *options, "-q", "-z", f"flow,any,{shown}").splitlines()
    heads = " ".join(lines[:2])
    for number in (0, 100, 200):
        assert f"client[{10 + number}]" in heads
        assert f"server[{20 + number}]" in heads
    assert sum("-->" in line or "<--" in line for line in lines) == 9
    assert any("what?" in line for line in lines)


def test_conversations_and_endpoints_of_all_types(tshark: Tshark, capture: Path) -> None:
    text = tshark.run(capture, "-q", *(word for name in ("tcp", "udp") for word in ("-z", f"conv,{name}")))
    assert sum("<->" in line for line in text.splitlines()) == 3
    ends = tshark.run(capture, "-q", "-z", "endpoints,tcp", "-z", "endpoints,udp")
    assert sum(line.startswith("fdfe:") for line in ends.splitlines()) == 6


@pytest.mark.parametrize(("kind", "index"), [("tcp", 0), ("udp", 0), ("udp", 1)])
def test_follow(tshark: Tshark, capture: Path, kind: str, index: int) -> None:
    text = tshark.run(capture, "-q", "-z", f"follow,{kind},ascii,{index}")
    assert "client[" in text  # the two sides have names
    assert "\n5\nwhat?\n\t6\nthat!!\n" in text


def test_names_leave_no_trace_in_the_packets(tshark: Tshark, capture: Path) -> None:
    """Wireshark's dissector of Android's log makes their addresses."""
    for protocols, *_ in tshark.fields(capture, "frame.protocols"):
        assert "logcat" not in protocols
        assert protocols.count("data") <= 1
        assert "unixsock_address" not in protocols
    assert "logcat" not in tshark.run(capture, "-q", "-z", "io,phs")
    assert "Logcat" not in tshark.run(capture, "-V")
    assert "Logcat" not in tshark.run(capture, "-P", "-V")


@pytest.mark.parametrize(
    "comm", [b"a(1): b", b"a: b", b"[x] (2): y", b"--- beginning", "\u00fc\u20ac".encode(), b"%s%n"]
)
def test_any_name_of_a_process(tshark: Tshark, tmp_path: Path, comm: bytes) -> None:
    (record,) = conversation(b"/x", [(True, b"a")], close=False)
    capture = write(tmp_path / "c.pcapng", [replace(record, src_comm=comm)] * 2)
    rows = tshark.fields(capture, "_ws.col.Source", "unixsock.src.comm")
    assert rows == [[f"{comm.decode()}[10]", comm.decode()]] * 2


def test_a_large_datagram(tshark: Tshark, tmp_path: Path) -> None:
    """It does not fit into UDP's length."""
    turns = [(True, b"READY=1\nSTATUS=" + b"x" * 100_000)]
    capture = write(tmp_path / "c.pcapng", conversation(b"/run/systemd/notify", turns, SocketType.DGRAM))
    assert tshark.fields(capture, "_ws.col.Protocol", "udp.length") == [["SD-NOTIFY", "0"]]
