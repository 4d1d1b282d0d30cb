# ruff: noqa: E501 (tables of expected values)
"""The dissector through tshark: fields, reassembly, protocols, and input that is not a record."""

from __future__ import annotations

import ipaddress
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from captures import CLIENT, SERVER, Turn, conversation, side, write
from conftest import Tshark
from protocol_samples import SAMPLES

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import (
    HEADER_LEN,
    Event,
    Fd,
    FdKind,
    Flag,
    Record,
    Role,
    SocketType,
    container_of,
    decode,
    encode,
    unit_of,
)

PREFERENCE = ("-o", "unixsock.paths:/srv/*=unixsock.json")


def cut(turns: list[Turn], sizes: str) -> list[Turn]:
    """The same bytes in other messages: "7", "1" and "random" cut, "glued" joins a side's neighbouring turns."""
    rng = random.Random(4)
    out: list[Turn] = []
    for client, data in turns:
        if sizes == "glued":
            if out and out[-1][0] == client:
                out[-1] = (client, out[-1][1] + data)
            else:
                out.append((client, data))
            continue
        at = 0
        while at < len(data):
            size = rng.randint(1, 40) if sizes == "random" else int(sizes)
            out.append((client, data[at : at + size]))
            at += size
    return out


def parts(records: list[Record], sizes: str) -> list[Record]:
    """Datagrams as the probe splits those that are too large for a record: each message stays one."""
    out = []
    for record in records:
        pieces = cut([(True, record.payload)], sizes)
        at = 0
        for number, (_, data) in enumerate(pieces):
            more = Flag.MORE if number + 1 < len(pieces) else Flag(0)
            out.append(replace(record, offset=at, payload=data, flags=record.flags | more))
            at += len(data)
    return out


def plain_tcp(path: Path, turns: list[Turn], ports: tuple[int, int]) -> Path:
    """A capture with real TCP between the client's and the server's port; gives its path."""
    packets = b""
    sent = {True: 1, False: 1}
    for number, (client, data) in enumerate(turns):
        tcp = struct.pack(
            ">HHIIBBHHH", *ports[:: 1 if client else -1], sent[client], sent[not client], 0x50, 0x18, 65535, 0, 0
        ) + data  # fmt: skip
        ends = [socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")][:: 1 if client else -1]
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), number, 0, 64, 6, 0, *ends) + tcp
        packets += struct.pack("<IIII", 1_700_000_000, number, len(ip), len(ip)) + ip
        sent[client] += len(data)
    path.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101) + packets)
    return path


Decoded = Callable[[str, tuple[str, ...]], dict[str, dict[str, list[str]]]]


def by_sample(rows: list[list[str]], names: list[str]) -> dict[str, dict[str, list[str]]]:
    """The values of each field in each sample; its index is the conversation's, in a row's first column."""
    found: dict[str, dict[str, list[str]]] = {name: {} for name in SAMPLES}
    order = list(SAMPLES)
    for row in rows:
        for field, value in zip(names, row[1:], strict=True):
            seen = found[order[int(row[0])]].setdefault(field, [])
            text = value.replace("\\\\", "\\")  # from 4.4 on, backslashes are escaped
            seen += [one for one in text.split("|") if one]
    return found


@pytest.fixture(scope="module")
def decoded(tshark: Tshark, tmp_path_factory: pytest.TempPathFactory) -> Decoded:
    """All samples in one capture, cut in one way, read with some options: field values by sample."""
    names = sorted({field for sample in SAMPLES.values() for field in sample.expected})

    @cache
    def read(sizes: str, options: tuple[str, ...]) -> dict[str, dict[str, list[str]]]:
        records = []
        for number, sample in enumerate(SAMPLES.values()):
            stream = sample.kind == SocketType.STREAM
            turns = cut(sample.turns, sizes) if stream and sizes != "whole" else sample.turns
            said = conversation(sample.path, turns, sample.kind)
            if not stream and sizes in ("7", "1", "random"):
                said = parts(said, sizes)
            high = (number + 1) << 32
            records += [replace(r, src_sock=high | r.src_sock, dst_sock=high | r.dst_sock) for r in said]
        capture = write(tmp_path_factory.mktemp("decoded") / "c.pcapng", records)
        rows = tshark.fields(capture, "unixsock.stream", *names, options=(*options, *PREFERENCE))
        return by_sample(rows, names)

    return read


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("sizes", ["whole", "random", "7", "1", "glued"])
@pytest.mark.parametrize("name", SAMPLES)
def test_protocol_however_it_is_cut(
    tshark: Tshark, decoded: Decoded, tmp_path: Path, name: str, sizes: str, options: tuple[str, ...]
) -> None:
    sample = SAMPLES[name]
    expected = sample.expected
    if sizes == "1" and sample.tcp_port:
        capture = plain_tcp(tmp_path / "plain.pcap", cut(sample.turns, "1"), (40000, sample.tcp_port))
        rows = tshark.fields(capture, *expected, options=options)
        expected = {
            field: [one for row in rows for one in row[column].split("|") if one]
            for column, field in enumerate(expected)
        }
        assert all(expected.values())
    found = decoded(sizes, options)[name]
    assert {field: found[field] for field in expected} == expected


def test_fields_of_a_full_record(tshark: Tshark, tmp_path: Path) -> None:
    record = replace(
        side(True, b"\0abs\0tract\xff"), src_uid=5, src_gid=6, dst_uid=7, dst_gid=8, netns=99, src_tid=11,
        src_inode=2**63 + 1, cgroup=b"/a.slice", creds=(1, 2, 3), fds=[Fd(FdKind.FILE, 7, b"/etc/passwd"),
        Fd(FdKind.MEMFD)], seq=2**40, payload=b"abc", len=10, unknown=[(999, b"new")],
        flags=Flag.SRC_CREDS | Flag.DST_CREDS | Flag.TRUNCATED,
    )  # fmt: skip
    capture = write(tmp_path / "c.pcapng", [record])
    expected = {
        "version": "1", "event": "0", "type": "1", "path": "@abs@tract\\xff", "stream": "0", "seq": str(2**40),
        "len": "10", "caplen": "3", "payload": "616263", "src.pid": "10", "src.tid": "11", "src.comm": "client",
        "src.uid": "5", "src.gid": "6", "src.inode": str(2**63 + 1), "dst.pid": "20", "dst.comm": "server",
        "dst.uid": "7", "dst.gid": "8", "dst.inode": "", "pid": "10|20", "comm": "client|server", "uid": "5|7",
        "inode": str(2**63 + 1), "flags.truncated": "1", "flags.oob": "0", "flags.abstract": "1",
        "fds.count": "2", "fd.type": "file|memfd", "fd.path": "/etc/passwd", "fd.inode": "7", "creds.pid": "1",
        "creds.uid": "2", "creds.gid": "3", "netns": "99", "cgroup": "/a.slice", "error": "",
    }  # fmt: skip
    row = tshark.fields(capture, *(f"unixsock.{name}" for name in expected))[0]
    found = {name: value.replace("True", "1").replace("False", "0") for name, value in zip(expected, row)}
    assert found | {"path": found["path"].replace("\\\\", "\\")} == expected
    experts = tshark.fields(capture, "_ws.expert.message")[0][0]
    for part in ("2 descriptors passed", "3 of 10 bytes captured", "unknown type 999"):
        assert part in experts


def test_columns_and_info(tshark: Tshark, tmp_path: Path) -> None:
    records = conversation(b"/x/y", [(True, b"\x01\x02some text")])
    columns = ("_ws.col.def_src", "_ws.col.def_dst", "_ws.col.info")
    if not tshark.root:
        columns = ("_ws.col.Source", "_ws.col.Destination", "_ws.col.Info")
    row = tshark.fields(write(tmp_path / "c.pcapng", records), *columns)[0]
    assert row == ["client[10]", "server[20]", "/x/y  stream  len=11  .some text"]


def test_names_do_no_harm(tshark: Tshark, tmp_path: Path) -> None:
    """Unseen characters and such that turn text around are written out; other letters stay as they are."""
    nasty = "/x/\u202egnp.exe\u200b\x1b[2J\ufeff\u061c\u00ad\u2066", "/höhe天/👍"
    records = [record for name in nasty for record in conversation(name.encode(), [(True, b"a")])]
    found = tshark.fields(write(tmp_path / "c.pcapng", records), "unixsock.path")
    escaped = (
        "/x/\\xe2\\x80\\xaegnp.exe\\xe2\\x80\\x8b\\x1b[2J\\xef\\xbb\\xbf\\xd8\\x9c\\xc2\\xad\\xe2\\x81\\xa6"
    )
    assert {path.replace("\\\\", "\\") for (path,) in found} == {escaped, nasty[1]}


def test_lost_and_failed_sends_add_no_data(tshark: Tshark, tmp_path: Path) -> None:
    first, second = conversation(b"/x", [(True, b"abc"), (True, b"def")], close=False)
    lost = replace(side(True, b"/x"), event=Event.LOST, seq=3, lost=(2, 50, 1))
    failed = replace(side(True, b"/x"), event=Event.SEND_ERROR, seq=53, errno=11, len=8)
    second.seq = 53
    capture = write(tmp_path / "c.pcapng", [first, lost, failed, second])
    rows = tshark.fields(
        capture, "unixsock.lost.messages", "unixsock.lost.bytes", "unixsock.error", "tcp.analysis.lost_segment",
        "tcp.len",
    )  # fmt: skip
    assert [row[:3] for row in rows] == [["", "", ""], ["2", "50", ""], ["", "", "EAGAIN"], ["", "", ""]]
    assert rows[3][3] != ""
    assert [row[4] for row in rows] == ["3", "", "", "3"]


def test_unit_and_container_of_the_sender(tshark: Tshark, tmp_path: Path) -> None:
    a_container = b"0123456789ab" + b"c" * 52
    cgroups = [
        *(b"/system.slice/nginx.service", b"/machine.slice/libpod-%b.scope/container" % a_container),
        *(b"/docker/" + a_container, b"/lxc/web/cron.service", b"/machine.slice/machine-web\\x2dtwo.scope"),
        *(b"/" + b"a" * 65, b"/.service", b"/kubepods/pod1/crio-%b.scope" % a_container),
    ]
    records = [replace(side(True, b"/x"), cgroup=cgroup) for cgroup in cgroups]
    rows = tshark.fields(
        write(tmp_path / "c.pcapng", records),
        "unixsock.cgroup",
        "unixsock.src.unit",
        "unixsock.src.container",
    )
    # Some versions double the backslash.
    shown = [[value.replace("\\\\", "\\") for value in row] for row in rows]
    assert shown == [
        [cgroup.decode(), unit_of(cgroup).decode(), container_of(cgroup).decode()] for cgroup in cgroups
    ]


def test_refused_connects_in_words(tshark: Tshark, tmp_path: Path) -> None:
    asked = Record(
        *(Event.REFUSED, 10, 0, SocketType.STREAM, Role.DST_IS_SERVER),
        **{"src_sock": 7, "src_comm": b"nginx", "dst_name": b"/run/p%s.sock", "errno": 2},
    )
    full = replace(
        asked, errno=11, backlog=(2, 1), dst_sock=8, dst_comm=b"php-fpm", dst_pid=5, dst_name=b"/run/fpm.sock"
    )
    capture = write(tmp_path / "c.pcapng", [asked, replace(asked, errno=111, dst_name=b"\0bus"), full])
    rows = tshark.fields(
        capture, "_ws.col.Info", "unixsock.error", "unixsock.path", "unixsock.dst.comm", "unixsock.backlog.waiting",
        "unixsock.backlog.limit", "_ws.expert.severity",
    )  # fmt: skip
    assert [row[0].split("refused: ")[1] for row in rows] == [
        "there is no /run/p%s.sock (ENOENT)",
        "nobody listens at @bus (ECONNREFUSED)",
        "the queue of /run/fpm.sock is full (EAGAIN): 2 wait, limit 1; php-fpm[5] listens",
    ]
    assert [row[1:6] for row in rows] == [
        ["ENOENT", "/run/p%s.sock", "", "", ""],
        ["ECONNREFUSED", "@bus", "", "", ""],
        ["EAGAIN", "/run/fpm.sock", "php-fpm", "2", "1"],
    ]
    assert {row[6] for row in rows} == {str(0x600000)}  # PI_WARN
    assert not tshark.run(capture, "-Y", "tcp || udp")


def test_follow_stream_gives_both_sides(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", conversation(b"/x", [(True, b"ping\n"), (False, b"pong\n")]))
    text = tshark.run(capture, "-q", "-z", "follow,tcp,ascii,0")
    assert "ping" in text
    assert "\tpong" in text or "pong" in text


def test_split_datagram_is_joined(tshark: Tshark, tmp_path: Path) -> None:
    data = b"<13>" + b"x" * 200
    parts = [
        replace(side(True, b"/dev/log", SocketType.DGRAM), len=len(data), offset=at, payload=data[at : at + 100],
                flags=Flag.MORE if at < 200 else Flag(0))
        for at in (0, 100, 200)
    ]  # fmt: skip
    rows = tshark.fields(write(tmp_path / "c.pcapng", parts), "unixsock.reassembled.len", "syslog.level")
    assert rows == [["", ""], ["", ""], ["204", "5"]]


def test_statistics(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(
        tmp_path / "c.pcapng", conversation(b"/x", [(True, b"12345"), (False, b"123")], close=False)
    )
    line = next(row for row in tshark.run(capture, "-q", "-z", "unixsock,conv").splitlines() if "/x" in row)
    assert line.split()[:7] == ["0", "stream", "client[10]", "server[20]", "2", "5", "3"]


def test_statistics_of_refusals_and_waits(tshark: Tshark, tmp_path: Path) -> None:
    """Connects by how they ended, at each path: the longest wait, the fullest queue, and who was refused why."""
    packets, at = [], 1_700_000_000_000_000_000

    def add(record: Record, ms: int) -> None:
        packets.append(pcapng.packet(at + ms * 1_000_000, encode(record)))

    def connect(sock: int, ms: int, **fields: Any) -> None:
        add(replace(side(True, b"/srv"), event=Event.CONNECT, src_sock=sock, dst_sock=sock + 1, **fields), ms)

    def accept(sock: int, ms: int) -> None:
        add(replace(side(False, b"/srv"), event=Event.ACCEPT, src_sock=sock + 1, dst_sock=sock), ms)

    def refuse(number: int, path: bytes, ms: int, **fields: Any) -> None:
        refused = replace(
            side(True, path), event=Event.REFUSED, dst_sock=0, src_sock=ms, dst_comm=b"", dst_pid=0
        )
        add(replace(refused, errno=number, **fields), ms)

    connect(11, 0)
    connect(21, 10)
    accept(11, 250)
    connect(31, 300)
    accept(21, 310)
    connect(41, 320, flags=Flag.SOCKETPAIR)
    refuse(11, b"/srv", 330, backlog=(2, 1))
    refuse(11, b"/srv", 331, backlog=(1, 1))
    refuse(111, b"/gone", 332)
    accept(51, 340)  # its connect was before the capture
    path = tmp_path / "c.pcapng"
    path.write_bytes(pcapng.file_header() + b"".join(packets))
    text = tshark.run(path, "-q", "-z", "unixsock,waits").splitlines()
    rows = [row.split() for row in text if row[:1] == " "]
    assert rows == [
        ["3", "2", "1", "300.000", "2", "2/1", "/srv"],
        ["2", "EAGAIN,", "client[10]"],
        ["0", "0", "0", "-", "1", "-", "/gone"],
        ["1", "ECONNREFUSED,", "client[10]"],
    ]


def test_newer_version_is_refused_in_one_line(tshark: Tshark, tmp_path: Path) -> None:
    newer = b"\x02" + encode(side(True, b"/x"))[1:]
    text = tshark.run(write(tmp_path / "c.pcapng", [newer]))
    assert "record of format version 2; this dissector knows version 1" in text


def test_every_prefix_of_a_record(tshark: Tshark, tmp_path: Path) -> None:
    whole = encode(
        replace(side(True, b"/x"), creds=(1, 2, 3), fds=[Fd(FdKind.FILE, 7, b"/f")], payload=b"abc", len=3)
    )
    capture = write(tmp_path / "c.pcapng", [whole[:size] for size in range(len(whole) + 1)])
    rows = tshark.fields(capture, "unixsock.expert.malformed", "unixsock.expert.version")
    assert all(row != ["", ""] for row in rows[:-1])
    assert rows[-1] == ["", ""]
    tshark.run(capture, "-V")


def test_flipped_bits_and_extreme_elements(tshark: Tshark, tmp_path: Path) -> None:
    rng = random.Random(5)
    whole = encode(
        replace(side(True, b"/run/docker.sock"), fds=[Fd(FdKind.FILE, 7, b"/f")], lost=(1, 2, 3), errno=11, how=1,
                creds=(1, 2, 3), cgroup=b"/c", payload=b"GET / HTTP/1.1\r\n\r\n", len=18)
    )  # fmt: skip
    damaged = []
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(1, len(data))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(data))
    extremes: list[Record | bytes] = [
        Record(unknown=[(kind, bytes(size))], type=kind % 7, event=kind % 9)
        for kind in range(16)
        for size in (0, 1, 65000 - HEADER_LEN)
    ]
    capture = write(tmp_path / "c.pcapng", [*damaged, *extremes])
    one = tshark.run(capture, "-V")
    assert len(one) > 0
    tshark.run(capture, "-2")


def test_real_tcp_is_left_alone(tshark: Tshark, tmp_path: Path) -> None:
    """Real TCP on our ports is dissected as without the plugin."""
    if tshark.root is not None:
        pytest.skip("the chroots have the plugin in the global folder: there is no 'without'")
    turns = [
        (True, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ]
    capture = plain_tcp(tmp_path / "real.pcap", turns, (63001, 60045))
    with_plugin = tshark.run(capture, "-V")
    assert with_plugin == tshark.run(capture, "-V", plugin=False)
    assert "Hypertext Transfer Protocol" in with_plugin


_HTTP = [
    (True, b"GET /one HTTP/1.1\r\nHost: h\r\n\r\n"),
    (False, b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n[{"Id":"abc"}]'),
    (True, b"POST /two HTTP/1.1\r\nContent-Length: 40\r\n\r\n" + b"x" * 40),
    (False, b"HTTP/1.1 100 Continue\r\n\r\n"),
    (False, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    (True, b"GET /three HTTP/1.1\r\n\r\n"),
    (False, b"HTTP/1.1 204 No Content\r\n\r\n"),
]


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("sizes", ["whole", "random", "30", "7", "glued"])
@pytest.mark.parametrize(
    "amiss", ["in place", "twice", "late", "lost", "cut short"], ids=lambda name: name.replace(" ", "-")
)
def test_columns_never_show_made_up_ports(
    tshark: Tshark, tmp_path: Path, sizes: str, options: tuple[str, ...], amiss: str
) -> None:
    """Whatever the TCP dissector thinks of a stream, and whoever takes its bytes or waits for more."""
    said = conversation(b"/run/docker.sock", _HTTP if sizes == "whole" else cut(_HTTP, sizes), close=False)
    middle = len(said) // 2
    if amiss == "twice":
        said.insert(middle, said[middle])
    elif amiss == "late":
        said.insert(middle, said.pop(middle + 1))
    elif amiss == "lost":
        del said[middle]
    elif amiss == "cut short":
        half = said[middle].payload[: len(said[middle].payload) // 2]
        said[middle] = replace(said[middle], payload=half, flags=said[middle].flags | Flag.TRUNCATED)
    lines = tshark.run(write(tmp_path / "c.pcapng", said), *options).splitlines()
    assert len(lines) == len(said)
    assert not [line for line in lines if " TCP " in line or "Seq=" in line]
    assert [line for line in lines if " HTTP " in line]


def test_addresses_carry_names(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", conversation(b"/x", [(True, b"a")]))
    text = tshark.run(capture, "-N", "n", "-q", "-z", "conv,tcp")
    assert "client[10]" in text
    assert f"{CLIENT:x}" not in text.replace("client[10]", "")
    assert f"{SERVER:x}" not in text


def test_names_in_files_of_version_0_1_0(
    tshark: Tshark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their pseudo addresses had another prefix."""
    records = conversation(b"/x", [(True, b"a")])
    new = tshark.run(write(tmp_path / "new.pcapng", records), "-N", "n", "-q", "-z", "conv,tcp")
    monkeypatch.setattr(pcapng, "_ENDPOINT_NET", int(ipaddress.IPv6Address("fd75:6e69:7873::")))
    old = tshark.run(write(tmp_path / "old.pcapng", records), "-N", "n", "-q", "-z", "conv,tcp")
    assert "client[10]" in old
    assert old == new


def test_pseudo_addresses_hold_no_power_of_ten(tshark: Tshark, tmp_path: Path) -> None:
    """Wireshark's graphs draw the first "e" with digits on both sides as one."""
    capture = write(tmp_path / "c.pcapng", conversation(b"/x", [(True, b"a")]))
    for line in tshark.run(capture, "-N", "t", "-q", "-z", "endpoints,tcp").splitlines():
        if ":" in line and line.startswith("f"):
            at = line.index("e")
            assert not line[at - 1].isdigit(), line


def test_details_of_processes(tshark: Tshark, tmp_path: Path) -> None:
    """Executable, command line, user and parent of each side, also where a process information block precedes."""
    one = replace(
        side(True, b"/x"), payload=b"12345", len=5, src_exe=b"/usr/bin/a b", dst_exe=b"/usr/sbin/d",
        src_cmdline=b"a\0-x\0y z", dst_cmdline=b"d", src_user=b"ada", dst_user=b"www-data", src_parent=1, dst_parent=0,
    )  # fmt: skip
    path = tmp_path / "c.pcapng"
    information = pcapng.process_information(10, b"client", b"/usr/bin/a b", b"a\0-x", 1, 1000, b"ada")
    path.write_bytes(pcapng.file_header() + information + pcapng.packet(1, encode(one)))
    names = [
        f"unixsock.{end}.{name}" for end in ("src", "dst") for name in ("exe", "cmdline", "user", "parent")
    ]
    rows = tshark.fields(path, *names)
    assert rows[-1] == ["/usr/bin/a b", "a -x y z", "ada", "1", "/usr/sbin/d", "d", "www-data", "0"]
    assert all(
        row == [""] * 8 for row in rows[:-1]
    )  # of Wireshark before 5.0, which shows the block as a packet
    assert decode(encode(one)) == one
