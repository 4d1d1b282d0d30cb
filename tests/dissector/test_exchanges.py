# ruff: noqa: E501 (tables of expected values)
"""Answers are matched to questions: the same in one pass, two passes and single packets; and their statistics."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from captures import Turn, conversation, side, write
from conftest import Tshark
from protocol_samples import PREFACE, SAMPLES, hpack, http2
from test_dissector import cut

from unixsock_bpf.record import Event, Flag, Record, SocketType

CAPTURES = Path(__file__).parent / "captures"
FIELDS = ("unixsock.response_in", "unixsock.request_in", "unixsock.response_time")


def _header(name: bytes, value: bytes) -> bytes:
    """A literal header that is not put into HPACK's table."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


#: Rows of -z unixsock,srt for captures of real programs: protocol, method, count, errors, unanswered.
REAL = {
    "redis": [("RESP", "SET", 1, 0, 0)],
    "postgresql": [("PGSQL", "COPY", 1, 0, 0), ("PGSQL", "CREATE", 1, 0, 0), ("PGSQL", "INSERT", 1, 0, 0), ("PGSQL", "SELECT", 2, 1, 0)],
    "mariadb": [("MySQL", "CREATE", 2, 0, 0), ("MySQL", "INSERT", 1, 0, 0), ("MySQL", "Init DB", 1, 0, 0), ("MySQL", "SELECT", 3, 1, 0)],
    "x11": [("X11", "InternAtom", 1, 0, 0), ("X11", "QueryTree", 1, 0, 0)],
    "dbus": [("D-Bus", "org.example.Files.Take", 1, 1, 0), ("D-Bus", "org.freedesktop.DBus.Hello", 1, 0, 0), ("D-Bus", "org.freedesktop.DBus.ListNames", 1, 0, 0)],
    "http": [("HTTP", "GET /uwsgi/page", 1, 0, 0)],
    "docker": [("HTTP", "GET /v1.41/containers/json", 1, 0, 0), ("HTTP", "GET /v1.41/version", 1, 0, 0), ("HTTP", "HEAD /_ping", 2, 0, 0)],
    "chrony": [("CHRONY", "ACTIVITY", 1, 0, 0), ("CHRONY", "N_SOURCES", 1, 0, 0), ("CHRONY", "RTCREPORT", 1, 1, 0), ("CHRONY", "SOURCESTATS", 1, 0, 0), ("CHRONY", "TRACKING", 1, 0, 0)],
    "qmp": [("JSON", "cont", 1, 0, 0), ("JSON", "nonsense", 1, 1, 0), ("JSON", "qmp_capabilities", 1, 0, 0), ("JSON", "query-status", 1, 0, 0)],
    "wayland": [("WAYLAND", "wl_display.sync", 2, 0, 0)],
    "ssh-agent": [("SSH-AGENT", "ADD_IDENTITY", 1, 0, 0), ("SSH-AGENT", "REQUEST_IDENTITIES", 2, 0, 0), ("SSH-AGENT", "SIGN_REQUEST", 1, 0, 0)],
    "gpg-agent": [("ASSUAN", "GETINFO", 1, 0, 0), ("ASSUAN", "KEYINFO", 1, 0, 0), ("ASSUAN", "OPTION", 1, 0, 0), ("ASSUAN", "RESET", 1, 0, 0)],
    "ovsdb": [("JSON", "get_schema", 1, 0, 0), ("JSON", "list_dbs", 2, 0, 0), ("JSON", "transact", 2, 0, 0)],
    "qemu-nbd": [("NBD", "FLUSH", 1, 0, 0), ("NBD", "READ", 1, 0, 0), ("NBD", "WRITE", 1, 0, 0), ("NBD", "option GO", 2, 1, 0), ("NBD", "option SET_META_CONTEXT", 2, 1, 0), ("NBD", "option STRUCTURED_REPLY", 2, 0, 0)],
    "http2": [("HTTP2", "GET /two", 1, 0, 0)],
    "containerd": [
        ("gRPC", "/containerd.services.containers.v1.Containers/Get", 1, 1, 0), ("gRPC", "/containerd.services.images.v1.Images/List", 1, 0, 0),
        ("gRPC", "/containerd.services.introspection.v1.Introspection/Server", 1, 0, 0), ("gRPC", "/containerd.services.namespaces.v1.Namespaces/Create", 2, 1, 0),
        ("gRPC", "/containerd.services.namespaces.v1.Namespaces/Get", 1, 0, 0), ("gRPC", "/containerd.services.namespaces.v1.Namespaces/List", 1, 0, 0),
        ("gRPC", "/containerd.services.version.v1.Version/Version", 1, 0, 0),
    ],
    "i3": [("I3-IPC", "GET_VERSION", 1, 0, 0), ("I3-IPC", "GET_WORKSPACES", 1, 0, 0), ("I3-IPC", "RUN_COMMAND", 3, 1, 0), ("I3-IPC", "SUBSCRIBE", 1, 0, 0)],
    "ldap": [("LDAP", "bind", 1, 0, 0), ("LDAP", "search", 1, 0, 0)],
    "mpd": [("MPD", "stats", 1, 0, 0)],
    "pulseaudio": [("PULSE", "AUTH", 1, 0, 0), ("PULSE", "GET_SERVER_INFO", 1, 0, 0), ("PULSE", "SET_CLIENT_NAME", 1, 0, 0)],
}  # fmt: skip


def statistics(tshark: Tshark, capture: Path, *options: str) -> list[tuple[str, str, int, int, int]]:
    text = tshark.run(capture, "-q", "-z", "unixsock,srt", *options)
    rows = []
    for line in text.splitlines()[3:-1]:
        protocol, count, errors, unanswered, *_, method = line.split(maxsplit=8)
        rows.append((protocol, method, int(count), int(errors), int(unanswered)))
    return sorted(rows)


@pytest.mark.parametrize("name", REAL)
def test_real_programs_exchanges(tshark: Tshark, name: str) -> None:
    capture = CAPTURES / f"{name}.pcapng"
    one, two = statistics(tshark, capture), statistics(tshark, capture, "-2")
    assert one == two
    assert one == sorted(REAL[name])
    rows = tshark.fields(capture, "frame.number", *FIELDS, options=("-2",))
    asked = {(int(row[0]), int(to)) for row in rows for to in row[1].split("|") if to}
    answered = {(int(to), int(row[0])) for row in rows for to in row[2].split("|") if to}
    assert asked <= answered  # a question names its first answer
    assert {number for number, _ in asked} == {number for number, _ in answered}
    assert asked
    for row in rows:
        assert all(float(time) >= 0 for time in row[3].split("|") if time)


JSON_RPC = [
    (
        True,
        b'{"jsonrpc":"2.0","method":"one","id":1}{"method":"told"}{"method":"two","id":"x","params":{"id":9}}',
    ),
    (False, b'{"result":{"method":"three"},"id":"x"}'),
    (False, b'{"id":1,"error":{"code":-32601,"message":"Method not found"}}'),
    (True, b'{"method":"late","id":7}'),
]
VARLINK = [
    (True, b'{"method":"a.b.One","more":true}\0{"method":"a.b.Two","oneway":true}\0{"method":"a.b.Three"}\0'),
    (False, b'{"parameters":{"error":"none"},"continues":true}\0{"parameters":{}}\0'),
    (False, b'{"error":"a.b.Wrong","parameters":{}}\0'),
]
HTTP = [
    (True, b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"), (False, b"HTTP/1.1 100 Continue\r\n\r\n"),
    (False, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    (True, b"GET /b HTTP/1.1\r\nHost: h\r\n\r\nPOST /c HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"),
    (False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\n\r\n"),
]  # fmt: skip
REDIS = [
    (True, b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), (False, b"+PONG\r\n"), (False, b"-ERR no\r\n"),
]  # fmt: skip

GRPC = b"\x83\x86" + hpack(4, b"/v1.Images/List") + hpack(31, b"application/grpc")
#: gRPC's outcome follows its last message; a header block in two frames; a stream that is reset; table entries.
HTTP2 = [
    (True, PREFACE + http2(1, 4, 1, GRPC) + http2(0, 1, 1, b"\0\0\0\0\0")),
    (False, http2(4, 0, 0) + http2(1, 4, 1, b"\x88" + hpack(31, b"application/grpc")) + http2(0, 0, 1, b"\0\0\0\0\0")),
    (False, http2(1, 5, 1, _header(b"grpc-status", b"5") + _header(b"grpc-message", b"gone"))),
    (True, http2(1, 1, 3, b"\x82\x86") + http2(9, 4, 3, hpack(4, b"/b?c")) + http2(1, 5, 5, b"\x82\x86\xbe")),
    (False, http2(1, 4, 5, b"\x48\x03500") + http2(0, 1, 5, b"x")),
    (False, http2(3, 0, 3, b"\0\0\0\7")),
    (True, http2(1, 5, 7, b"\x82\x86\xbe")),
    (False, http2(1, 4, 7, b"\x48\x03103")),
]  # fmt: skip
LDAP = [
    (True, bytes.fromhex("300c020101600702010304008000")),
    (False, bytes.fromhex("300c02010161070a010004000400")),
    (True, bytes.fromhex("30050201024a00")),
    (True, bytes.fromhex("30050201036300")),
    (False, bytes.fromhex("30050201036400") + bytes.fromhex("30050201036400")),
    (False, bytes.fromhex("3081ff0201037381f9") + bytes(249)),
    (False, bytes.fromhex("300c02010365070a010404000400")),
    (False, bytes.fromhex("300c0201026b070a012004000400")),
]
MPD = [
    (False, b"OK MPD 0.23\n"), (True, b"status\n"), (False, b"volume: 3\nOK\n"),
    (True, b"command_list_begin\nadd a\nadd b\ncommand_list_end\nidle player\n"), (False, b"ACK [50@1] {add} No such directory\n"),
    (True, b"noidle\nalbumart x 0\n"), (False, b"OK\nsize: 9\nbinary: 7\nOK\nOK\n3\nOK\n"),
    (True, b"listall\nping\n"), (False, b"file: a\n" * 700 + b"OK\n"), (False, b"OK\n"),
]  # fmt: skip

#: Path, turns, and (method, errors, unanswered) by question in order; and pairs (question, answer) of turns.
MADE: dict[str, tuple[bytes, list[Turn], list[tuple[str, int, int]], list[tuple[int, int]]]] = {
    "json-rpc": (b"/run/x.json", JSON_RPC, [("late", 0, 1), ("one", 1, 0), ("two", 0, 0)], [(1, 2), (1, 3)]),
    "varlink": (b"/run/io.systemd.x", VARLINK, [("a.b.One", 0, 0), ("a.b.Three", 1, 0)], [(1, 2), (1, 2), (1, 3)]),
    "http": (b"/run/docker.sock", HTTP, [("GET /a", 1, 0), ("GET /b", 0, 0), ("POST /c", 0, 0)], [(1, 3), (4, 5), (4, 5)]),
    "http2": (
        b"/run/containerd/containerd.sock", HTTP2,
        [("GET /b", 2, 1), ("/v1.Images/List", 1, 0)], [(1, 2), (1, 3), (4, 5), (4, 6)],
    ),
    "ldap": (b"/run/slapd/ldapi", LDAP, [("bind", 0, 0), ("delete", 1, 0), ("search", 1, 0)], [(1, 2), (3, 8), (4, 5), (4, 5), (4, 6), (4, 7)]),
    "mpd": (
        b"/run/mpd/socket", MPD,
        [("albumart", 0, 0), ("command_list", 1, 0), ("idle", 0, 0), ("listall", 0, 0), ("ping", 0, 0), ("status", 0, 0)],
        [(2, 3), (4, 5), (4, 7), (6, 7), (8, 9), (8, 10)],
    ),
    "redis": (b"/run/redis.sock", REDIS, [("GET", 1, 0), ("PING", 0, 0)], [(1, 2), (1, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_exchanges(tshark: Tshark, tmp_path: Path, name: str) -> None:
    path, turns, expected, pairs = MADE[name]
    capture = write(tmp_path / "c.pcapng", conversation(path, turns, close=False))
    for options in ((), ("-2",)):
        found = [
            (method, errors, unanswered)
            for _, method, _, errors, unanswered in statistics(tshark, capture, *options)
        ]
        assert found == expected, options
    rows = tshark.fields(
        capture, *FIELDS, "unixsock.expert.error_answer", "unixsock.expert.no_answer", options=("-2",)
    )
    answered = [(int(to), number) for number, row in enumerate(rows, 1) for to in row[1].split("|") if to]
    assert sorted(answered) == pairs
    asked = {(number, int(to)) for number, row in enumerate(rows, 1) for to in row[0].split("|") if to}
    assert asked <= set(pairs)
    assert {number for number, _ in asked} == {number for number, _ in pairs}
    assert sum(bool(row[3]) for row in rows) == sum(errors for _, errors, _ in expected)
    assert sum(bool(row[4]) for row in rows) == sum(unanswered for _, _, unanswered in expected)
    for number, row in enumerate(rows, 1):  # a millisecond lies between two packets
        for time in row[2].split("|"):
            assert not time or float(time) == pytest.approx(
                1e-3 * max(abs(number - a) if b == number else b - a for a, b in pairs if number in (a, b)),
                abs=2e-3,
            )


@pytest.mark.parametrize("sizes", ["7", "1", "random"])
@pytest.mark.parametrize("name", MADE)
def test_exchanges_however_they_are_cut(tshark: Tshark, tmp_path: Path, name: str, sizes: str) -> None:
    """HTTP's are found where a message begins a record: here in separate ones."""
    path, turns, expected, _ = MADE[name]
    if name == "http":
        turns, expected = HTTP[:3], [("GET /a", 1, 0)]
        if sizes != "1":
            turns = [(client, part) for client, data in turns for part in (data[:7], data[7:])]
    pieces = cut(turns, sizes) if name != "http" or sizes == "1" else turns
    capture = write(tmp_path / "c.pcapng", conversation(path, pieces, close=False))
    for options in ((), ("-2",)):
        found = [row[1:2] + row[3:] for row in statistics(tshark, capture, *options)]
        assert (len(found), [row[1:] for row in found]) == (len(expected), [row[1:] for row in expected])
        if name != "http":
            assert found == expected


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
def test_order_is_kept_where_messages_are_only_counted(
    tshark: Tshark, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Of a record 500 messages are shown: the answers to the others are passed over as well."""
    turns = [(True, b"*1\r\n$4\r\nPING\r\n" * 1000 + b"*1\r\n$4\r\nQUIT\r\n")]
    turns += [(False, b"+PONG\r\n" * 100)] * 10 + [
        (False, b"-ERR last\r\n"),
        (True, b"*1\r\n$4\r\nTIME\r\n"),
        (False, b"+x\r\n"),
    ]
    capture = write(tmp_path / "c.pcapng", conversation(b"/run/redis.sock", turns, close=False))
    rows = statistics(tshark, capture, *options)
    assert [row for row in rows if row[1] == "TIME"] == [("RESP", "TIME", 1, 0, 0)]
    assert [row for row in rows if row[1] == "QUIT"] in ([], [("RESP", "QUIT", 1, 1, 0)])


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
def test_what_is_lost_is_not_unanswered(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """After a loss the order is unknown: no answer is given to another question, none is called missing."""
    first, _, other, answer = conversation(
        b"/run/redis.sock",
        [
            (True, b"*1\r\n$4\r\nPING\r\n"),
            (False, b"+PONG\r\n"),
            (True, b"*1\r\n$4\r\nTIME\r\n"),
            (False, b"-ERR x\r\n"),
        ],
        close=False,
    )
    lost = replace(side(False, b"/run/redis.sock"), event=Event.LOST, lost=(1, 7, 1))
    capture = write(tmp_path / "c.pcapng", [first, lost, other, answer])
    rows = tshark.fields(capture, "unixsock.request_in", "unixsock.expert.no_answer", options=options)
    assert rows == [["", ""], ["", ""], ["", ""], ["3", ""]]
    assert statistics(tshark, capture, *options)[-1] == ("RESP", "TIME", 1, 1, 0)


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
def test_header_fields_after_a_loss(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """What was lost may have been in HPACK's table: no question gets the path of another."""
    path = b"/run/containerd/containerd.sock"
    turns = [
        (True, PREFACE + http2(1, 5, 1, b"\x82\x86" + hpack(4, b"/a"))),
        (False, http2(1, 5, 1, b"\x88")),
        (True, http2(1, 5, 5, b"\x82\x86\xbe")),
        (False, http2(1, 5, 5, b"\x88")),
    ]
    first, answer, other, last = conversation(path, turns, close=False)
    lost = replace(side(True, path), event=Event.LOST, lost=(1, len(turns[0][1]), 1))
    capture = write(tmp_path / "c.pcapng", [first, answer, lost, other, last])
    found = [row[1:] for row in statistics(tshark, capture, *options)]
    assert found == [("GET (path sent before the capture)", 1, 0, 0), ("GET /a", 1, 0, 0)]


def test_two_callers_with_one_serial(tshark: Tshark, tmp_path: Path) -> None:
    """A bus passes on calls of several clients to one service, with their own serials."""
    message = SAMPLES["dbus"].turns[-1][1]
    first = conversation(b"/run/dbus/system_bus_socket", [(True, message), (True, message)], close=False)
    rows = tshark.fields(write(tmp_path / "c.pcapng", first), "unixsock.expert.no_answer", options=("-2",))
    assert [bool(row[0]) for row in rows] == [True, True]


@pytest.mark.skipif("UNIXSOCK_LONG" not in os.environ, reason="half a million messages: make test-faults")
def test_many_questions_keep_memory_bounded(tshark: Tshark, tmp_path: Path) -> None:
    question, answer = b"*1\r\n$4\r\nPING\r\n" * 400, b"+PONG\r\n" * 400

    def records(path: bytes, count: int) -> list[Record]:
        return conversation(
            path,
            [(client, data) for _ in range(count) for client, data in ((True, question), (False, answer))],
            close=False,
        )

    some = tshark.usage(write(tmp_path / "a.pcapng", records(b"/run/redis.sock", 400)))[1]
    more = tshark.usage(write(tmp_path / "b.pcapng", records(b"/run/redis.sock", 800)))[1]
    plain = [tshark.usage(write(tmp_path / "p.pcapng", records(b"/tmp/x", count)))[1] for count in (400, 800)]
    assert (more - some) - (plain[1] - plain[0]) < 10_000
    text = tshark.run(
        write(tmp_path / "b.pcapng", records(b"/run/redis.sock", 800)), "-q", "-z", "unixsock,srt"
    )
    assert f"{800 * 400 - 131072} later questions are not counted" in text


def test_truncated_payload_is_a_loss(tshark: Tshark, tmp_path: Path) -> None:
    records = conversation(b"/run/chrony/chronyd.sock", SAMPLES["chrony"].turns, SocketType.DGRAM)
    records[1] = replace(records[1], payload=records[1].payload[:8], flags=records[1].flags | Flag.TRUNCATED)
    rows = tshark.fields(
        write(tmp_path / "c.pcapng", records), *FIELDS[:2], "unixsock.expert.no_answer", options=("-2",)
    )
    assert rows == [["", "", ""], ["", "", ""], ["4", "", ""], ["", "3", ""], ["6", "", ""], ["", "5", ""]]
