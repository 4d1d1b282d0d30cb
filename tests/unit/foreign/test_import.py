"""Files that people have: sockdump's pcaps and strace's logs."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from unixsock_bpf.cli.long_work import LongWork
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import reader
from unixsock_bpf.record import Event, Flag, Record, Role, SocketType


def imported(source: Path, output: Path) -> list[Record]:
    assert main(["import", str(source), "-w", str(output)]) == 0
    return [one.record for one in reader.read(str(output))]


def sockdump(path: Path, messages: list[tuple[int, int, bytes]], name: bytes | None, cut: int = 0) -> Path:
    """A pcap as sockdump writes it: receiver's and sender's process, and the path in newer versions."""
    data = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 51200, 147)
    for number, (src, dst, payload) in enumerate(messages):
        head = struct.pack(">QQ", dst, src) if name is None else struct.pack(">109pQQ", name, dst, src)
        kept = head + payload[: len(payload) - cut]
        data += struct.pack("=IIII", 1_700_000_000 + number, 5, len(kept), len(head) + len(payload)) + kept
    path.write_bytes(data)
    return path


MESSAGES = [
    (10, 20, b"GET / HTTP/1.1\r\n\r\n"),
    (20, 10, b"HTTP/1.1 204 No Content\r\n\r\n"),
    (10, 20, b"more"),
]


@pytest.mark.parametrize("name", [None, b"/run/x.sock", b"", b"/" + b"y" * 107])
def test_both_headers_of_sockdump(name: bytes | None, tmp_path: Path) -> None:
    found = imported(sockdump(tmp_path / "a.pcap", MESSAGES, name), tmp_path / "a.pcapng")
    assert [(one.src_pid, one.dst_pid, one.payload) for one in found] == MESSAGES
    assert {one.name for one in found} == {name or b""}
    assert [(one.seq, one.ack, one.message) for one in found] == [(0, 0, 0), (0, 18, 0), (18, 27, 1)]
    # What it does not tell is unknown.
    assert {(one.type, one.role, one.src_inode, one.src_comm) for one in found} == {(0, Role.UNKNOWN, 0, b"")}
    assert not any(one.flags & (Flag.FROM_START | Flag.SRC_CREDS) for one in found)
    assert (found[0].src_sock, found[0].dst_sock) == (found[1].dst_sock, found[1].src_sock)


def test_what_sockdump_cut(tmp_path: Path) -> None:
    found = imported(sockdump(tmp_path / "a.pcap", MESSAGES, b"/x", cut=2), tmp_path / "a.pcapng")
    assert [(one.len, len(one.payload), one.flags) for one in found] == [
        (18, 16, Flag.TRUNCATED), (27, 25, Flag.TRUNCATED), (4, 2, Flag.TRUNCATED)
    ]  # fmt: skip
    assert next(one.time_ns for one in reader.read(str(tmp_path / "a.pcapng"))) == 1_700_000_000_000_005_000


TRAFFIC = """
import os, socket, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind("x.sock")
listener.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("x.sock")
server, _ = listener.accept()
client.sendall(b"ask\\n" * 3)
server.recv(5)
server.recv(500)
server.sendmsg([b"two ", b"parts"])
server.sendall(b"plain")
server.send(b"!")
client.recv(99)
client.sendall(b"z" * 3000)
server.recv(4000)
one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
one.send(b"seq")
two.recv(9)
bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
bound.bind("\\0abstract")
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.sendto(b"to it", "\\0abstract")
bound.recv(9)
thread = threading.Thread(target=server.recv, args=[9])
thread.start()
client.send(b"late")
thread.join()
client.shutdown(socket.SHUT_WR)
client.close()
server.close()
"""


def traced(tmp_path: Path, *options: str) -> Path:
    log = tmp_path / "a.strace"
    subprocess.run(
        ["strace", "-f", "-xx", "-yy", *options, "-o", str(log), sys.executable, "-S", "-c", TRAFFIC],
        cwd=tmp_path, check=True, timeout=120,
    )  # fmt: skip
    return log


def test_strace(tmp_path: Path) -> None:
    found = imported(traced(tmp_path, "-ttt", "-s", "1000"), tmp_path / "a.pcapng")
    data = [one for one in found if one.event == Event.DATA]
    stream = [one for one in data if one.name == b"x.sock"]
    assert [one.payload for one in stream] == [
        b"ask\n" * 3, b"two parts", b"plain", b"!", b"z" * 1000, b"late"
    ]  # fmt: skip
    assert [one.role for one in stream] == [
        Role.DST_IS_SERVER,
        *[Role.SRC_IS_SERVER] * 3,
        Role.DST_IS_SERVER,
        Role.DST_IS_SERVER,
    ]
    assert [(one.seq, one.len, one.type) for one in stream] == [
        (0, 12, SocketType.STREAM), (0, 9, SocketType.STREAM), (9, 5, SocketType.STREAM),
        (14, 1, SocketType.STREAM), (12, 3000, SocketType.STREAM),
        (3012, 4, SocketType.STREAM),
    ]  # fmt: skip
    assert stream[4].flags & Flag.TRUNCATED
    assert len({frozenset((one.src_inode, one.dst_inode)) for one in stream}) == 1
    assert [(one.payload, one.type) for one in data if not one.name] == [(b"seq", SocketType.SEQPACKET)]
    assert [(one.payload, one.type, one.src_sock != 0) for one in data if one.dst_name == b"\0abstract"] == [
        (b"to it", SocketType.DGRAM, True)
    ]
    ends = [(one.event, one.how) for one in found if one.event != Event.DATA]
    assert (Event.SHUTDOWN, 1) in ends
    assert (Event.CLOSE, None) in ends
    times = [one.time_ns for one in reader.read(str(tmp_path / "a.pcapng"))]
    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000_000_000


@pytest.mark.parametrize("options", [[], ["-t"], ["-tt"], ["-r"]])
def test_strace_with_other_times_or_none(options: list[str], tmp_path: Path) -> None:
    found = imported(traced(tmp_path, *options), tmp_path / "a.pcapng")
    assert b"two parts" in [one.payload for one in found]


def test_strace_of_one_side_only(tmp_path: Path) -> None:
    """The peer is not traced: what it sent is known from what we received."""
    log = tmp_path / "a"
    log.write_text(
        '77 1700000000.000001 write(3<UNIX-STREAM:[5->6]>, "\\x61\\x73\\x6b", 3) = 3\n'
        "77 1700000000.000002 read(3<UNIX-STREAM:[5->6]>,  <unfinished ...>\n"
        '78 1700000000.000003 write(1</dev/pts/0<char 136:0>>, "\\x61", 1) = 1\n'
        '77 1700000000.000004 <... read resumed>"\\x31\\x32"..., 100) = 9\n'
        "77 1700000000.000005 recvmsg(3<UNIX-STREAM:[5->6]>, {msg_name=NULL, msg_namelen=0, msg_iov="
        '[{iov_base="\\x33", iov_len=4}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, 0) = 1\n'
        '77 1700000000.000006 read(3<UNIX-STREAM:[5->6]>, "", 100) = 0\n'
        '77 1700000000.000007 write(3<UNIX-STREAM:[5->6]>, "\\x78", 1) = -1 EPIPE (Broken pipe)\n'
        '77 1700000000.000008 write(3<UNIX-STREAM:[5->6]>, "\\x61'
    )
    found = imported(log, tmp_path / "a.pcapng")
    assert [(one.src_inode, one.dst_inode, one.payload, one.len) for one in found] == [
        (5, 6, b"ask", 3), (6, 5, b"12", 9), (6, 5, b"3", 1)
    ]  # fmt: skip
    assert (found[0].src_pid, found[0].dst_pid, found[1].src_pid) == (77, 0, 0)


def test_several_messages_in_a_call(tmp_path: Path) -> None:
    log = tmp_path / "a"
    part = '{{msg_hdr={{msg_name=NULL, msg_iov=[{{iov_base="{}", iov_len=2}}], msg_iovlen=1}}, msg_len={}}}'
    three = ", ".join(
        part.format(text, size) for text, size in (("\\x61\\x62", 2), ("\\x63", 1), ("\\x64", 0))
    )
    log.write_text(
        f'7 1700000000.1 sendmmsg(3<UNIX-DGRAM:[5->6,"\\x2f">, [{three}], 3, 0) = 2\n'.replace('">', '"]>')
    )
    found = imported(log, tmp_path / "a.pcapng")
    assert [(one.payload, one.message, one.src_name) for one in found] == [(b"ab", 0, b"/"), (b"c", 1, b"/")]


def test_refusals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = sockdump(tmp_path / "whole", MESSAGES, b"/x").read_bytes()
    cases = {
        "empty": (b"", "neither a pcap of sockdump's nor a log of strace"),
        "other": (b"\0" * 500, "neither a pcap of sockdump's nor a log of strace"),
        "nothing": (b'77 read(3</etc/passwd>, "", 4) = 0\n', "it has no message of a Unix socket"),
        "foreign": (whole[:24] + struct.pack("=IIII", 1, 1, 30, 30) + b"\xff" * 30, "neither of the headers"),
        "cut": (whole[:-1], "is cut short; the 2 records before that were imported"),
    }
    for name, (data, sentence) in cases.items():
        (tmp_path / name).write_bytes(data)
        output = tmp_path / f"{name}.pcapng"
        assert main(["import", str(tmp_path / name), "-w", str(output)]) == 1
        err = capfd.readouterr().err
        assert re.fullmatch(rf"unixsock: cannot import .*{sentence}.*\n", err), err
        assert output.exists() == (name == "cut")
    assert len(list(reader.read(str(tmp_path / "cut.pcapng")))) == 2


def test_an_import_that_is_stopped_early_blames_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(work: LongWork, done: int, total: int) -> bool:
        work.stopped = True
        return True

    monkeypatch.setattr(LongWork, "show", stop)
    log = tmp_path / "a"
    log.write_text('77 write(3<UNIX-STREAM:[5->6]>, "\\x61", 1) = 1\n')
    assert main(["import", str(log), "-w", str(tmp_path / "a.pcapng")]) == 0
    assert "cannot import" not in capfd.readouterr().err


@pytest.mark.parametrize("number", ["9" * 10, "9" * 19, "9" * 25, "9" * 5000, "1x", "", "-1"])
def test_absurd_numbers(number: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each number of a log in turn: what comes of it fits into records, and the rest of the log is taken."""
    lines = [
        '77 1700000000.5 sendmsg(3<UNIX-STREAM:[5->6]>, {msg_iov=[{iov_base="\\x61", iov_len=1}]}, 0) = 1',
        '77 0.000100 sendmmsg(3<UNIX-STREAM:[5->6]>, [{msg_hdr={msg_iov=[{iov_base="\\x61", iov_len=1}]},'
        " msg_len=1}], 1, 0) = 1",
        '78 12:30:40.5 write(3<UNIX-STREAM:[5->6]>, "\\x61" <unfinished ...>',
        "78 <... write resumed>, 1) = 1",
        "77 12:30:40.5 close(3<UNIX-STREAM:[5->6]>) = 0",
    ]
    log = tmp_path / "a"
    for at, line in enumerate(lines):
        for found in re.finditer(r"(?<!x)\d+", line):
            odd = line[: found.start()] + number + line[found.end() :]
            log.write_text("\n".join([*lines[:at], odd, *lines[at + 1 :], *lines]) + "\n")
            assert len(imported(log, tmp_path / "a.pcapng")) >= 4
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "text", [b"\\x\\x6161", b"\\x6 1\\x61", b"\\xfg\\x61", b"\\x\xfc\xfc\\x61", b"\\x6161\\x"]
)
def test_text_that_is_not_only_escapes(text: bytes, tmp_path: Path) -> None:
    log = tmp_path / "a"
    log.write_bytes(
        b'77 write(3<UNIX-STREAM:[5->6]>, "%b", 9) = 9\n77 write(3<UNIX-STREAM:[5->6]>, "a", 1) = 1\n' % text
    )
    assert imported(log, tmp_path / "a.pcapng")[-1].payload == b"a"


def test_hostile_logs_take_linear_time(tmp_path: Path) -> None:
    line = b'1 write(3<UNIX-STREAM:[5->6]>, "'
    log = tmp_path / "a"
    hostile = [
        line + b'\\x"' * 300_000,
        line + b"\\x61" * 300_000,
        b"1 write((((" * 50_000 + b"UNIX",
        line + b'\\x61", 1) = 1',
        b"1 sendmsg(3<UNIX-STREAM:[5->6]>, " + b'iov_base="' * 50_000 + b") = 1",
    ]
    log.write_bytes(b"\n".join(hostile) + b"\n")
    assert imported(log, tmp_path / "a.pcapng")[0].payload == b"a"
