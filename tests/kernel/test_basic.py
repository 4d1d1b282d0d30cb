"""What the probe says of simple conversations: the fields, one by one."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from live import READY_TIMEOUT, Live

from unixsock_bpf.record import Event, Flag, Record, Role, SocketType

SERVER = "/run/unixsock-test.sock"


def data_of(records: list[Record], payload: bytes) -> Record:
    """The one data record with this payload."""
    (found,) = [r for r in records if r.event == Event.DATA and r.payload == payload]
    return found


@pytest.fixture(scope="module")
def conversation() -> list[Record]:
    """A client and a server in processes of their own, and datagrams of three kinds."""
    Path(SERVER).unlink(missing_ok=True)
    with Live() as live:
        before = time.time_ns()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SERVER)
        listener.listen()
        child = os.fork()
        if child == 0:
            server, _ = listener.accept()
            server.recv(100)
            server.send(b"the answer")
            server.recv(100)
            os._exit(0)
        client = socket.socket(socket.AF_UNIX)
        client.connect(SERVER)
        client.send(b"the question")
        assert client.recv(100) == b"the answer"
        client.send(b"thanks")
        os.waitpid(child, 0)
        client.close()

        named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        named.bind("\0unixsock test\0x")
        anonymous = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        anonymous.sendto(b"not connected", "\0unixsock test\0x")
        anonymous.sendto(b"", "\0unixsock test\0x")
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        left.send(b"in sequence")
        right.send(b"back")
        after = time.time_ns()
    listener.close()
    Path(SERVER).unlink()
    assert live.status == 0
    assert live.messages == ""
    assert all(before - 10**9 < p.time_ns < after + 10**9 for p in live.packets[-6:])
    live.records[0].unknown.append((0xFFFF, str(child).encode()))  # for the tests below
    return live.records


@pytest.fixture(scope="module")
def child(conversation: list[Record]) -> int:
    return int(conversation[0].unknown[-1][1])


def test_client_to_server(conversation: list[Record], child: int) -> None:
    r = data_of(conversation, b"the question")
    assert (r.src_pid, r.src_tid) == (os.getpid(), os.getpid())
    assert (r.src_uid, r.src_gid) == (os.getuid(), os.getgid())
    assert r.src_comm == Path("/proc/self/comm").read_bytes().strip()
    assert r.type == SocketType.STREAM
    assert (r.src_name, r.dst_name, r.name) == (b"", SERVER.encode(), SERVER.encode())
    assert r.role == Role.DST_IS_SERVER
    assert (r.seq, r.ack, r.message, r.len) == (0, 0, 0, len(b"the question"))
    assert r.flags & Flag.SRC_CREDS
    assert r.flags & Flag.FROM_START
    assert r.netns == os.stat("/proc/self/ns/net").st_ino
    # Before the server accepts, only who listened is known; afterwards who reads.
    assert r.dst_pid in (os.getpid(), child)
    assert data_of(conversation, b"thanks").dst_pid == child


def test_server_to_client(conversation: list[Record], child: int) -> None:
    question, r = data_of(conversation, b"the question"), data_of(conversation, b"the answer")
    assert (r.src_pid, r.dst_pid) == (child, os.getpid())
    assert (r.src_sock, r.dst_sock) == (question.dst_sock, question.src_sock)
    assert r.name == SERVER.encode()
    assert r.role == Role.SRC_IS_SERVER
    assert (r.seq, r.ack) == (0, len(b"the question"))
    thanks = data_of(conversation, b"thanks")
    assert (thanks.seq, thanks.ack, thanks.message) == (12, 10, 1)


def test_unconnected_datagram_has_its_real_receiver(conversation: list[Record]) -> None:
    r = data_of(conversation, b"not connected")
    assert r.type == SocketType.DGRAM
    assert r.dst_name == b"\0unixsock test\0x"
    assert r.dst_pid == os.getpid()
    assert r.src_inode
    assert r.dst_inode


def test_empty_datagram_is_a_message(conversation: list[Record]) -> None:
    (r,) = [r for r in conversation if r.event == Event.DATA and r.type == SocketType.DGRAM and not r.len]
    assert (r.message, r.seq) == (1, len(b"not connected"))


def test_seqpacket(conversation: list[Record]) -> None:
    r, back = data_of(conversation, b"in sequence"), data_of(conversation, b"back")
    assert r.type == SocketType.SEQPACKET
    assert (r.src_inode, r.dst_inode) == (back.dst_inode, back.src_inode)
    assert r.dst_pid == os.getpid()


def test_close_ends_a_stream_that_carried_data(conversation: list[Record]) -> None:
    question = data_of(conversation, b"the question")
    closed = {r.src_sock for r in conversation if r.event == Event.CLOSE}
    assert {question.src_sock, question.dst_sock} <= closed


def test_without_events_nothing_else_is_recorded(conversation: list[Record]) -> None:
    assert {r.event for r in conversation} == {Event.DATA, Event.CLOSE}


@pytest.mark.thorough
def test_two_captures_at_once_see_the_same() -> None:
    left, right = socket.socketpair()
    with Live() as one, Live() as other:
        left.send(b"said once")
        right.recv(100)
    for live in (one, other):
        data_of(live.records, b"said once")
        assert live.status == 0


def test_the_largest_datagram_arrives_whole() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    size = left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    with Live() as live:
        reader = threading.Thread(target=lambda: right.recv(1 << 20))
        reader.start()
        while True:
            payload = os.urandom(size)
            try:
                left.send(payload)
                break
            except OSError:
                size -= 16
        reader.join()
    assert size > 200_000
    assert data_of(live.records, payload).len == size


def test_a_filter_sees_sockets_that_talked_before_it_was_attached() -> None:
    # What the filter says of a name must not be decided before its tables are loaded.
    Path(SERVER).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(SERVER)
        done = threading.Event()

        def talk() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                while not done.wait(0.02):
                    client.sendto(b"all the time", SERVER)
                    server.recv(100)

        talker = threading.Thread(target=talk)
        talker.start()
        try:
            with Live(capture_filter=f"path {SERVER} or type dgram and path @nothing", ready=False) as live:
                deadline = time.monotonic() + READY_TIMEOUT
                while b"all the time" not in live._data:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            done.set()
            talker.join()
            Path(SERVER).unlink()
    assert {r.name for r in live.records} == {SERVER.encode()}
