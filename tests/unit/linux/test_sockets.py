"""The listing against sockets that the test makes."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from unixsock_bpf import filter as language
from unixsock_bpf.filter.sockets import select
from unixsock_bpf.linux import listed_sockets, sock_diag
from unixsock_bpf.linux.sockets import Socket, SocketsError, State, holders, owners, sockets


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
        return {one.inode: always for one, always in select(present, language.parse(text))}

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
        found = select(sockets(), language.parse(f"path '{tmp_path}/relative.sock'"))
    assert [entry.name for entry, _ in found] == [b"relative.sock"]


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOENT, "load its module unix_diag"), (errno.EPERM, "operation not permitted")],
)
def test_a_kernel_that_lists_nothing_is_told(number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -number)
    monkeypatch.setattr(sock_diag, "_pieces", lambda _: iter([answer]))
    with pytest.raises(SocketsError, match=said):
        sockets()


def test_the_same_sockets_as_ss_shows(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "a name"))
        server.listen(5)
        client.connect(str(tmp_path / "a name"))
        pair[0].send(b"seven b")
        mine = {inode(one) for one in (*pair, server, client)}
        said = subprocess.run(["ss", "-xanO"], capture_output=True, text=True, check=True).stdout
        listed = {one.inode: one for one in sockets()}
    # Type, state, queues, name (which may have spaces), inode, peer's name, peer's inode
    row = re.compile(r"u_(\w+) +(\w+) +(\d+) +(\d+) +(.*?) (\d+) +\S.*? (\d+) *$")
    rows = [found.groups() for found in map(row.match, said.splitlines()) if found]
    shown = {int(number): (*rest, int(peer)) for *rest, number, peer in rows}
    states = {State.ESTABLISHED: "ESTAB", State.LISTENING: "LISTEN", State.UNCONNECTED: "UNCONN"}
    for number in mine:
        one = listed[number]
        kind, state, receive, send, name, peer = shown[number]
        assert (kind, state, name.strip(), peer) == (
            "str",
            states[State(one.state)],
            one.name.decode() or "*",
            one.peer,
        )
        assert (int(receive), int(send)) == (one.receive_queue, one.send_queue)


def test_what_a_socket_costs_to_be_listed() -> None:
    """4,000 sockets take less processor time than a few starts of a bare interpreter beside it."""

    def used(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def listing() -> float:
        return min(used("-m", "unixsock_bpf", "sockets") for _ in range(3))

    count = 4000
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], count + 100), limits[1]))
    try:
        without = listing()
        with ExitStack() as stack:
            for _ in range(count // 2):
                for one in socket.socketpair():
                    stack.enter_context(one)
            bare = [used("-c", "")]
            more = listing() - without
            bare += [used("-c", ""), used("-c", "")]
        assert more < 10 * max(bare)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_other_network_namespaces_are_entered() -> None:
    talk = (
        "import os, socket; one = socket.socketpair(); "
        "print(os.fstat(one[0].fileno()).st_ino, os.stat('/proc/self/ns/net').st_ino, flush=True); input()"
    )
    child = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", talk],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    number, netns = map(int, child.stdout.readline().split())
    (found,) = [one for one in sockets() if one.inode == number]
    child.communicate("\n")
    assert netns != os.stat("/proc/self/ns/net").st_ino
    assert (found.netns, [owner.tgid for owner in found.owners]) == (netns, [child.pid])


HOSTILE = [
    b"\0a\nA B C D E F G H",
    b"\0\xff",
    b"\0a\n0: 0 0 0 0001 01 7 /run/docker.sock",
    b"\0\x1b[2J} {\x00",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_nothing_but_a_name(name: bytes) -> None:
    """Line feeds in an abstract name add no rows, and no name keeps the others from being listed."""
    before = {text for _, text in listed_sockets.choices()}
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(name)
        added = [choice for choice in listed_sockets.choices() if choice[1] not in before]
    assert len(added) == 1
    _, text = added[0]
    assert text.isprintable()
    assert text.startswith("@")
