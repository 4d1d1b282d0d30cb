"""Conversations from connect to close, begun mid-way, one-way, with losses: fields, TCP, statistics."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from captures import CLIENT, SERVER, conversation, side, write
from conftest import ROOT, Tshark

from unixsock_bpf.record import Event, Fd, FdKind, Flag, Record, Role, SocketType

COLUMNS = ("_ws.col.Source", "_ws.col.Destination", "_ws.col.Protocol", "_ws.col.Info")


def columns(tshark: Tshark) -> tuple[str, ...]:
    """The names of the columns' fields in this Wireshark."""
    return COLUMNS if not tshark.root else tuple(name.lower().replace("source", "def_src").replace(
        "destination", "def_dst") for name in COLUMNS)  # fmt: skip


def life() -> list[Record]:
    """Connect, accept, one message each way, a shutdown, both closes, and a send that failed in between."""
    name = b"/x"
    ping, pong = conversation(name, [(True, b"ping"), (False, b"pong")], close=False)
    return [
        replace(side(True, name), event=Event.CONNECT),
        replace(side(False, name), event=Event.ACCEPT),
        ping,
        pong,
        replace(side(False, name), event=Event.SEND_ERROR, seq=4, ack=4, errno=32, len=9),
        replace(side(True, name), event=Event.SHUTDOWN, seq=4, ack=4, how=1),
        replace(side(True, name), event=Event.CLOSE, seq=4, ack=4),
        replace(side(False, name), event=Event.CLOSE, seq=4, ack=4),
    ]


def test_life_cycle(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", life())
    names = (
        "unixsock.event",
        "unixsock.error",
        "unixsock.shutdown",
        "unixsock.len",
        "tcp.flags",
        "tcp.stream",
    )
    for options in ((), ("-2",)):
        assert tshark.fields(capture, *names, options=options) == [
            ["1", "", "", "", "0x0002", "0"],
            ["2", "", "", "", "", ""],
            ["0", "", "", "4", "0x0018", "0"],
            ["0", "", "", "4", "0x0018", "0"],
            ["5", "EPIPE", "", "9", "", ""],
            ["3", "", "1", "", "0x0011", "0"],
            ["4", "", "", "", "", ""],
            ["4", "", "", "", "0x0011", "0"],
        ]
    rows = tshark.fields(capture, *columns(tshark))
    client, server = "client[10]", "server[20]"
    assert rows[0] == [client, server, "UNIX", "/x  stream  connect"]
    assert rows[1] == [server, client, "UNIX", "/x  stream  accept"]
    assert rows[4] == [server, client, "UNIX", "/x  stream  send failed: EPIPE  len=9"]
    assert rows[5] == [client, server, "UNIX", "/x  stream  SHUT_WR"]
    assert [row[3] for row in rows[6:]] == ["/x  stream  close"] * 2


def test_expert_items(tshark: Tshark, tmp_path: Path) -> None:
    lost = replace(side(True, b"/x"), event=Event.LOST, lost=(2, 50, 3))
    cut = replace(side(True, b"/x"), payload=b"ab", len=9, flags=Flag.TRUNCATED | Flag.UNREADABLE)
    gone = replace(side(True, b"/x"), event=Event.UNDELIVERED, len=7)
    capture = write(tmp_path / "c.pcapng", [*life(), lost, cut, gone])
    names = [f"unixsock.expert.{name}" for name in ("failed", "lost", "truncated", "fds", "malformed")]
    rows = tshark.fields(capture, *names, "_ws.expert.severity", "_ws.expert.message")
    note, warning = "4194304", "6291456"
    assert [bool(one) for one in rows[4][:5]] == [True, False, False, False, False]
    assert rows[4][5:] == [note, "Send failed: EPIPE"]
    assert rows[8][5:] == [warning, "2 messages (50 bytes) lost: ring full"]
    assert rows[10][5:] == [warning, "7 bytes before this were not delivered"]
    assert rows[9][2]
    assert "Memory could not be read: 2 of 9 bytes captured" in rows[9][6]
    assert not any(one for row in rows[:4] for one in row[:5])


def test_begun_mid_way(tshark: Tshark, tmp_path: Path) -> None:
    """Positions count from the capture's start, the server is unknown, half a message is missing."""
    said = conversation(
        b"/run/docker.sock",
        [(False, b"st of an old reply"), (True, b"GET /new HTTP/1.1\r\nHost: d\r\n\r\n"),
         (False, b"HTTP/1.1 204 No Content\r\n\r\n")],
        close=False,
    )  # fmt: skip
    for begin in (0, 2**33, 2**32 - 40):  # the last passes the end of TCP's numbers
        records = [replace(r, role=Role.UNKNOWN, flags=0, seq=r.seq + begin, ack=r.ack + begin) for r in said]
        capture = write(tmp_path / "c.pcapng", records)
        rows = tshark.fields(capture, "http.request.method", "http.response.code", "tcp.analysis.flags")
        assert [row[:2] for row in rows[1:]] == [["GET", ""], ["", "204"]]
        assert all(row[2] == "" for row in rows)


def test_one_way_flood(tshark: Tshark, tmp_path: Path) -> None:
    """What is never answered is neither lost nor sent again."""
    records = conversation(b"/x", [(True, bytes([65 + n % 26]) * 3000) for n in range(400)], close=False)
    capture = write(tmp_path / "c.pcapng", records)
    rows = tshark.fields(capture, "tcp.len", "tcp.analysis.flags", "tcp.stream")
    assert [row[0] for row in rows] == ["3000"] * 400
    assert {row[1] for row in rows} == {""}
    assert {row[2] for row in rows} == {"0"}


def test_conversations_and_follow(tshark: Tshark, tmp_path: Path) -> None:
    other = [
        replace(r, src_sock=r.src_sock + 0x10000, dst_sock=r.dst_sock + 0x10000)
        for r in conversation(b"/y", [(True, b"other"), (False, b"OTHER!")], close=False)
    ]
    capture = write(tmp_path / "c.pcapng", [*life(), *other])
    lines = tshark.run(capture, "-N", "n", "-q", "-z", "conv,tcp").splitlines()
    assert sum("<->" in line for line in lines) == 2
    follow = tshark.run(capture, "-q", "-z", "follow,tcp,ascii,1")
    assert "other" in follow
    assert "OTHER!" in follow
    assert "ping" not in follow
    table = tshark.run(capture, "-q", "-z", "unixsock,conv").splitlines()
    rows = [line.split() for line in table if "stream" in line]
    assert [row[:7] for row in rows] == [
        ["0", "stream", "client[10]", "server[20]", "8", "4", "4"],
        ["1", "stream", "client[10]", "server[20]", "2", "5", "6"],
    ]
    assert [row[-1] for row in rows] == ["/x", "/y"]


def test_inner_info_comes_first(tshark: Tshark, tmp_path: Path) -> None:
    records = conversation(
        b"/run/docker.sock", [(True, b"GET /v1/info HTTP/1.1\r\nHost: d\r\n\r\n")], close=False
    )
    unnamed = replace(records[0], dst_name=b"", src_comm=b"", src_pid=0, src_sock=CLIENT + 9,
                      dst_sock=SERVER + 9, payload=b"\x00raw bytes\n", len=11)  # fmt: skip
    rows = tshark.fields(write(tmp_path / "c.pcapng", [*records, unnamed]), *columns(tshark))
    assert rows[0][:3] == ["client[10]", "server[20]", "HTTP"]
    assert rows[0][3].startswith("GET /v1/info HTTP/1.1")
    assert rows[1] == ["?", "server[20]", "UNIX", "(unnamed)  stream  len=11  .raw bytes."]


def test_info_tells_what_the_payload_is(tshark: Tshark, tmp_path: Path) -> None:
    """Datagrams of unknown content, descriptors, and the beginning of a message that a later record ends."""

    def dgram(payload: bytes, **more: Any) -> Record:
        return replace(side(True, b"/x", SocketType.DGRAM), payload=payload, **{"len": len(payload), **more})

    start, rest = conversation(
        b"/run/dbus/system_bus_socket", [(True, b"\0AUTH EXT"), (True, b"ERNAL 30\r\n")]
    )[:2]
    info = {
        "len=0": dgram(b""),
        "len=11  hello world": dgram(b"hello world"),
        "len=7  grüße": dgram("grüße".encode()),
        "len=4  00 01 02 80": dgram(b"\0\1\2\x80"),
        "len=20  " + "ff " * 16 + "…": dgram(b"\xff" * 20),
        "len=80  " + "a" * 64 + "…": dgram(b"a" * 80),
        "len=9  truncated  ab": dgram(b"ab", len=9, flags=Flag.TRUNCATED),
        "len=1  1 descriptor (file /f)  x": dgram(b"x", fds=[Fd(FdKind.FILE, 7, b"/f")]),
        "len=1  2 descriptors (memfd, pipe)  x": dgram(b"x", fds=[Fd(FdKind.MEMFD), Fd(FdKind.PIPE, 1)]),
        "len=1  9 descriptors  x": dgram(b"x", fds_count=9),
    }
    expected = ["/x  dgram  " + text for text in info]
    expected += [
        "/run/dbus/system_bus_socket  stream  len=9  (part of a message)  .AUTH EXT",
        "SASL AUTH EXTERNAL 30",
    ]
    capture = write(tmp_path / "c.pcapng", [*info.values(), start, rest])
    for options in ((), ("-2",)):
        rows = tshark.fields(capture, columns(tshark)[3], options=options)
        assert [row[0] for row in rows] == expected


def test_a_dissector_that_shows_nothing_leaves_our_info(tshark: Tshark, tmp_path: Path) -> None:
    """Wireshark's "xml" only adds its name to the columns."""
    turns = [(True, b"<a>b</a>")]
    records = [*conversation(b"/x", turns, close=False), *conversation(b"/x", turns, SocketType.DGRAM)]
    rows = tshark.fields(
        write(tmp_path / "c.pcapng", records), *columns(tshark)[2:], "xml.tag",
        options=("-o", "unixsock.paths:/x=xml"),
    )  # fmt: skip
    assert [row[:2] for row in rows] == [
        ["UNIX/XML", "/x  stream  len=8  <a>b</a>"],
        ["UNIX/XML", "/x  dgram  len=8  <a>b</a>"],
    ]
    assert all(row[2] for row in rows)


def test_truncated_records_wait_for_nothing(tshark: Tshark, tmp_path: Path) -> None:
    """What a record lost never comes: its beginning is shown at once, and the next message too."""
    ask = b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\n" + b"z" * 500
    records = conversation(b"/run/docker.sock", [(True, ask), (False, answer)] * 2, close=False)
    for record in records:
        if record.len > 128:
            record.payload, record.flags = record.payload[:128], record.flags | Flag.TRUNCATED
    capture = write(tmp_path / "c.pcapng", records)
    for options in ((), ("-2",)):
        rows = tshark.fields(capture, "http.request.method", "http.response.code", options=options)
        assert rows == [["GET", ""], ["", "200"]] * 2
    assert "Malformed" not in tshark.run(capture, "-V")


@pytest.mark.parametrize(("other", "told"), [("0.0.1", True), (None, False)])
def test_two_copies_of_the_dissector(tmp_path: Path, other: str | None, told: bool) -> None:
    """The first that Wireshark finds is used; a sentence says so if they are of different versions."""
    plugins = tmp_path / ".local/lib/wireshark/plugins"
    for folder, version in (("a", other), ("b", None)):
        shutil.copytree(ROOT / "dissector", plugins / folder)
        # Of two files with one name Wireshark itself loads only one.
        main = (plugins / folder / "unixsock.lua").rename(plugins / folder / f"{folder}.lua")
        if version:
            main.write_text(re.sub(r'local VERSION = ".*"', f'local VERSION = "{version}"', main.read_text()))
    capture = write(
        tmp_path / "c.pcapng", conversation(b"/run/docker.sock", [(True, b"GET / HTTP/1.1\r\n\r\n")])
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["tshark", "-r", str(capture)], env=env, capture_output=True, text=True, check=True)
    assert " HTTP " in done.stdout
    said = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert bool(said) == told
    assert all("Another version of the dissector" in line and "plugin folders" in line for line in said)


#: Mistakes in a protocol's file: what is replaced by what, and a part of the message.
MISTAKES = {
    "name taken": (
        "protocol.proto = ",
        'ProtoField.uint8("dns.qry.name", "x")\nprotocol.proto = ',
        "incompatible ftype",
    ),
    "does not compile": ("protocol.proto = ", "protocol.proto = = ", "'='"),
    "no proto": ("protocol.proto = ", "local _ = ", "sets no 'proto'"),
    "no declaration": ("return protocol\n", "return 1\n", "does not return a declaration"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_protocol_that_does_not_work(tmp_path: Path, mistake: str) -> None:
    """It is reported on stderr and at its payloads, which are shown as data; the other protocols work."""
    plugins = tmp_path / ".local/lib/wireshark/plugins"
    shutil.copytree(ROOT / "dissector", plugins)
    old, new, words = MISTAKES[mistake]
    mpd = plugins / "unixsock/protocols/mpd.lua"
    mpd.write_text(mpd.read_text().replace(old, new))
    turns = {
        b"/run/mpd/socket": [(False, b"OK MPD 0.23\n")],
        b"/run/docker.sock": [(True, b"GET / HTTP/1.1\r\n\r\n")],
        b"/run/redis.sock": [(True, b"+OK\r\n")],
    }
    records = []
    for number, (path, messages) in enumerate(turns.items()):
        for one in conversation(path, messages, close=False):
            one.src_sock, one.dst_sock = one.src_sock + number * 99, one.dst_sock + number * 99
            records.append(one)
    capture = write(tmp_path / "c.pcapng", records)
    names = ("-e", COLUMNS[2], "-e", COLUMNS[3], "-e", "_ws.expert.message")
    done = subprocess.run(
        ["tshark", "-r", str(capture), "-T", "fields", *names], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["UNIX", "HTTP", "RESP"]
    for text in (done.stderr, rows[0][1], rows[0][2]):
        assert "protocols/mpd.lua does not work" in text
        assert words in text
    assert not any("does not work" in part for row in rows[1:] for part in row)


def test_protocol_hierarchy(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", life())
    lines = tshark.run(capture, "-q", "-z", "io,phs").splitlines()
    assert [line.split()[1] for line in lines if line.strip().startswith("unixsock")] == ["frames:8"]


def test_threads_of_a_side(tshark: Tshark, tmp_path: Path) -> None:
    """Records of one direction that differ in what is kept for it: each has its own."""
    (record,) = conversation(b"/x", [(True, b"a")], close=False)
    said = [replace(record, src_tid=100 + n % 11, src_comm=b"t%d" % (n % 7), seq=n) for n in range(100)]
    rows = tshark.fields(
        write(tmp_path / "c.pcapng", said), "unixsock.src.tid", "unixsock.src.comm", "unixsock.seq"
    )
    assert rows == [[str(100 + n % 11), f"t{n % 7}", str(n)] for n in range(100)]


def test_memory_does_not_grow_with_records(tshark: Tshark, tmp_path: Path) -> None:
    """Lua keeps a conversation, not its records: more of them cost Wireshark's own share."""
    if tshark.root is not None:
        pytest.skip("measured with this machine's Wireshark; the Lua files are the same")

    def peak(count: int, plugin: bool) -> int:
        turns = [(True, b"x" * 50)] * count
        capture = write(tmp_path / f"{count}.pcapng", conversation(b"/x", turns, close=False))
        home = str(tshark.home) if plugin else "/nonexistent"
        command = ["/usr/bin/python3", "-c", (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL,"
            " stderr=subprocess.DEVNULL, check=True);"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        ), "tshark", "-r", str(capture), "-V"]  # fmt: skip
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "LC_ALL": "C.UTF-8"}
        return int(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)

    growth = peak(10_000, True) - peak(1_000, True)
    assert growth / 9_000 < 4  # KiB a record, with the TCP dissector's own state
