"""Refused connects and sends: with --events, who asked for which name, why not, and who listens there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import Actor
from live import Live
from patience import soon

from unixsock_bpf.record import Event, Flag, Record, Role

STREAM, DGRAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
USER = 4242
ABSTRACT = "\0unixsock-refused"


class Asked:
    """Who asked for what, by what was captured of it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.socks: list[socket.socket] = []
        self.inodes: dict[str, int] = {}
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.folder.chmod(0o755)

    def socket(self, name: str, kind: int = STREAM) -> socket.socket:
        """Make a socket that does not block and stays open."""
        one = socket.socket(socket.AF_UNIX, kind)
        one.setblocking(False)
        self.inodes[name] = os.fstat(one.fileno()).st_ino
        self.socks.append(one)
        return one

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def bound(self, name: str, kind: int = STREAM, backlog: int | None = 5) -> socket.socket:
        one = self.socket(f"at {name}", kind)
        one.bind(self.path(name))
        if kind != DGRAM and backlog is not None:
            one.listen(backlog)
        return one

    def connect(self, name: str, to: str, kind: int = STREAM) -> None:
        with contextlib.suppress(OSError):
            self.socket(name, kind).connect(to)

    def send(self, name: str, to: str) -> None:
        with contextlib.suppress(OSError):
            self.socket(name, DGRAM).sendto(b"hello?", to)

    def of(self, name: str) -> list[Record]:
        return [r for r in self.records if r.src_inode == self.inodes[name]]

    def only(self, name: str) -> Record:
        """Return the only record of a socket's refusal."""
        (found,) = [r for r in self.of(name) if r.event == Event.REFUSED]
        return found


def _before(asked: Asked) -> None:
    asked.bound("old-full", backlog=0)
    asked.connect("fills old-full", asked.path("old-full"))
    asked.bound("old-moved", backlog=0)
    os.rename(asked.path("old-moved"), asked.path("old-moved-away"))


def _ask(asked: Asked) -> None:
    asked.connect("missing", asked.path("nowhere"))
    asked.connect("missing seqpacket", asked.path("nowhere"), SEQPACKET)
    asked.connect("missing dgram", asked.path("nowhere"), DGRAM)
    asked.connect("no folder", asked.path("none/nowhere"))
    asked.connect("longest", asked.path("x" * (106 - len(asked.path("")))))
    # Without a NUL at its end, which Python does not make.
    full = struct.pack("=H", socket.AF_UNIX) + asked.path("y" * (107 - len(asked.path("")))).encode()
    ctypes.CDLL(None).connect(asked.socket("full length").fileno(), full, len(full))
    asked.connect("missing abstract", ABSTRACT + "-nowhere")
    asked.connect("not a socket", "/etc/passwd")
    asked.bound("dead").close()
    asked.connect("dead file", asked.path("dead"))
    asked.bound("deaf", backlog=None)
    asked.connect("not listening", asked.path("deaf"))
    asked.bound("dgram", DGRAM)
    asked.connect("wrong type", asked.path("dgram"))
    asked.bound("full", backlog=0)
    asked.connect("fills full", asked.path("full"))
    for number in range(3):
        asked.connect(f"full {number}", asked.path("full"))
    asked.connect("full old", asked.path("old-full"))
    asked.connect("fills moved", asked.path("old-moved-away"))
    asked.connect("full moved", asked.path("old-moved-away"))
    listener = asked.socket("at abstract")
    listener.bind(ABSTRACT)
    listener.listen(1)
    for number in range(3):
        asked.connect(f"abstract {number}", ABSTRACT)
    asked.bound("crowd", backlog=0)
    asked.connect("fills crowd", asked.path("crowd"))
    os.rename(asked.path("crowd"), asked.path("crowd-renamed"))
    asked.bound("crowd", backlog=0)
    asked.connect("fills crowd again", asked.path("crowd"))
    asked.connect("full crowd", asked.path("crowd"))
    asked.connect("full renamed", asked.path("crowd-renamed"))

    asked.send("send missing", asked.path("nowhere"))
    asked.send("send to stream", asked.path("full"))
    sender = asked.socket("send full", DGRAM)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.sendto(b"more", asked.path("dgram"))
    with contextlib.suppress(OSError):
        sender.sendto(bytes(1 << 22), asked.path("dgram"))
    connected = asked.socket("connected dgram", DGRAM)
    connected.connect(asked.path("dgram"))
    with contextlib.suppress(BlockingIOError):
        connected.send(b"one more")


def _by_others(asked: Asked) -> None:
    """What root cannot ask for in vain, and a connect that blocks."""
    private = asked.bound("private")
    os.chmod(asked.path("private"), 0o600)
    with Actor("stranger", "setpriv", "--clear-groups", f"--reuid={USER}", f"--regid={USER}") as stranger:
        asked.inodes["forbidden"] = int(
            stranger.do(
                "s = socket.socket(socket.AF_UNIX)\n"
                f"try: s.connect({asked.path('private')!r})\n"
                "except PermissionError: answer = os.fstat(s.fileno()).st_ino"
            )
        )
    del private
    patient = asked.socket("patient")
    patient.setblocking(True)
    pid = os.fork()
    if pid == 0:
        patient.connect(asked.path("full"))
        os._exit(1)
    deadline = time.monotonic() + soon(10)
    while "unix_wait_for_peer" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    found = Asked()
    _before(found)
    with Live("--events") as live:
        _ask(found)
        _by_others(found)
        for one in found.socks:
            one.close()
    assert (live.status, live.messages) == (0, "")
    found.records = live.records
    yield found
    shutil.rmtree(found.folder)


@pytest.mark.parametrize(
    ("name", "path", "number"),
    [
        ("missing", "nowhere", errno.ENOENT),
        ("missing seqpacket", "nowhere", errno.ENOENT),
        ("missing dgram", "nowhere", errno.ENOENT),
        ("no folder", "none/nowhere", errno.ENOENT),
        ("dead file", "dead", errno.ECONNREFUSED),
        ("not listening", "deaf", errno.ECONNREFUSED),
        ("wrong type", "dgram", errno.EPROTOTYPE),
        ("forbidden", "private", errno.EACCES),
        ("full 0", "full", errno.EAGAIN),
        ("full 2", "full", errno.EAGAIN),
        ("full renamed", "crowd-renamed", errno.EAGAIN),
        ("patient", "full", errno.EINTR),
        ("send missing", "nowhere", errno.ENOENT),
        ("send to stream", "full", errno.EPROTOTYPE),
        ("send full", "dgram", errno.EAGAIN),
    ],
)
def test_one_record_for_each_with_its_errno_and_the_path_asked_for(
    asked: Asked, name: str, path: str, number: int
) -> None:
    record = asked.only(name)
    assert (record.errno, record.name, record.payload) == (number, asked.path(path).encode(), b"")
    assert record.role == Role.DST_IS_SERVER


def test_other_names(asked: Asked) -> None:
    assert asked.only("missing abstract").dst_name == f"{ABSTRACT}-nowhere".encode()
    assert asked.only("abstract 2").dst_name == ABSTRACT.encode()
    assert (asked.only("not a socket").dst_name, asked.only("not a socket").errno) == (
        *(b"/etc/passwd", errno.ECONNREFUSED),
    )
    assert len(asked.only("longest").dst_name) == 107
    assert len(asked.only("full length").dst_name) == 108


def test_who_asked(asked: Asked) -> None:
    record = asked.only("missing")
    assert (record.src_pid, record.src_tid, record.src_uid) == (os.getpid(), os.getpid(), 0)
    assert record.flags & Flag.SRC_CREDS
    stranger = asked.only("forbidden")
    assert (stranger.src_comm, stranger.src_uid, stranger.src_gid) == (b"stranger", USER, USER)


@pytest.mark.parametrize(
    ("name", "listener"),
    [
        ("full 0", "at full"),
        ("full old", "at old-full"),
        ("abstract 2", "at abstract"),
        ("wrong type", "at dgram"),
        ("forbidden", "at private"),
        ("full crowd", "at crowd"),
        ("patient", "at full"),
        ("send to stream", "at full"),
        ("send full", "at dgram"),
    ],
)
def test_who_listens_there(asked: Asked, name: str, listener: str) -> None:
    record = asked.only(name)
    assert (record.dst_inode, record.dst_pid) == (asked.inodes[listener], os.getpid())
    assert record.dst_sock


@pytest.mark.parametrize(
    "name", ["missing", "missing abstract", "dead file", "not a socket", "full renamed", "full moved"]
)
def test_nobody_listens_or_it_is_not_known_who(asked: Asked, name: str) -> None:
    record = asked.only(name)
    assert (record.dst_inode, record.dst_sock, record.dst_pid, record.dst_comm) == (0, 0, 0, b"")
    assert not record.flags & Flag.DST_CREDS


def test_how_full_the_queue_was(asked: Asked) -> None:
    assert asked.only("full 0").backlog == (1, 0)
    assert asked.only("abstract 2").backlog == (2, 1)
    assert asked.only("patient").backlog == (1, 0)
    waiting, limit = asked.only("send full").backlog or (0, 0)
    assert waiting > limit > 0
    assert asked.only("missing").backlog is None


def test_sends_that_failed_for_another_reason(asked: Asked) -> None:
    (large,) = [r for r in asked.of("send full") if r.event == Event.SEND_ERROR]
    assert (large.errno, large.name) == (errno.EMSGSIZE, asked.path("dgram").encode())
    (connected,) = [r for r in asked.of("connected dgram") if r.event == Event.SEND_ERROR]
    assert (connected.errno, connected.dst_inode) == (errno.EAGAIN, asked.inodes["at dgram"])
    waiting, limit = connected.backlog or (0, 0)
    assert waiting > limit > 0


def test_no_record_for_what_was_not_refused(asked: Asked) -> None:
    refused = {r.src_inode for r in asked.records if r.event == Event.REFUSED}
    assert asked.inodes["fills full"] not in refused
    assert asked.inodes["abstract 1"] not in refused


def test_no_close_of_what_never_connected(asked: Asked) -> None:
    assert [r.event for r in asked.of("missing")] == [Event.REFUSED]
    assert [r.event for r in asked.of("full 1")] == [Event.REFUSED]
    assert Event.CLOSE in {r.event for r in asked.of("fills full")}
    assert Event.CLOSE in {r.event for r in asked.of("at full")}


def test_filters_find_a_path_that_is_no_sockets() -> None:
    asked = Asked()
    wanted = f"type dgram and event data or event refused and path {asked.path('n*')} or event close"
    with Live(capture_filter=wanted) as live:
        asked.connect("wanted", asked.path("nowhere"))
        asked.connect("other", asked.path("else"))
        asked.send("sent", asked.path("nobody"))
        asked.socks[0].close()
        asked.socks[1].close()
    asked.records = live.records
    assert [(r.event, r.errno) for r in asked.of("wanted")] == [
        *((Event.REFUSED, errno.ENOENT), (Event.CLOSE, None)),
    ]
    assert [r.event for r in asked.of("other")] == [Event.CLOSE]
    assert asked.only("sent").name == asked.path("nobody").encode()
    shutil.rmtree(asked.folder)


@pytest.mark.thorough
def test_without_events_there_are_none() -> None:
    asked = Asked()
    with Live() as live:
        asked.connect("missing", asked.path("nowhere"))
        asked.send("missing", asked.path("nowhere"))
    assert not [r for r in live.records if r.event == Event.REFUSED]
    shutil.rmtree(asked.folder)
