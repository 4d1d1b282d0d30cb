"""``unixsock sockets`` on sockets that the test makes: who has a file, who waits, and counts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import soon

from unixsock_bpf.cli.main import main
from unixsock_bpf.filter import parse
from unixsock_bpf.filter.near import bound_otherwise, near
from unixsock_bpf.filter.sockets import select
from unixsock_bpf.linux import sock_diag, socket_files
from unixsock_bpf.linux.blocked import blocked
from unixsock_bpf.linux.sockets import Socket, sockets


@pytest.fixture
def made() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def make(made: contextlib.ExitStack, kind: int = socket.SOCK_STREAM) -> socket.socket:
    return made.enter_context(socket.socket(socket.AF_UNIX, kind))


def listener(made: contextlib.ExitStack, path: Path | str, backlog: int = 5) -> socket.socket:
    one = make(made)
    one.bind(str(path))
    one.listen(backlog)
    return one


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["sockets", "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def said(capsys: pytest.CaptureFixture[str], text: str) -> tuple[int, str]:
    status = main(["check", "--filter", text])
    return status, capsys.readouterr().out


def test_a_renamed_socket_is_found_by_its_file(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = listener(made, tmp_path / "admin.sock.7.tmp")
    (tmp_path / "admin.sock.7.tmp").rename(tmp_path / "admin.sock")
    (found,) = shown(capsys, str(tmp_path / "admin.sock"))
    assert (found["inode"], found["path"]) == (inode(one), str(tmp_path / "admin.sock"))
    assert found["name"] == str(tmp_path / "admin.sock.7.tmp")
    assert "stale" not in found
    main(["sockets", str(tmp_path / "admin.sock")])
    assert f"{tmp_path}/admin.sock (bound as {tmp_path}/admin.sock.7.tmp)" in capsys.readouterr().out
    status, text = said(capsys, str(tmp_path / "admin.sock"))
    assert status == 0
    assert f"{tmp_path}/admin.sock is the file of the socket bound as {tmp_path}/admin.sock.7.tmp" in text


def test_links_to_a_socket_find_it(made: contextlib.ExitStack, tmp_path: Path) -> None:
    one = listener(made, tmp_path / "bound")
    os.link(tmp_path / "bound", tmp_path / "hard")
    time.sleep(0.06)  # an older list may serve
    (tmp_path / "soft").symlink_to("bound")
    for name in ("hard", "soft", "bound"):
        wanted = parse(str(tmp_path / name))
        found = [entry.inode for entry, _ in select(sockets(), wanted)]
        assert found == [inode(one)]
    assert bound_otherwise(parse(str(tmp_path / "bound"))) == []


def test_of_two_listeners_of_a_name_one_is_stale(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socket"
    first = listener(made, path)
    path.unlink()
    second = listener(made, path)
    found = {one["inode"]: one for one in shown(capsys, str(path))}
    assert found[inode(first)]["stale"]
    assert "stale" not in found[inode(second)]
    path.unlink()
    assert all(one["stale"] for one in shown(capsys, str(path)))


def test_a_file_system_that_never_answers_delays_nothing(
    made: contextlib.ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener(made, tmp_path / "x")
    monkeypatch.setattr(socket_files, "_place", lambda one: time.sleep(3600))
    monkeypatch.setattr(socket_files, "_TIMEOUT_S", 0.1)
    (one,) = [one for one in sockets() if one.name == os.fsencode(tmp_path / "x")]
    assert socket_files.Places([one]).of(one) == socket_files.Place()


def test_what_was_not_accepted_is_listed_at_both_ends(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, client = listener(made, tmp_path / "x"), make(made)
    client.connect(str(tmp_path / "x"))
    client.send(b"never read")
    by_state = {one["state"]: one for one in shown(capsys, str(tmp_path / "x"))}
    assert by_state["listening"]["receive_queue"] == 1
    waiting = by_state["waiting"]
    assert (waiting["inode"], waiting["peer"]["inode"]) == (None, inode(client))
    assert waiting["peer"]["processes"][0]["pid"] == os.getpid()
    assert by_state["established"]["send_queue"] > 0
    assert by_state["established"]["peer"]["name"] == str(tmp_path / "x")
    main(["sockets", str(tmp_path / "x")])
    assert capsys.readouterr().out.count("not accepted") == 2
    made.enter_context(server.accept()[0])
    states = sorted(one["state"] for one in shown(capsys, str(tmp_path / "x")))
    assert states == ["established", "established", "listening"]


def test_descriptor_numbers_of_each_process(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = listener(made, tmp_path / "x")
    again = made.enter_context(one.dup())
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[one.fileno()]) as child:
        (found,) = shown(capsys, str(tmp_path / "x"))
        child.communicate(b"\n")
    by_pid = {holder["pid"]: holder["fds"] for holder in found["processes"]}
    assert by_pid == {os.getpid(): sorted((one.fileno(), again.fileno())), child.pid: [one.fileno()]}


@contextlib.contextmanager
def children(*works: Callable[[], object]) -> Iterator[list[int]]:
    """Fork processes that wait in ``works``, once they do; kill them in the end."""
    pids = []
    try:
        for work in works:
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    work()
                os._exit(0)
            pids.append(pid)
        deadline = time.monotonic() + soon(10)
        while {one.owner.tgid for one in blocked(sockets())} & set(pids) != set(pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def forever(work: Callable[[], object]) -> Callable[[], object]:
    def again() -> None:
        while True:
            work()

    return again


def test_who_waits_for_room_in_whose_queue(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, crowd = str(tmp_path / "full"), str(tmp_path / "crowd")
    server = listener(made, full, 0)
    make(made).connect(full)
    make_client, pair = make(made), socket.socketpair()
    for one in pair:
        made.enter_context(one)
    receiver, sender, connected = (make(made, socket.SOCK_DGRAM) for _ in range(3))
    receiver.bind(crowd)
    connected.connect(crowd)
    works = (
        lambda: make_client.connect(full),
        forever(lambda: pair[0].send(bytes(1000))),
        forever(lambda: sender.sendto(b"x", crowd)),
        forever(lambda: sender.sendmsg([b"x"], [], 0, crowd)),
        forever(lambda: connected.send(b"x")),
    )
    with children(*works) as pids:
        found = {one["pid"]: one for one in shown(capsys, "--waiting")}
        main(["sockets", "--waiting", crowd])
        table = capsys.readouterr().out
    connecting, stream, to, message, again = (found[pid] for pid in pids)
    assert (connecting["waits_to"], connecting["name"]) == ("connect", full)
    assert (connecting["queue"]["inode"], connecting["queue"]["queued"]) == (inode(server), 1)
    assert connecting["queue"]["limit"] == 0
    assert (stream["waits_to"], stream["queue"]["inode"]) == ("send", inode(pair[1]))
    assert stream["queue"]["queued"] > 0
    for one in (to, message, again):
        assert (one["waits_to"], one["name"], one["queue"]["inode"]) == ("send", crowd, inode(receiver))
    assert len(table.splitlines()) == 4
    assert str(pids[0]) not in table


def test_counts_by_process_and_path(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "bus")
    server = listener(made, path, 100)
    for _ in range(7):
        make(made).connect(path)
        made.enter_context(server.accept()[0])
    (group,) = shown(capsys, path, "--group-by", "process,path")
    assert (group["count"], group["path"]) == (15, path)
    assert group["process"].endswith(f"[{os.getpid()}]")
    main(["sockets", path, "--group-by", "user"])
    assert capsys.readouterr().out.split() == ["COUNT", "RECV-Q", "USER", "15", "0", "root"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--group-by", "colour"],
        ["--group-by", ""],
        ["--group-by", "path,path"],
        ["--watch", "0"],
        ["--watch", "x"],
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sockets", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_watch_shows_changes_until_it_is_ended(made: contextlib.ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "watched")
    command = [sys.executable, "-m", "unixsock_bpf", "sockets", path, "--group-by", "path", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline().startswith("COUNT")
        listener(made, path)
        while "1 " not in child.stdout.readline():
            pass
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        assert child.wait(soon(10)) == 0


def test_what_is_near_a_path_that_no_socket_has(
    made: contextlib.ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener(made, tmp_path / "here.sock.1")
    make(made).bind(str(tmp_path / "left"))
    left = make(made)
    left.bind(str(tmp_path / "dead"))
    left.close()
    made.enter_context(socket.socket(socket.AF_UNIX)).bind("\0unixsock-near")
    (tmp_path / "sub").mkdir()
    expected = {
        f"{tmp_path}/here.sock": f"there is no file {tmp_path}/here.sock; near: {tmp_path}/here.sock.1",
        f"{tmp_path}/dead": f"no socket of this network namespace has the file {tmp_path}/dead",
        f"{tmp_path}/sub": f"{tmp_path}/sub is a directory, not a socket",
        "/etc/passwd": "/etc/passwd is a regular file, not a socket",
        "@unixsock-nea": "no present socket has the abstract name @unixsock-nea; near: @unixsock-near",
        f"path '{tmp_path}/h*'": "within quotes or behind a \\, * and ? are ordinary characters",
        f"{tmp_path}/nothing*": f"no present socket has a name like {tmp_path}/nothing*",
        f"not path {tmp_path}/here.sock and type seqpacket and pid 4194304": None,
        f"{tmp_path}/sub/\x1b[2J\n".replace("\n", "\\n"): "there is no file",
    }
    for text, sentence in expected.items():
        status, out = said(capsys, text)
        assert status == 1
        first, *rest = out.splitlines()
        assert first.startswith("0 of ")
        assert len(rest) == (sentence is not None)
        assert sentence is None or sentence in rest[0]
        assert out.replace("\n", "").isprintable()
    assert near(parse(f"{tmp_path}/here.sock.1"), sock_diag.listed()) == []
    assert near(parse("path *"), []) == []


def test_a_listeners_clients_and_a_file_are_told() -> None:
    """Attributes that ss(8) does not ask for, as linux/unix_diag.h has them."""
    body = struct.pack("=BBBBIII", 1, 1, 10, 0, 77, 7, 8)
    body += struct.pack("=HHII", 12, 1, 4711, 8 << 20 | 3)
    body += struct.pack("=HHII", 12, 3, 5, 0)
    (one,), _ = sock_diag.entries(struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body)
    assert (one.file, one.device, one.waiting) == (4711, os.makedev(8, 3), (5, 0))


def test_the_listings_types_agree() -> None:
    """A Socket has what an Entry has, between its own."""
    assert set(sock_diag.Entry._fields) < set(Socket._fields)
