"""``unixsock_bpf.read`` on saved captures; ``live`` is tried in the guest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unixsock_bpf
from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Fd, FdKind, Flag, Record, Role, SocketType

PAYLOADS = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\0\xff" * 20]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    blocks = [pcapng.section_header("", "", "test"), pcapng.interface("unixsock", "", 0)]
    seq = 0
    for number, payload in enumerate(PAYLOADS):
        one = Record(
            src_sock=1, dst_sock=2, type=SocketType.STREAM, role=Role.DST_IS_SERVER, flags=Flag.SRC_CREDS,
            src_pid=10, src_uid=7, src_gid=8, src_comm=b"curl", dst_comm=b"server", dst_name=b"\0name",
            message=number, seq=seq, len=len(payload), payload=payload,
        )  # fmt: skip
        if number == 2:
            one.fds = [Fd(FdKind.PIPE, 5)]
        seq += len(payload)
        blocks.append(pcapng.packet(1_000 + number, record.encode(one)))
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(blocks))
    return path


def test_messages_are_typed(capture: Path) -> None:
    found = list(unixsock_bpf.read(capture))
    assert [one.payload for one in found] == PAYLOADS
    assert [one.number for one in found] == [1, 2, 3]
    first = found[0]
    assert (first.time_ns, first.event, first.type, first.path) == (
        1000,
        Event.DATA,
        SocketType.STREAM,
        "@name",
    )
    assert (first.src.pid, first.src.comm, first.src.uid, first.src.gid) == (10, "curl", 7, 8)
    assert (first.dst.comm, first.dst.pid, first.dst.uid, first.dst.name) == ("server", None, None, "@name")
    assert found[2].fds == (Fd(FdKind.PIPE, 5),)


def test_packets_are_decoded(capture: Path) -> None:
    first = next(iter(unixsock_bpf.read(capture)))
    assert first.packet.http.request_method == "GET"
    assert first.packet.unixsock.path == "@name"


def test_display_filter(capture: Path) -> None:
    found = list(unixsock_bpf.read(capture, "unixsock.len == 0 or unixsock.fds.count"))
    assert [one.number for one in found] == [2, 3]


def test_async(capture: Path) -> None:
    async def collect() -> list[bytes]:
        async with unixsock_bpf.read(capture) as messages:
            return [one.payload async for one in messages]

    assert asyncio.run(collect()) == PAYLOADS


def test_sync_inside_a_running_loop(capture: Path) -> None:
    async def collect() -> list[bytes]:
        return [one.payload for one in unixsock_bpf.read(capture)]

    assert asyncio.run(collect()) == PAYLOADS


def test_leaving_early_leaves_nothing_behind(capture: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with unixsock_bpf.read(capture) as messages:
        next(messages)
    assert list(messages) == []
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"hello", "neither a pcapng nor a pcap"), (b"", "empty")],
)
def test_bad_files(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(unixsock_bpf.MessagesError, match=said):
        list(unixsock_bpf.read(path))


def test_bad_display_filter(capture: Path) -> None:
    with pytest.raises(unixsock_bpf.MessagesError):
        list(unixsock_bpf.read(capture, "nonsense =="))


STARTS_A_CAPTURE = """\
import sys
sys.path.append({root!r})
from unixsock_bpf.api.message import MessagesError
from unixsock_bpf.api.sources import Live
try:
    Live(["--no-such-option"]).start()
except MessagesError as error:
    print(error)
"""


def test_a_capture_imports_nothing_from_where_its_program_does_not(tmp_path: Path) -> None:
    """A root program that is started in a folder of others, or with their PYTHONPATH."""
    here, named, program = tmp_path / "here", tmp_path / "named", tmp_path / "program" / "p.py"
    for folder in (here, named, program.parent):
        folder.mkdir()
    program.write_text(STARTS_A_CAPTURE.format(root=str(Path(__file__).resolve().parents[3])))
    for folder in (here, named):
        for name in ("argparse.py", "signal.py", "sitecustomize.py", "unixsock_bpf.py"):
            (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    done = subprocess.run(
        [sys.executable, "-I", program],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(named)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unrecognised argument '--no-such-option'" in done.stdout
    assert not (here / "ran").exists()
    assert not (named / "ran").exists()
