"""Exports are read by the tools that they are for, and by tshark without our plugin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from dissector.captures import conversation, side, write
from haralyzer import HarParser

from unixsock_bpf.cli.main import main
from unixsock_bpf.export.registry import FORMATS
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import HEADER_LEN, Event, Flag, Record, SocketType, encode

CAPTURES = Path(__file__).parents[2] / "dissector/captures"
HOSTILE = b'/run/a"b\\\n<x>;#%{}`$(id)/mysql.sock'


def export(capture: Path, form: str, output: Path, *more: str) -> Path:
    assert main(["export", str(capture), "--format", form, "-w", str(output), *more]) == 0
    return output


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True, **more)  # type: ignore[call-overload]
    return str(done.stdout.decode())


def plain_tshark(file: Path, home: Path, *arguments: str) -> list[str]:
    """tshark's output without any plugin of ours."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    return run("tshark", "-n", "-r", file, *arguments, env=environment).splitlines()


def fields(file: Path, home: Path, display_filter: str, *names: str) -> list[list[str]]:
    wanted = [word for name in names for word in ("-e", name)]
    check = ["-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    lines = plain_tshark(file, home, *check, "-Y", display_filter, "-T", "fields", *wanted)
    return [line.split("\t") for line in lines]


@pytest.mark.parametrize(
    ("name", "port", "protocol"),
    [("http", 80, "http"), ("redis", 6379, "tcp"), ("postgresql", 5432, "pgsql"), ("mariadb", 3306, "mysql")],
)
def test_tcp_in_wireshark_without_our_plugin(name: str, port: int, protocol: str, tmp_path: Path) -> None:
    file = export(CAPTURES / f"{name}.pcapng", "tcp", tmp_path / "a.pcap")
    columns = ("tcp.flags", "tcp.srcport", "tcp.dstport", "tcp.checksum.status", "ip.checksum.status")
    packets = fields(file, tmp_path, "tcp", *columns)
    flags = [int(packet[0], 16) & 0x3F for packet in packets]
    assert flags[:3] == [0x02, 0x12, 0x10]
    assert flags[-3:] == [0x11, 0x11, 0x10]
    assert {str(port) in packet[1:3] for packet in packets} == {True}
    assert {packet[3] for packet in packets} == {"1"}
    assert {packet[4] for packet in packets} == {"1" if port == 3306 else ""}
    assert fields(file, tmp_path, "tcp.analysis.flags or _ws.malformed", "frame.number") == []
    assert fields(file, tmp_path, protocol, "frame.number") != []


def streams(size: int, payload: bytes) -> list[Record]:
    """A stream from the client, in messages of ``size`` bytes."""
    turns = [(True, payload[at : at + size]) for at in range(0, len(payload), size)]
    return conversation(b"/run/x.sock", [*turns, (False, b"done")])


def test_tcpflow_gets_the_bytes(tmp_path: Path) -> None:
    payload = zlib.compress(os.urandom(150_000)) + bytes(range(256)) * 200
    capture = write(tmp_path / "a.pcapng", streams(100_000, payload))
    file = export(capture, "tcp", tmp_path / "a.pcap")
    run("tcpflow", "-a", "-r", file, "-o", tmp_path / "flows")
    found = {one.read_bytes() for one in (tmp_path / "flows").iterdir() if one.name.startswith("fdfe")}
    assert found == {payload, b"done"}
    assert fields(file, tmp_path, "tcp.checksum.status != 1", "frame.number") == []


def test_a_loss_is_a_gap_of_its_size(tmp_path: Path) -> None:
    records = streams(100, bytes(1000))
    del records[3:5]
    lost = side(True, b"/run/x.sock")
    lost.event, lost.seq, lost.lost = Event.LOST, 300, (2, 200, 1)
    records.insert(3, lost)
    file = export(write(tmp_path / "a.pcapng", records), "tcp", tmp_path / "a.pcap")
    sent = fields(file, tmp_path, "tcp.len > 0 and tcp.dstport != 40000", "tcp.seq", "tcp.len")
    to_server = [(int(seq), int(length)) for seq, length in sent if length == "100"]
    assert to_server == [(1 + at, 100) for at in range(0, 1000, 100) if at not in (300, 400)]
    assert len(fields(file, tmp_path, "tcp.analysis.lost_segment", "frame.number")) == 1


def test_datagrams_and_what_is_too_long_for_udp(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    turns = [(True, b"<13>hello"), (False, b"x" * 65_001)]
    capture = write(tmp_path / "a.pcapng", conversation(b"/dev/log", turns, SocketType.DGRAM))
    file = export(capture, "tcp", tmp_path / "a.pcap")
    columns = ("udp.dstport", "udp.length", "udp.checksum.status")
    assert fields(file, tmp_path, "udp", *columns)[0] == ["514", "17", "1"]
    assert fields(file, tmp_path, "udp", *columns)[1][1:] == ["65008", "1"]
    assert "1 datagrams hold less than was sent" in capfd.readouterr().err


def test_pt_query_digest_finds_the_queries(tmp_path: Path) -> None:
    file = export(CAPTURES / "mariadb.pcapng", "tcp", tmp_path / "a.pcap")
    text = run("tcpdump", "-s", "65535", "-x", "-nn", "-q", "-tttt", "-r", file)
    report = run("pt-query-digest", "--type", "tcpdump", input=text.encode())
    assert "Overall: 8 total, 8 unique" in report
    assert "INSERT t" in report


def test_ngrep_finds_text(tmp_path: Path) -> None:
    file = export(CAPTURES / "http.pcapng", "tcp", tmp_path / "a.pcap")
    assert "GET /uwsgi/page?q=1 HTTP/1.1" in run("ngrep", "-q", "-I", file, "GET", "tcp port 80")


def test_dbus_in_wireshark_without_our_plugin(tmp_path: Path) -> None:
    file = export(CAPTURES / "dbus.pcapng", "dbus", tmp_path / "a.pcap")
    lines = fields(file, tmp_path, "dbus and not _ws.malformed", "dbus.member")
    assert [line[0] for line in lines if line[0]] == ["Hello", "NameAcquired", "ListNames", "Take"]
    assert fields(file, tmp_path, "not dbus or _ws.malformed", "frame.number") == []


def test_dbus_messages_are_whole_wherever_writes_were_cut(tmp_path: Path) -> None:
    raw = export(CAPTURES / "dbus.pcapng", "raw", tmp_path / "raw")
    sent = next(raw.glob("*to_server.bin")).read_bytes()
    turns = [(True, sent[at : at + 7]) for at in range(0, len(sent), 7)]
    records = conversation(b"/run/dbus", turns)
    file = export(write(tmp_path / "cut.pcapng", records), "dbus", tmp_path / "a.pcap")
    whole = fields(file, tmp_path, "dbus and not _ws.malformed", "dbus.member")
    assert [line[0] for line in whole] == ["Hello", "ListNames", "Take"]
    # Without the piece in which a message begins, that message is missing, and no other.
    begun = sent.index(b"BEGIN\r\n") + 7
    cuts = [0, begun, begun + 40, begun + 128, len(sent)]
    turns = [(True, sent[one:two]) for one, two in zip(cuts, cuts[1:])]
    records = conversation(b"/run/dbus", turns)
    del records[1]
    file = export(write(tmp_path / "lost.pcapng", records), "dbus", tmp_path / "b.pcap")
    assert [line[0] for line in fields(file, tmp_path, "dbus", "dbus.member")] == ["ListNames", "Take"]


def har(tmp_path: Path, records: list[Record]) -> HarParser:
    file = export(write(tmp_path / "a.pcapng", records), "har", tmp_path / "a.har")
    return HarParser(json.loads(file.read_text()))


def test_har_is_read_by_haralyzer(tmp_path: Path) -> None:
    file = export(CAPTURES / "docker.pcapng", "har", tmp_path / "a.har")
    read = HarParser(json.loads(file.read_text()))
    found = (
        [(one.request.method, one.request.url, one.response.status) for one in read.pages[0].entries]
        if read.pages
        else [
            (one["request"]["method"], one["request"]["url"], one["response"]["status"])
            for one in read.har_data["entries"]
        ]
    )
    assert found == [
        ("HEAD", "http://docker/_ping", 200),
        ("GET", "http://docker/v1.41/version", 200),
        ("HEAD", "http://docker/_ping", 200),
        ("GET", "http://docker/v1.41/containers/json?all=1", 200),
    ]


def test_har_knows_each_way_in_which_a_body_ends(tmp_path: Path) -> None:
    packed = zlib.compressobj(wbits=31)
    body = packed.compress(b"compressed " * 20) + packed.flush()
    turns = [
        (True, b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2?a=b HTTP/1.1\r\nHost: h\r\nContent-Le"),
        (True, b"ngth: 4\r\nCookie: k=v\r\n\r\nbo"),
        (True, b"dyHEAD /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n"),
        (
            False,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        ),
        (False, b"lo\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        (
            False,
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n",
        ),
        (False, b"Content-Length: %d\r\n\r\n%b" % (len(body), body)),
        (False, b"HTTP/1.0 404 \r\nContent-Type: a/b\r\n\r\n\xff\xfe until the end"),
    ]
    entries = har(tmp_path, conversation(b"/run/x", turns)).har_data["entries"]
    contents = [one["response"]["content"].get("text") for one in entries]
    assert contents == ["hello world", "", "", "compressed " * 20, "//4gdW50aWwgdGhlIGVuZA=="]
    assert [one["response"]["status"] for one in entries] == [200, 204, 200, 200, 404]
    assert entries[1]["request"]["postData"]["text"] == "body"
    assert entries[1]["request"]["queryString"] == [{"name": "a", "value": "b"}]
    assert entries[1]["request"]["cookies"] == [{"name": "k", "value": "v"}]
    assert entries[4]["response"]["content"]["encoding"] == "base64"


def test_har_after_a_loss_and_without_an_answer(tmp_path: Path) -> None:
    turns = [
        (True, b"GET /1 HTTP/1.1\r\n\r\n"),
        (False, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123"),
        (False, b"456"),
        (False, b"789"),
        (True, b"GET /2 HTTP/1.1\r\n\r\n"),
    ]
    records = conversation(b"/run/x", turns)
    del records[2]
    entries = har(tmp_path, records).har_data["entries"]
    assert entries[0]["response"]["content"]["text"] == "123789"
    assert entries[0]["response"]["content"]["comment"] == "3 bytes were not captured"
    assert entries[1]["response"]["status"] == 0


def test_graphviz_takes_any_name(tmp_path: Path) -> None:
    records = conversation(HOSTILE, [(True, b"x"), (False, b"y" * 2000)])
    records = [replace(one, src_comm=b'c"\\"<', dst_comm=b'c"\\"<') for one in records]
    file = export(write(tmp_path / "a.pcapng", records), "dot", tmp_path / "a.dot")
    picture = run("dot", "-Tplain", file)
    assert picture.count("\nedge ") == 1
    assert "2 kB" in picture
    assert "p50" in picture


def test_sockets_as_a_graph(capfd: pytest.CaptureFixture[str]) -> None:
    import socket

    one, two = socket.socketpair()
    inode = os.fstat(one.fileno()).st_ino
    assert main(["sockets", "inode", str(inode), "--format", "dot"]) == 0
    one.close()
    two.close()
    assert run("dot", "-Tplain", input=capfd.readouterr().out.encode()).count("\nedge ") == 1


@pytest.mark.parametrize("form", ["mermaid", "plantuml"])
def test_sequence_diagrams_say_what_the_packet_list_says(form: str, tmp_path: Path) -> None:
    text = export(CAPTURES / "docker.pcapng", form, tmp_path / "a").read_text()
    arrows = [line for line in text.splitlines() if "->" in line]
    assert len(arrows) == 8
    assert "GET /v1" in arrows[2]
    only = export(CAPTURES / "docker.pcapng", form, tmp_path / "b", "-Y", "http.request").read_text()
    assert len([line for line in only.splitlines() if "->" in line]) == 4


def test_diagrams_hold_nothing_that_their_languages_act_on(tmp_path: Path) -> None:
    records = conversation(b"/run/x", [(True, b"%getenv(1) !include <b>; end\n#1;@enduml")])
    records = [replace(one, src_comm=b'a\n@enduml"') for one in records]
    capture = write(tmp_path / "a.pcapng", records)
    for form, allowed in (("mermaid", r"#\d+;"), ("plantuml", r"<U\+[0-9A-F]{4,6}>")):
        for line in export(capture, form, tmp_path / form).read_text().splitlines():
            text = line.partition(" : " if form == "plantuml" else ": ")[2]
            assert not re.search(r"[^\w .,/()?]", re.sub(allowed, "", text)), line


def test_umockdev_answers_as_the_server_did(tmp_path: Path) -> None:
    script = export(CAPTURES / "docker.pcapng", "umockdev", tmp_path / "script")
    command = (
        "curl -s --max-time 20 -I --unix-socket $UMOCKDEV_DIR/run/docker.sock http://docker/_ping"
        " -A 'Docker-Client/20.10.24+dfsg1 (linux)' -H Accept:"
    )
    answer = run("umockdev-run", "-u", f"/run/docker.sock={script}", "--", "sh", "-c", command)
    assert "Api-Version: 1.41" in answer
    (tmp_path / "all").mkdir()
    scripts = export(CAPTURES / "docker.pcapng", "umockdev", tmp_path / "all")
    assert len(list(scripts.iterdir())) == 2


def test_raw_has_each_direction_in_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    records = streams(100, bytes(range(250)) * 2)
    del records[1]
    folder = export(write(tmp_path / "a.pcapng", records), "raw", tmp_path / "out")
    sent = bytes(range(250)) * 2
    index = [json.loads(line) for line in (folder / "index.json").read_text().splitlines()]
    assert (folder / index[0]["file"]).read_bytes() == sent[:100] + sent[200:]
    assert index[0]["missing"] == [{"at": 100, "bytes": 100}]
    assert (folder / index[1]["file"]).read_bytes() == b"done"
    assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o600}
    assert main(["export", str(tmp_path / "a.pcapng"), "--format", "raw", "-w", str(folder)]) == 1
    assert "is not an empty folder" in capfd.readouterr().err


@pytest.mark.parametrize("form", FORMATS)
def test_a_capture_that_is_cut_short_gives_what_is_whole(
    form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"GET / HTTP/1.1\r\n\r\n")] * 3))
    cut = tmp_path / "cut.pcapng"
    cut.write_bytes(whole.read_bytes()[:-250])
    output = tmp_path / "out"
    assert main(["export", str(cut), "--format", form, "-w", str(output)]) == 1
    err = capfd.readouterr().err
    assert re.fullmatch(
        r"unixsock: cannot use .* is cut short.*; the [34] records before that were exported\n", err
    )
    if form in ("json", "har"):
        json.loads(output.read_text())


@pytest.mark.parametrize("form", [name for name, form in FORMATS.items() if form.pieces])
def test_a_full_disk_is_a_sentence(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"GET / HTTP/1.1\r\n\r\n")]))
    assert main(["export", str(capture), "--format", form, "-w", "/dev/full"]) == 1
    assert capfd.readouterr().err.startswith("unixsock: cannot write /dev/full: no space left")


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_records(form: str, tmp_path: Path) -> None:
    """Positions and lengths that contradict each other, and messages of sockets that are not known."""
    records = [
        Record(payload=b"x", len=1, type=1),
        Record(src_sock=1, dst_sock=1, type=1, seq=(1 << 64) - 1, len=0, payload=b"GET /\r\n" * 20),
        Record(
            src_sock=1,
            dst_sock=2,
            type=9,
            flags=Flag.MORE,
            seq=5,
            offset=1 << 31,
            payload=b"l\1\0\1" + b"\xff" * 60,
        ),
        Record(
            src_sock=2, dst_sock=1, type=1, seq=(1 << 64) - 1, offset=(1 << 32) - 1, payload=b"HTTP/1.1 2"
        ),
        Record(src_sock=3, dst_sock=4, type=1, event=99, dst_name=HOSTILE),
        Record(src_sock=3, dst_sock=4, type=1, event=Event.CLOSE, dst_name=HOSTILE, seq=1 << 63),
        Record(
            src_sock=5, dst_sock=6, type=2, dst_name=b"\0" * 108, payload=b"\xff" * 70_000, len=1, offset=9
        ),
    ]
    output = tmp_path / "out"
    assert (
        main(["export", str(write(tmp_path / "a.pcapng", records)), "--format", form, "-w", str(output)]) == 0
    )


@pytest.mark.parametrize("form", FORMATS)
def test_contradictory_records_and_absurd_times(form: str, tmp_path: Path) -> None:
    whole = conversation(b"/run/x", [(True, b"GET / HTTP/1.1\r\n\r\n"), (False, b"HTTP/1.1 204 x\r\n\r\n")])
    blocks = [pcapng.section_header("", "", ""), pcapng.interface("", "", 0)]
    blocks += [
        pcapng.packet(time_ns, encode(one)) for time_ns in (0, 1 << 62, (1 << 64) - 1) for one in whole
    ]
    (tmp_path / "a.pcapng").write_bytes(b"".join(blocks))
    assert main(["export", str(tmp_path / "a.pcapng"), "--format", form, "-w", str(tmp_path / "out")]) == 0
    broken = bytearray(encode(whole[0]))
    broken[HEADER_LEN + 2] = 0xFF  # the length of the first element
    blocks.append(pcapng.packet(5, bytes(broken)))
    (tmp_path / "b.pcapng").write_bytes(b"".join(blocks))
    status = main(["export", str(tmp_path / "b.pcapng"), "--format", form, "-w", str(tmp_path / "more")])
    assert status == (0 if form == "parquet" else 1)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exports.big_capture import write as write_big

    from unixsock_bpf.formats import reader

    monkeypatch.setattr(reader, "_RESIDENT", 1 << 20)
    path = write_big(tmp_path / "big.pcapng", 20_000)
    resident = []
    for one in reader.SavedCapture(str(path)).spans():
        if one.number % 500 == 0:
            maps = Path("/proc/self/smaps").read_text()
            resident += [
                int(kilobytes)
                for kilobytes in re.findall(r"big\.pcapng\nSize:.*\n(?:.*\n){2}Rss: +(\d+)", maps)
            ]
    assert len(resident) == 40
    assert path.stat().st_size > 6_000_000
    assert max(resident) < 4_000
