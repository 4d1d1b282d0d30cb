"""Fixtures carry the same bytes: read back by each language's own compiler."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from unixsock_bpf import record
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.formats.fixtures import LANGUAGES, Fixture, fixtures, source
from unixsock_bpf.record import Flag, Record, Role

ALL_BYTES = bytes(range(256))
NAME = "/run/“x”\\\n\U0001f600"
FOUND = [
    Fixture(0, "to_server", "stream", NAME, ALL_BYTES),
    Fixture(0, "to_client", "stream", NAME, b""),
    Fixture(1, "forth", "dgram", '@a"b', b'"\\x41\\u{1}%{}$' + ALL_BYTES[::-1], missing=3),
]
#: What each generated program prints: a line per message, fields in hex.
EXPECTED = [
    (one.conversation, one.direction, one.type, one.path.encode().hex(), one.payload.hex()) for one in FOUND
]


def parsed(text: str) -> list[tuple[int, str, str, str, str]]:
    rows = [line.split(" ") for line in text.splitlines()]
    return [(int(row[0]), row[1], row[2], row[3], row[4]) for row in rows]


def test_python(tmp_path: Path) -> None:
    (tmp_path / "exported.py").write_text("".join(source(FOUND, "python")))
    program = (
        "import exported\n"
        "for m in exported.MESSAGES:\n"
        "    print(m.conversation, m.direction, m.type, m.path.encode().hex(), m.payload.hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert parsed(done.stdout) == EXPECTED


@pytest.mark.skipif(not shutil.which("go"), reason="Go's compiler (golang-go) is not installed")
def test_go(tmp_path: Path) -> None:
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "go.mod").write_text("module exported\n")
    (tmp_path / "fixtures" / "fixtures.go").write_text("".join(source(FOUND, "go")))
    (tmp_path / "main.go").write_text(
        'package main\nimport ("exported/fixtures"; "fmt")\n'
        "func main() { for _, m := range fixtures.Messages {"
        ' fmt.Printf("%d %s %s %x %x\\n", m.Conversation, m.Direction, m.Type, m.Path, m.Payload) } }\n'
    )
    done = subprocess.run(["go", "run", "."], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert parsed(done.stdout) == EXPECTED


@pytest.mark.skipif(not shutil.which("rustc"), reason="Rust's compiler (rustc) is not installed")
def test_rust(tmp_path: Path) -> None:
    (tmp_path / "fixtures.rs").write_text("".join(source(FOUND, "rust")))
    (tmp_path / "main.rs").write_text(
        'mod fixtures;\nfn hex(b: &[u8]) -> String { b.iter().map(|x| format!("{:02x}", x)).collect() }\n'
        'fn main() { for m in fixtures::MESSAGES { println!("{} {} {} {} {}", m.conversation, m.direction,'
        " m.kind, hex(m.path.as_bytes()), hex(m.payload)); } }\n"
    )
    subprocess.run(["rustc", "-o", "main", "main.rs"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert parsed(done.stdout) == EXPECTED


def test_json_and_hexstring() -> None:
    read = json.loads("".join(source(FOUND, "json")))
    assert [base64.b64decode(one["payload"]) for one in read] == [one.payload for one in FOUND]
    assert [one["path"] for one in read] == [one.path for one in FOUND]
    assert read[2]["missing"] == 3
    lines = "".join(source(FOUND, "hexstring")).splitlines()
    assert [bytes.fromhex(line.replace("\\x", "")) for line in lines[1::2]] == [one.payload for one in FOUND]
    assert lines[4].startswith("# 1 forth dgram ")


def test_parts_of_a_message_are_joined_and_order_is_kept() -> None:
    there = {"src_sock": 1, "dst_sock": 2, "role": Role.DST_IS_SERVER}
    back = {"src_sock": 2, "dst_sock": 1, "role": Role.SRC_IS_SERVER}
    found = list(
        fixtures(
            [
                Record(**there, message=0, len=6, payload=b"abc", flags=Flag.MORE),
                Record(**back, message=0, len=1, payload=b"x"),
                Record(**there, message=0, len=6, offset=3, payload=b"def"),
                Record(src_sock=8, dst_sock=9, len=5, payload=b"123"),
                Record(src_sock=9, dst_sock=8),
            ]
        )
    )
    assert [(one.conversation, one.direction, one.payload, one.missing) for one in found] == [
        (0, "to_client", b"x", 0),
        (0, "to_server", b"abcdef", 0),
        (1, "forth", b"123", 2),
        (1, "back", b"", 0),
    ]


def capture_file(path: Path, payloads: list[bytes]) -> Path:
    blocks = [pcapng.section_header("", "", "test"), pcapng.interface("unixsock", "", 0)]
    for number, payload in enumerate(payloads):
        one = Record(src_sock=1, dst_sock=2, type=1, message=number, len=len(payload), payload=payload)
        one.src_pid = 100 + number
        blocks.append(pcapng.packet(number, record.encode(one)))
    path.write_bytes(b"".join(blocks))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unixsock_bpf", "export", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("form", LANGUAGES)
def test_command_writes_each_format(form: str, tmp_path: Path) -> None:
    done = run(str(capture_file(tmp_path / "a", [b"one"])), "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    text = {"json": "b25l", "hexstring": "\\x6f\\x6e\\x65"}.get(form, '"one"')
    assert text in done.stdout


def test_display_filter_chooses(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcapng", [b"one", b"two", b"three"])
    done = run(str(path), "-Y", "unixsock.src.pid == 101 or unixsock.len == 5")
    assert done.stderr == ""
    assert [one["text"] for one in json.loads(done.stdout)] == ["two", "three"]
    refused = run(str(path), "-Y", "unixsock.nonsense ==")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def pcap(link_type: int, packets: list[bytes]) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link_type)
    return head + b"".join(struct.pack("<IIII", 7, 8, len(one), len(one)) + one for one in packets)


def test_reads_classic_pcap(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(252, [pcapng.PACKET_PREFIX + record.encode(Record(payload=b"hello"))]))
    (one,) = reader.read(str(path))
    assert (one.number, one.time_ns, one.record.payload) == (1, 7_000_000_008, b"hello")


def newer(path: Path) -> None:
    data = bytearray(capture_file(path, [b"x"]).read_bytes())
    at = data.index(pcapng.PACKET_PREFIX) + len(pcapng.PACKET_PREFIX)
    data[at] = record.VERSION + 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b"hello, world"), "neither a pcapng nor a pcap"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(pcap(1, [b"ethernet frame"])), "another link type"),
        (lambda path: path.write_bytes(pcap(252, [b"x"])[:-1]), "cut short"),
        (newer, f"format version {record.VERSION + 1}"),
        (lambda path: path.write_bytes(capture_file(path, [b"x"]).read_bytes()[:-3]), "cut short"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: None, "no such file"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(make, expected: str, tmp_path: Path, capfd) -> None:
    make(tmp_path / "a")
    assert main(["export", str(tmp_path / "a")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"unixsock: cannot .*\n", err)
    assert expected in err
