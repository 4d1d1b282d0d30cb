"""The listing against sockets that the test makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unixsock_bpf import filter as language
from unixsock_bpf.sockets import Socket, SocketsError, State, chosen, holders, owners, sockets


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def find(one: socket.socket) -> Socket:
    (found,) = [entry for entry in sockets() if entry.inode == inode(one)]
    return found


def test_owner_is_this_process(pair: tuple[socket.socket, socket.socket]) -> None:
    owner = owners()[inode(pair[0])]
    assert (owner.tgid, owner.uid, owner.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert owner.comm == Path("/proc/self/comm").read_bytes()[:-1]


def test_the_youngest_holder_comes_first(pair: tuple[socket.socket, socket.socket]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[pair[0].fileno()]
    )
    try:
        held = holders()[inode(pair[0])]
        assert [owner.tgid for owner in held] == [child.pid, os.getpid()]
        assert owners()[inode(pair[0])].tgid == child.pid
        assert owners()[inode(pair[1])].tgid == os.getpid()
    finally:
        child.communicate(b"\n")


def test_both_ends_queues_and_state(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(b"seven b")
    one = find(pair[1])
    assert (one.peer, one.receive_queue, one.state, one.type) == (
        inode(pair[0]),
        7,
        State.ESTABLISHED,
        socket.SOCK_STREAM,
    )


@pytest.mark.parametrize(
    "name", [b"\0unixsock \0 test \xff", b"unixsock-relative\xc3\xbc", b"/tmp/unixsock-test \xfe"]
)
def test_names_are_as_bound(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.bind(name)
        if not name.startswith(b"\0"):
            os.unlink(name)
        one.listen(3)
        found = find(one)
    assert found.name == name
    assert found.state == State.LISTENING
    assert found.send_queue == 3


def test_filter_chooses(pair: tuple[socket.socket, socket.socket]) -> None:
    present = sockets()

    def inodes(text: str) -> dict[int, bool]:
        return {one.inode: always for one, always in chosen(present, language.parse(text))}

    mine = {inode(pair[0]), inode(pair[1])}
    assert mine <= set(inodes(""))
    assert mine <= set(inodes(f"pid {os.getpid()} and type stream"))
    assert not mine & set(inodes("type dgram"))
    assert set(inodes(f"inode {inode(pair[0])}")) == mine  # either side
    assert not inodes(f"inode {inode(pair[0])} and greater 5")[inode(pair[0])]  # depends on the message
    assert inodes(f"inode {inode(pair[0])}")[inode(pair[0])]


def test_a_relative_name_matches_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind("relative.sock")
        found = chosen(sockets(), language.parse(f"path '{tmp_path}/relative.sock'"))
    assert [entry.name for entry, _ in found] == [b"relative.sock"]


def test_a_kernel_without_unix_diag_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's answer for a family that it has no listing of."""
    from pyroute2.netlink import diag

    asked = diag.DiagSocket.nlm_request

    def of_another_family(self: diag.DiagSocket, request: dict[str, int], *rest: int) -> object:
        request["sdiag_family"] = socket.AF_APPLETALK
        return asked(self, request, *rest)

    monkeypatch.setattr(diag.DiagSocket, "nlm_request", of_another_family)
    with pytest.raises(SocketsError, match="unix_diag"):
        sockets()
