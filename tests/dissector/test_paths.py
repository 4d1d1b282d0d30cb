"""Users' entries for paths: names of every kind, ways to cut messages, heuristics, and what is wrong."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from captures import Turn, conversation, write
from conftest import Tshark

from unixsock_bpf.record import SocketType

#: A Zebra hello, version 2, and what names the dissector, which 4.0 knows by its port only.
ZEBRA = struct.pack(">HBBHB", 7, 255, 2, 17, 9)
TPM = struct.pack(">III", 8, 0, 10)

#: A user's own dissector that knows no reassembly.
STRANGER = """
local proto = Proto("stranger", "A stranger")
local bytes = ProtoField.string("stranger.bytes", "Bytes")
proto.fields = { bytes }
function proto.dissector(tvb, pinfo, tree)
    tree:add(bytes, tvb:range(0, tvb:len()), tvb:raw(0, tvb:len()):gsub("%c", "."), nil)
    return tvb:len()
end
"""


def frames(tshark: Tshark, capture: Path, entries: str, layer: str) -> list[int]:
    rows = tshark.fields(capture, "frame.protocols", options=("-o", f"unixsock.paths:{entries}"))
    return [number for number, (protocols,) in enumerate(rows, 1) if f":{layer}" in protocols]


@pytest.mark.parametrize("name", ["zebra", "ZEBRA", "tcp/2600", "TCP/2600"])
def test_dissector_by_any_name(tshark: Tshark, tmp_path: Path, name: str) -> None:
    capture = write(tmp_path / "c.pcapng", conversation(b"/run/frr/odd", [(True, ZEBRA)], close=False))
    assert frames(tshark, capture, "", "zebra") == []
    assert frames(tshark, capture, f"/run/frr/odd={name}", "zebra") == [1]


def test_dissector_whose_filter_name_is_another(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", conversation(b"/run/odd", [(True, TPM)], close=False))
    for name in ("tpm", "tcp/2321"):
        assert frames(tshark, capture, f"/run/odd={name}", "tpm") == [1], name


def test_udp_port(tshark: Tshark, tmp_path: Path) -> None:
    clock = bytes([0x23]) + bytes(47)
    capture = write(tmp_path / "c.pcapng", conversation(b"/run/odd", [(True, clock)], SocketType.DGRAM))
    assert frames(tshark, capture, "/run/odd=udp/123", "ntp") == [1]


@pytest.fixture
def stranger(tshark: Tshark, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Options that load a user's dissector; 4.4 and later load none but plugins for root."""
    if tshark.root is None:
        script = tmp_path / "stranger.lua"
        script.write_text(STRANGER)
        yield ("-X", f"lua_script:{script}")
        return
    script = tshark.root / "usr/lib/x86_64-linux-gnu/wireshark/plugins/stranger.lua"
    script.write_text(STRANGER)
    yield ()
    script.unlink()


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize(
    ("framer", "messages"),
    [
        ("lines", [b"first\n", b"second line\n", b"3\n"]),
        ("nul", [b"first\0", b"second\0", b"3\0"]),
        ("json", [b'{"a":[1]}', b'{"b":"}"}', b"[]"]),
        ("u16be", [b"\0\3abc", b"\0\2de"]),
        ("u16le", [b"\3\0abc", b"\2\0de"]),
        ("u32be", [b"\0\0\0\3abc", b"\0\0\0\2de"]),
        ("u32le", [b"\3\0\0\0abc", b"\2\0\0\0de"]),
    ],
)
def test_whole_messages_for_a_dissector_that_knows_no_reassembly(
    tshark: Tshark, tmp_path: Path, stranger: tuple[str, ...], framer: str, messages: list[bytes],
    options: tuple[str, ...],
) -> None:  # fmt: skip
    data = b"".join(messages)
    expected = ["".join(chr(b) if 32 <= b < 127 else "." for b in message) for message in messages]
    for turns in ([(True, data)], [(True, bytes([b])) for b in data], [(True, data[:5]), (True, data[5:])]):
        capture = write(tmp_path / "c.pcapng", conversation(b"/srv/odd", list[Turn](turns), close=False))
        entry = ("-o", f"unixsock.paths:/srv/*=stranger@{framer}")
        rows = tshark.fields(capture, "stranger.bytes", options=(*stranger, *entry, *options))
        assert [one for (row,) in rows for one in row.split("|") if one] == expected


def test_heuristics_for_one_path(tshark: Tshark, tmp_path: Path) -> None:
    hello = b"\x13BitTorrent protocol" + bytes(8) + b"h" * 20 + b"p" * 20
    both = [
        one for path in (b"/srv/x", b"/srv/y") for one in conversation(path, [(True, hello)], close=False)
    ]
    capture = write(tmp_path / "c.pcapng", both)
    assert frames(tshark, capture, "/srv/y=heur/tcp", "bittorrent") == [2]


def test_name_for_the_time_being(tshark: Tshark, tmp_path: Path) -> None:
    for path in (b"/run/mpd/socket.127.tmp", b"/run/mpd/socket.tmp"):
        capture = write(tmp_path / "c.pcapng", conversation(path, [(True, b"status\n")], close=False))
        assert tshark.fields(capture, "mpd.command") == [["status"]]
        by_user = ("-o", "unixsock.paths:/run/mpd/socket=unixsock.json")
        assert tshark.fields(capture, "mpd.command", options=by_user) == [[""]]


WRONG = [
    ("/srv/x=nosuch", "no dissector that is called 'nosuch'"),
    ("/srv/x", "an entry is GLOB=PROTOCOL"),
    ("/srv/x=tcp/99999", "no dissector that is called 'tcp/99999'"),
    ("/srv/x=heur/nosuch", "no list of heuristic dissectors that is called 'nosuch'"),
    ("/srv/x=json@nosuch", "'nosuch' is no way to cut messages: lines, nul, json"),
]


@pytest.mark.parametrize(("entry", "sentence"), WRONG)
def test_wrong_entry_is_said(tshark: Tshark, tmp_path: Path, entry: str, sentence: str) -> None:
    """On stderr once, and as an expert item on the first packet; other entries work."""
    capture = write(tmp_path / "c.pcapng", conversation(b"/srv/y", [(True, b'{"id":1}'), (True, b"{}")]))
    command = tshark.command(capture, "-o", f"unixsock.paths:{entry};/srv/y=unixsock.json", "-T", "fields",
                             "-e", "_ws.expert.message", "-e", "json.key")  # fmt: skip
    env = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(tshark.home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.count(sentence) == 1
    assert sentence in done.stdout.splitlines()[0]
    assert "id" in done.stdout.splitlines()[0]
    assert sentence not in "".join(done.stdout.splitlines()[1:])


def test_file_of_the_users(tshark: Tshark, tmp_path: Path) -> None:
    """Read when Wireshark starts; the preference counts before it."""
    place = (tshark.root / "root" if tshark.root else tshark.home) / ".config/wireshark/unixsock_paths"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        "# comment\n\n/srv/a b*   unixsock.mpd\n/srv/z  zebra # at a port\nnonsense\n/srv/y nosuch\n"
    )
    said = [*conversation(b"/srv/a b c", [(True, b"status\n")], close=False),
            *conversation(b"/srv/z", [(True, ZEBRA)], close=False)]  # fmt: skip
    capture = write(tmp_path / "c.pcapng", said)
    env = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(tshark.home), "LC_ALL": "C.UTF-8"}
    command = tshark.command(capture, "-T", "fields", "-e", "mpd.command", "-e", "frame.protocols")
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    finally:
        place.unlink()
    assert "unixsock_paths, line 5: a line is a GLOB, space and a PROTOCOL" in done.stderr
    assert "unixsock_paths, line 6: Wireshark has no dissector that is called 'nosuch'" in done.stderr
    assert done.stdout.startswith("status")
    assert ":zebra" in done.stdout.splitlines()[1]


def test_decode_as_knows_our_protocols(tshark: Tshark, tmp_path: Path) -> None:
    capture = write(tmp_path / "c.pcapng", conversation(b"/srv/odd", [(True, b"status\n")], close=False))
    ((port,),) = tshark.fields(capture, "tcp.dstport")
    rows = tshark.fields(capture, "mpd.command", options=("-d", f"tcp.port=={port},unixsock_mpd"))
    assert rows == [["status"]]
