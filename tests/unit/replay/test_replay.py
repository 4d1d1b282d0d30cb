"""A recorded server answers real clients: curl, redis-cli and chronyc."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dissector.captures import conversation, write

from unixsock_bpf.cli.main import main
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.record import SocketType
from unixsock_bpf.replay.server import Script, Turn, adapted, dialogues

ROOT = Path(__file__).parents[3]
CAPTURES = ROOT / "tests/dissector/captures"


@contextmanager
def replayed(capture: Path, path: Path | str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work; it has to end in order."""
    command = [sys.executable, "-m", "unixsock_bpf", "replay", str(capture), str(path), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stderr is not None
        try:
            while b"answering at" not in (line := process.stderr.readline()):
                assert line, "the server has ended"
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    assert process.returncode == 0
    assert b"answers sent" in rest


def test_curl(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with replayed(CAPTURES / "docker.pcapng", path):
        assert path.stat().st_mode & 0o777 == 0o600
        command = ["curl", "-s", "--max-time", "60", "--unix-socket", str(path)]
        agent = ["-A", "Docker-Client/20.10.24+dfsg1 (linux)", "-H", "Accept:"]
        for _ in range(2):
            done = subprocess.run(
                [*command, *agent, "http://docker/v1.41/version"], capture_output=True, check=True
            )
            assert b'"Version":"20.10.24' in done.stdout
        # Another request gets the answer of the first one of a recorded conversation.
        done = subprocess.run([*command, "-I", "http://other/"], capture_output=True, check=True)
        assert b"Api-Version: 1.41" in done.stdout
    assert not path.exists()


def test_redis_cli(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with replayed(CAPTURES / "redis.pcapng", path):
        command = ["redis-cli", "-s", str(path), "set", "greeting", "hello world"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert done.stdout == b"OK\n"


def chronyc() -> str:
    """The program, which is unpacked and not installed."""
    found = shutil.which("chronyc", path=f"{ROOT}/.cache/tools/usr/bin:{os.environ['PATH']}")
    assert found
    return found


def test_chronyc(tmp_path: Path) -> None:
    """Its requests have random sequence numbers, which the answers have to repeat."""
    path = tmp_path / "chronyd.sock"
    with replayed(CAPTURES / "chrony.pcapng", path):
        done = subprocess.run(
            [chronyc(), "-h", str(path), "-n", "tracking"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert "Stratum" in done.stdout, done


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_greeting_order_and_repeats(kind: socket.SocketKind, tmp_path: Path) -> None:
    turns = [(False, b"hello"), (True, b"ask"), (False, b"1"), (False, b"2"), (True, b"ask"), (False, b"3")]
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", turns, SocketType(kind)))
    path = tmp_path / "x.sock"
    with replayed(capture, path), socket.socket(socket.AF_UNIX, kind) as client:
        client.settimeout(60)
        client.connect(str(path))

        def answer(size: int) -> bytes:
            data = b""
            while len(data) < size:
                data += client.recv(size)
            return data

        assert answer(5) == b"hello"
        for expected in (b"12", b"3", b"12"):
            client.sendall(b"ask")
            assert answer(len(expected)) == expected


def test_requests_in_pieces_and_others(tmp_path: Path) -> None:
    turns = [(True, b"request one"), (False, b"ONE"), (True, b"request two, longer"), (False, b"TWO")]
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", turns))
    path = tmp_path / "x.sock"
    with replayed(capture, path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"reques")
        client.sendall(b"t one")
        assert client.recv(3) == b"ONE"
        client.sendall(b"short")  # it answers once nothing more comes
        assert client.recv(3) == b"TWO"


def test_match_bytes_answers_nothing_else(tmp_path: Path) -> None:
    capture = write(
        tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"ask"), (False, b"1")], SocketType.SEQPACKET)
    )
    path = tmp_path / "x.sock"
    with (
        replayed(capture, path, "--match", "bytes"),
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        client.settimeout(60)
        client.connect(str(path))
        client.send(b"other")
        client.send(b"ask")
        assert client.recv(9) == b"1"


def test_equal_exchanges_keep_their_places(tmp_path: Path) -> None:
    """After the second ping, what is next in order is what was said after that one."""
    ping = [(True, b"ping"), (False, b"pong")]
    turns = [*ping, (True, b"first"), (False, b"1"), *ping, (True, b"other"), (False, b"2")]
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", turns))
    recorded, _, _ = dialogues(SavedCapture(str(capture)), "/run/x", None)
    turn = Turn(Script(recorded), "any")
    assert [turn.message(request) for request in (b"ping", b"ping", b"unknown")] == [
        [b"pong"],
        [b"pong"],
        [b"2"],
    ]


def test_long_messages_take_linear_time(tmp_path: Path) -> None:
    upload = [(True, b"x" * 50_000)] * 2000
    turns = [*upload, (False, b"done")]
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", turns))
    began = time.process_time()
    ((dialogue,), _, _) = dialogues(SavedCapture(str(capture)), "/run/x", None)
    took = time.process_time() - began
    assert [len(one.request) for one in dialogue.exchanges] == [100_000_000]
    began = time.process_time()
    assert len(b"".join([b"x" * 50_000] * 2000)) == 100_000_000
    assert took < 1 + 40 * (time.process_time() - began)  # a copy for each piece takes 1000 times as long
    recorded, request = os.urandom(1 << 20), os.urandom(1 << 20)
    assert adapted(bytes(1 << 20), recorded, request) == bytes(1 << 20)


def test_answers_repeat_random_words_of_requests() -> None:
    recorded, request = b"ping\x9a\x01\xfe\x77\0\0\0\1", b"ping\x11\x22\x33\x44\0\0\0\2"
    assert adapted(b"pong\0\0\0\1\x9a\x01\xfe\x77", recorded, request) == b"pong\0\0\0\1\x11\x22\x33\x44"
    assert adapted(b"same", b"other length", b"x") == b"same"


def test_refusals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    two = conversation(b"/run/a", [(True, b"x")]) + [
        one.__class__(
            **{**one.__dict__, "src_sock": 77, "dst_sock": 78, "dst_name": b"/run/b", "src_name": b""}
        )
        for one in conversation(b"/run/b", [(True, b"y")], close=False)
    ]
    write(tmp_path / "two.pcapng", two)
    write(tmp_path / "one.pcapng", conversation(b"/run/a", [(True, b"x")]))
    (tmp_path / "file").write_text("precious")
    cases = [
        (["two.pcapng", "x"], r"the capture has several servers \(/run/a, /run/b\): choose one with --name"),
        (["two.pcapng", "x", "--name", "/run/c"], "there is no message of /run/c in the capture"),
        (["one.pcapng", "file"], "cannot listen at .*file: address already in use"),
        (["one.pcapng", "no/such/folder"], "cannot listen at .*: no such file or directory"),
        (["none", "x"], "cannot read .*: no such file or directory"),
    ]
    for (capture, path, *more), sentence in cases:
        assert main(["replay", str(tmp_path / capture), str(tmp_path / path), *more]) == 1
        err = capfd.readouterr().err
        assert re.fullmatch(f"unixsock: {sentence}\n", err), err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_socket_that_nobody_listens_at_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    capture = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"ask"), (False, b"1")]))
    with replayed(capture, path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"ask")
        assert client.recv(1) == b"1"
