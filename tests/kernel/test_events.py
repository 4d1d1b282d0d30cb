"""Life cycle: with --events, where connections begin and end, and sends that failed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from live import Live
from old_kernel_shim import NEWER, OLDER

from unixsock_bpf.probe.btf import Btf
from unixsock_bpf.record import Event, Flag, Record, Role

NAME = "\0unixsock-test-events"
NAME_BYTES = NAME.encode()


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


class Said:
    """What was captured, and the sockets it is about."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.inodes: dict[str, int] = {}

    def of(self, *names: str) -> list[Record]:
        """Records whose source is one of these sockets."""
        wanted = {self.inodes[name] for name in names}
        return [r for r in self.records if r.src_inode in wanted]

    def only(self, name: str, event: Event) -> Record:
        (found,) = [r for r in self.of(name) if r.event == event]
        return found


def refused(number: int) -> AbstractContextManager[object]:
    return pytest.raises(OSError, match=os.strerror(number))


def _newer_functions() -> set[str]:
    """What this kernel has of the functions that ``older`` hides.  All are hooked by kprobes or sessions."""
    btf = Btf()
    return {name for name in NEWER if btf.has_function(name)}


def _newer_hooks() -> set[str]:
    kprobes = Path("/sys/kernel/debug/kprobes/list").read_text()
    sessions = Path("/sys/kernel/tracing/enabled_functions").read_text()
    return {name for name in NEWER if f" {name}+0x" in kprobes or f"\n{name} " in f"\n{sessions}"}


@pytest.fixture(scope="module", params=[None, OLDER], ids=["as-it-is", "older-hooks"])
def said(request: pytest.FixtureRequest) -> Said:
    said = Said()
    with Live("--events", through=request.param) as live:
        assert _newer_hooks() == (set() if request.param else _newer_functions())
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(NAME)
        listener.listen()
        client = socket.socket(socket.AF_UNIX)
        client.connect(NAME)
        server, _ = listener.accept()
        said.inodes |= {"listener": inode(listener), "client": inode(client), "server": inode(server)}
        socket.send_fds(client, [b"a question"], [0])
        server.recv(100)
        client.shutdown(socket.SHUT_WR)
        server.send(b"the answer")
        client.recv(100)
        with refused(errno.EPIPE):
            client.send(b"too late", socket.MSG_NOSIGNAL)
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        client.close()
        listener.close()

        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said.inodes |= {"left": inode(left), "right": inode(right)}
        left.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                left.send(bytes(1000))
        right.shutdown(socket.SHUT_RD)
        left.close()
        right.close()

        lonely = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        said.inodes["lonely"] = inode(lonely)
        with refused(errno.ECONNREFUSED):
            lonely.sendto(b"hello?", "\0unixsock-test-nobody")
        with refused(errno.ENOTCONN):
            lonely.send(b"hello?")
        lonely.close()
    assert (live.status, live.messages) == (0, "")
    said.records = live.records
    return said


def test_connect_is_the_first_of_a_conversation(said: Said) -> None:
    # The accepted socket has no inode yet, but an identity that stays.
    first, *_ = said.of("client")
    assert (first.event, first.type, first.dst_name, first.role) == (
        *(Event.CONNECT, socket.SOCK_STREAM, NAME_BYTES),
        Role.DST_IS_SERVER,
    )
    assert not first.flags & Flag.SOCKETPAIR
    assert first.src_pid == os.getpid()
    assert first.dst_sock == said.only("server", Event.ACCEPT).src_sock


def test_accept(said: Said) -> None:
    accept = said.only("server", Event.ACCEPT)
    assert (accept.src_name, accept.role) == (NAME_BYTES, Role.SRC_IS_SERVER)
    assert accept.dst_inode == said.inodes["client"]


def test_the_order_of_a_conversation(said: Said) -> None:
    got = [(r.src_inode == said.inodes["client"], Event(r.event)) for r in said.of("client", "server")]
    client, server = True, False
    assert got == [
        (client, Event.CONNECT),
        (server, Event.ACCEPT),
        (client, Event.DATA),
        (client, Event.SHUTDOWN),
        (server, Event.DATA),
        (client, Event.SEND_ERROR),
        (server, Event.SHUTDOWN),
        (server, Event.CLOSE),
        (client, Event.CLOSE),
    ]


def test_shutdown_says_which_direction(said: Said) -> None:
    assert said.only("client", Event.SHUTDOWN).how == socket.SHUT_WR
    assert said.only("server", Event.SHUTDOWN).how == socket.SHUT_RDWR
    assert said.only("right", Event.SHUTDOWN).how == socket.SHUT_RD


def test_descriptors_come_with_their_message(said: Said) -> None:
    assert [len(r.fds) for r in said.of("client") if r.event == Event.DATA] == [1]


def test_positions_go_on_through_events(said: Said) -> None:
    error = said.only("client", Event.SEND_ERROR)
    assert (error.seq, error.ack) == (len(b"a question"), len(b"the answer"))
    close = said.only("server", Event.CLOSE)
    assert (close.seq, close.ack) == (len(b"the answer"), len(b"a question"))


def test_failed_sends_have_their_errno_and_no_data(said: Said) -> None:
    assert said.only("client", Event.SEND_ERROR).errno == errno.EPIPE
    assert said.only("left", Event.SEND_ERROR).errno == errno.EAGAIN
    errors = [(r.event, r.errno) for r in said.of("lonely") if r.errno]
    assert errors == [(Event.REFUSED, errno.ECONNREFUSED), (Event.SEND_ERROR, errno.ENOTCONN)]
    assert not [r for r in said.of("lonely") if r.event == Event.DATA]


def test_a_socketpair_is_a_connection_that_is_marked(said: Said) -> None:
    connect = said.only("left", Event.CONNECT)
    assert connect.flags & Flag.SOCKETPAIR
    assert connect.dst_inode == said.inodes["right"]
    assert (connect.src_pid, connect.dst_pid) == (os.getpid(),) * 2


def test_close_of_each_socket(said: Said) -> None:
    for name in ("listener", "client", "server", "left", "right", "lonely"):
        assert said.only(name, Event.CLOSE).payload == b"", name
