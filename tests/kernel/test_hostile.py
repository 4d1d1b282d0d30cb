"""Hostile peers: whatever they call themselves, pass or say, it is shown harmlessly and counted.

``UNIXSOCK_LONG`` (``make test-faults``) takes the long forms: a million messages.
"""

from __future__ import annotations

import array
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from unixsock_bpf.cli.main import main
from unixsock_bpf.extcap import main as extcap
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.formats.base import Options
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.probe.maps import MAX_SOCKETS
from unixsock_bpf.record import Event, display_name
from unixsock_bpf.wireshark.folders import dissector_source

pytestmark = pytest.mark.thorough

LONG = bool(os.environ.get("UNIXSOCK_LONG"))
CHECKOUT = Path(__file__).parents[2]
PATIENCE = 120

#: What would do something if it were printed, parsed or run.
NASTY = [
    b"\x1b]0;title\x07\x1b[2J\x1b[31m",
    b"new\nline\rreturn\ttab",
    b"\xff\xfe\x80 not UTF-8 \xc3",
    b'"]]..os.execute("touch /dev/shm/pwned")..[["',
    b"%s%n%d {value=x}{display=y}{default=true}",
    b"'; touch /dev/shm/pwned #`touch /dev/shm/pwned`$(touch /dev/shm/pwned)",
    "\u202egnp.exe \u200b\u2028\ue000\U000e0001".encode(),
    b"\x9b31m\x9d0;c1\x9c\x7f",
]
#: Bytes that a terminal may obey, in a line of output.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]")


class Saving:
    """``unixsock dump -w`` from when it captures to the end of ``with``."""

    def __init__(self, file: Path, *arguments: str) -> None:
        self._command = [sys.executable, "-m", "unixsock_bpf", "dump", "-w", str(file), *arguments]

    def __enter__(self) -> Saving:
        self.process = subprocess.Popen(self._command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert "capturing" in first, first + self.process.stderr.read()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self.process.send_signal(signal.SIGINT)
        self.said = self.process.communicate(timeout=PATIENCE)[1]
        assert self.process.returncode == 0, self.said
        captured, lost = re.findall(r"(\d+) records? captured, (\d+) lost", self.said)[0]
        self.captured, self.lost = int(captured), int(lost)


def shown(text: str) -> None:
    """Asserts that ``text`` does nothing to a terminal."""
    found = CONTROL.search(text)
    assert not found, ascii(text[max(0, found.start() - 50) : found.end() + 50])


def test_names_descriptors_and_payloads_are_shown_harmlessly(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "a.pcapng"
    comm = Path("/proc/self/comm").read_bytes()
    null = os.open("/dev/null", os.O_RDONLY)
    kept = []
    with Saving(file, "type dgram and not comm nobody") as saving:
        for nasty in NASTY:
            Path("/proc/self/comm").write_bytes(nasty[:15])
            for name in (b"\0" + nasty, os.fsencode(tmp_path) + b"/" + nasty.replace(b"/", b"_")):
                there = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                there.bind(name[:107])
                kept.append(there)
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
                    here.bind(b"\0client" + b"%d" % len(kept) + nasty[:80])
                    here.sendto(nasty, there.getsockname())
                    assert there.recv(1000) == nasty
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for number in range(20):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 253))]
            left.sendmsg([b"%d" % number], rights)
            right.recv(10)  # the kernel closes what it did not take
        # What lists sockets now, with the nasty ones still there.
        assert main(["sockets"]) == 0
        shown(capfdbinary.readouterr().out.decode())
        assert main(["sockets", "--json"]) == 0
        shown(capfdbinary.readouterr().out.decode())
        reload = ["--extcap-interface", "unixsock", "--extcap-config", "--extcap-reload-option", "path"]
        lines = extcap.answer(reload).splitlines()
        assert len(lines) >= len(kept)
        for line in lines:
            shown(line)
            assert re.fullmatch(
                r"value \{arg=\d+\}\{value=[^}]*\}\{display=[^}]*\}(\{default=\w+\})?", line
            ), line
    Path("/proc/self/comm").write_bytes(comm)
    for one in (*kept, left, right):
        one.close()
    assert saving.lost == 0

    records = [one for one in reader.read(str(file)) if one.record.event == Event.DATA]
    nasties = [one.record for one in records if one.record.payload in NASTY]
    assert [one.payload for one in nasties] == [nasty for nasty in NASTY for _ in range(2)]
    assert [one.src_comm for one in nasties] == [nasty[:15] for nasty in NASTY for _ in range(2)]
    assert [one.dst_name for one in nasties[::2]] == [b"\0" + nasty for nasty in NASTY]
    assert [one.record.fds_count for one in records if one.record.fds_count] == [253] * 20

    blocks = [pcapng.block(kind, bytes(body)) for kind, body in pcapng.blocks(file.read_bytes())]
    for form in FORMATS.values():
        if not form.binary:
            shown(b"".join(form.writer(Options()).pieces(blocks)).decode())
    for more in (
        [],
        ["-V"],
        ["-T", "json"],
        ["-T", "fields", "-e", "unixsock.path", "-e", "unixsock.src.comm"],
    ):
        done = subprocess.run(
            ["tshark", "-X", f"lua_script:{dissector_source()}", "-r", str(file), *more],
            capture_output=True,
            check=True,
        )
        assert b"Lua" not in done.stderr
        text = done.stdout.decode()
        shown(text)
        assert display_name(b"\0" + NASTY[3]).decode()[:20] in text.replace('\\"', '"')
    assert not Path("/dev/shm/pwned").exists()
    print(
        f"{len(nasties)} nasty names, {20 * 253} descriptors: shown in {len(FORMATS)} formats and by tshark"
    )


def tally(file: Path) -> tuple[Counter[int], int]:
    """DATA records by the inode of their sender, and packets that the file says were dropped."""
    found: Counter[int] = Counter()
    dropped = 0
    prefix = 20 + len(pcapng.PACKET_PREFIX)
    for kind, body in pcapng.blocks(file.read_bytes()):
        if kind == pcapng.EPB and body[prefix + 1] == Event.DATA:
            found[struct.unpack_from("<Q", body, prefix + 56)[0]] += 1
        elif kind == pcapng.ISB:
            dropped = struct.unpack("<Q", bytes(body[12:]).partition(struct.pack("<HH", 5, 8))[2][:8])[0]
    return found, dropped


def test_sockets_without_number_and_a_flood_of_tiny_messages(tmp_path: Path) -> None:
    """More sockets than the probe can keep in mind: what they say is counted as lost."""
    pairs, messages = 70_000, 1_000_000 if LONG else 20_000
    file = tmp_path / "a.pcapng"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * pairs, 4 * pairs))
    try:
        with Saving(file, "--buffer-size", "128") as saving:
            left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            flood = os.fstat(left.fileno()).st_ino
            begin = time.monotonic()
            for _ in range(messages):
                left.send(b"x")
                right.recv(1)
            seconds = time.monotonic() - begin
            kept = []
            inodes = []
            for number in range(pairs):
                kept.append(socket.socketpair())
                kept[-1][0].send(b"%d" % number)
                inodes.append(os.fstat(kept[-1][0].fileno()).st_ino)
        said = saving.said.strip().splitlines()[-1]
        for pair in kept:
            pair[0].close()
            pair[1].close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    found, dropped = tally(file)
    captured = sum(found[inode] for inode in inodes)
    print(
        f"{messages} messages of one byte in {seconds:.1f} s: {found[flood]} captured; "
        f"one message on each of {2 * pairs} sockets: {captured} captured; {said}"
    )
    assert dropped == saving.lost
    assert max(found[inode] for inode in inodes) == 1
    assert found[flood] + captured + dropped == messages + pairs
    assert captured >= 50_000
    assert dropped >= pairs - MAX_SOCKETS // 2
