"""What /proc tells of a record's processes: right, or not there."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from unixsock_bpf import record
from unixsock_bpf.capture import process_details
from unixsock_bpf.capture.process_details import ProcessDetails
from unixsock_bpf.formats import pcapng
from unixsock_bpf.linux.passed_sockets import PassedSockets
from unixsock_bpf.record import Fd, FdKind, Flag, Record

CODE = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is stopped."""
    command = [sys.executable, "-c", CODE, "a b", ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()  # it has its own name by now
        yield started
        assert started.stdin
        started.stdin.close()


def comm(pid: int) -> bytes:
    return Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")[:15]


def between(src: int, dst: int = 0, **fields: object) -> Record:
    known = {
        "src_pid": src, "src_comm": comm(src), "src_uid": os.getuid(), "dst_pid": dst,
        "flags": Flag.SRC_CREDS, "payload": b"12345", "len": 5,
    } | ({"dst_comm": comm(dst)} if dst else {})  # fmt: skip
    return Record(**(known | fields))  # type: ignore[arg-type]


def added(one: Record, details: ProcessDetails | None = None, time_ns: int = 0) -> Record:
    block = pcapng.packet(time_ns or time.time_ns(), record.encode(one))
    (changed,) = (details or ProcessDetails()).added([block])
    assert len(changed) % 4 == 0
    assert changed[4:8] == changed[-4:] == struct.pack("<I", len(changed))
    packet = pcapng.packet_of(changed)
    assert packet.time_ns == pcapng.time_of(block)
    return record.decode(packet.data)


def test_both_ends(process: subprocess.Popen[bytes]) -> None:
    before = between(process.pid, os.getpid(), dst_uid=1 << 31, flags=Flag.SRC_CREDS | Flag.DST_CREDS)
    after = added(before)
    exe = os.readlink("/proc/self/exe").encode()
    assert (after.src_exe, after.dst_exe) == (exe, exe)
    assert after.src_cmdline.split(b"\0")[1:] == [
        b"-c",
        CODE.encode(),
        b"a b",
    ]  # empty ones at the end are cut
    assert (after.src_parent, after.dst_parent) == (os.getpid(), os.getppid())
    assert (after.src_user, after.dst_user) == (pwd.getpwuid(os.getuid()).pw_name.encode(), b"")
    for name in ("exe", "cmdline", "user", "parent"):
        for side in ("src", "dst"):
            after = replace(after, **{f"{side}_{name}": getattr(before, f"{side}_{name}")})
    assert after == before


def test_what_may_be_another_process_is_not_known(process: subprocess.Popen[bytes]) -> None:
    """It has another name, or began after the record."""
    pid, name = process.pid, comm(process.pid)
    assert added(between(pid)).src_exe
    for other in (replace(between(pid), src_comm=b"other"), replace(between(pid), src_comm=b"")):
        assert (added(other).src_exe, added(other).src_parent) == (b"", None)
    assert added(replace(between(pid), src_comm=name), time_ns=time.time_ns() - 10**12).src_exe == b""


def test_a_process_that_has_ended_is_known_if_it_was_seen(process: subprocess.Popen[bytes]) -> None:
    details = ProcessDetails()
    seen = between(process.pid)
    unseen = replace(seen, src_uid=1 << 31)
    assert added(seen, details).src_exe
    assert process.stdin
    process.stdin.close()
    process.wait()
    assert added(seen, details).src_exe
    assert added(unseen).src_exe == added(unseen).src_user == b""
    assert added(unseen).src_parent is None


def test_unknown_processes_and_users_have_nothing() -> None:
    one = Record(payload=b"x", len=1)
    assert added(one) == one


def test_names_and_other_blocks_pass() -> None:
    blocks = [pcapng.names([(1, "x")]), pcapng.statistics(1, 2, 3), b"\x06\0\0\0" + bytes(8)]
    assert ProcessDetails().added(blocks) == blocks


def test_users_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"root:x:0:0\n# nothing\n::\nlong\nada:x:1000:7:Ada:/:/bin/sh\nsame:x:1000:7\nbad:x:-1:0\n"
    (tmp_path / "passwd").write_bytes(lines)
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *mode: real(tmp_path / "passwd", *mode))
    assert process_details._users() == {0: b"root", 1000: b"ada"}


def test_blocks_of_processes_come_before_their_first_record(process: subprocess.Popen[bytes]) -> None:
    """Once each, as pcapng's draft has them."""
    details = ProcessDetails(blocks=True)
    one = pcapng.packet(time.time_ns(), record.encode(between(process.pid, os.getpid())))
    blocks = details.added([one, one])
    assert [struct.unpack_from("<I", block)[0] for block in blocks] == [0xBAD, 0xBAD, 6, 6]
    _, body = next(pcapng.blocks(bytes(blocks[0])))
    assert struct.unpack_from("<IIII", body) == (32622, 3, len(body) - 12, process.pid)
    options, at = {}, 16
    while (code := struct.unpack_from("<HH", body, at))[0]:
        options[code[0]] = bytes(body[at + 4 : at + 4 + code[1]])
        at += 4 + code[1] + -code[1] % 4
    assert options == {
        2: comm(process.pid),
        3: os.readlink("/proc/self/exe").encode(),
        4: Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0"),
        5: struct.pack("<I", os.getpid()),
        6: struct.pack("<I", os.getuid()),
        7: pwd.getpwuid(os.getuid()).pw_name.encode(),
    }


def test_passed_sockets_have_their_protocol_addresses_and_state(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as netlink,
        socket.socket(socket.AF_UNIX) as named,
    ):
        udp.bind(("127.0.0.1", 0))
        netlink.bind((0, 0))
        named.bind(str(tmp_path / "a b"))
        named.listen()
        port, other, third = (one.getsockname()[1] for one in (listening, client, udp))
        sockets = [listening, client, udp, netlink, named]
        fds = [Fd(FdKind.SOCKET, os.fstat(one.fileno()).st_ino) for one in sockets]
        others = [Fd(FdKind.FILE, fds[0].inode, b"/f"), Fd(FdKind.SOCKET, 1), Fd(FdKind.FILE, fds[0].inode)]
        after = added(between(os.getpid(), fds=[*fds, *others], fds_count=8))
    assert [one.path.decode() for one in after.fds[:5]] == [
        f"TCP 127.0.0.1:{port} listening",
        f"TCP 127.0.0.1:{other} to 127.0.0.1:{port} established",
        f"UDP 127.0.0.1:{third} unconnected",
        "netlink generic",
        f"unix stream {tmp_path}/a b listening",
    ]
    assert after.fds[5:] == others
    assert [one.inode for one in after.fds[:5]] == [one.inode for one in fds]
    assert after.payload == b"12345"


def test_addresses_of_version_6(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "0" * 32
    lines = (
        "  sl  local_address\n"
        f"   0: {nowhere[8:]}01000000:1F90 {nowhere}:0000 0A 0:0 0:0 0 0 0 77 1\n"
        "   1: cut\n"
    ).encode()
    if sys.byteorder == "big":
        lines = lines.replace(b"01000000:", b"00000001:")
    monkeypatch.setattr(
        "unixsock_bpf.linux.procfs.read", lambda pid, name, most: lines if name == "net/tcp6" else b""
    )
    assert PassedSockets().describe(1, 77) == "TCP [::1]:8080 listening"
    assert PassedSockets().describe(1, 78) == ""
