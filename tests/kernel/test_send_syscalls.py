"""Ways to send

One capture for all of them.  Each way has sockets of its own; then, per socket, what the
capture says has to equal what the receiver read: byte for byte, in order, nothing twice
and nothing more.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import io_uring
import pytest
from live import Live
from test_stream_integrity import check_positions, check_stream

from unixsock_bpf.record import Event, Flag, Record

STREAM, DGRAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET

_libc = ctypes.CDLL(None, use_errno=True)

#: A file's content: no two pages are the same.
CONTENT = os.urandom(300_001)


@dataclass
class Way:
    """What was said on one pair of sockets, and what came out."""

    kind: int
    send: Callable[[socket.socket, socket.socket], None]
    connected: bool = True
    received: list[bytes] = field(default_factory=list)
    urgent: bytes = b""
    inodes: tuple[int, int] = (0, 0)
    impossible: str = ""


WAYS: dict[str, Way] = {}


def way(
    name: str, *kinds: int, connected: bool = True
) -> Callable[[Callable[[socket.socket, socket.socket], None]], object]:
    """Declares a function that sends on its first argument, for these kinds of socket.

    Its second argument is the receiver, whose messages run() reads.
    """

    def declare(send: Callable[[socket.socket, socket.socket], None]) -> object:
        for kind in kinds:
            label = name if len(kinds) == 1 else f"{name} ({socket.SocketKind(kind).name[5:].lower()})"
            WAYS[label] = Way(kind, send, connected)
        return send

    return declare


class ImpossibleError(Exception):
    """This kernel has no such thing."""


@way("write", STREAM, DGRAM, SEQPACKET)
def write(s: socket.socket, _: socket.socket) -> None:
    for size in (1, 100, 4096, 70_000):
        os.write(s.fileno(), os.urandom(size))


@way("writev with 1,024 segments", STREAM, DGRAM, SEQPACKET)
def writev(s: socket.socket, _: socket.socket) -> None:
    os.writev(s.fileno(), [os.urandom(n % 90) for n in range(1024)])


@way("send", STREAM, DGRAM, SEQPACKET)
def send(s: socket.socket, _: socket.socket) -> None:
    for size in (7, 40_000, 1, 100_000):
        s.send(os.urandom(size))


@way("sendto a connected socket's own address", DGRAM, SEQPACKET)
def sendto_connected(s: socket.socket, r: socket.socket) -> None:
    name = f"\0unixsock-ways-{os.urandom(4).hex()}"
    r.bind(name)
    s.sendto(b"to its address", name)


@way("sendto without a connection", DGRAM, connected=False)
def sendto(s: socket.socket, r: socket.socket) -> None:
    name = f"\0unixsock-ways-{os.urandom(4).hex()}"
    r.bind(name)
    s.sendto(os.urandom(5000), name)


@way("sendmsg with segments", STREAM, DGRAM, SEQPACKET)
def sendmsg(s: socket.socket, _: socket.socket) -> None:
    s.sendmsg([os.urandom(10), b"", os.urandom(9000), os.urandom(1)])


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),  # an int, and what follows it in memory
        ("sent", ctypes.c_size_t),  # with it a struct mmsghdr; an unsigned int, too
    )


@way("sendmmsg", STREAM, DGRAM, SEQPACKET)
def sendmmsg(s: socket.socket, _: socket.socket) -> None:
    texts = [ctypes.create_string_buffer(os.urandom(n), n) for n in (3, 3000, 20_000)]
    vectors = [_Iovec(ctypes.addressof(text), len(text)) for text in texts]
    messages = (_Msghdr * len(texts))(*(_Msghdr(iov=ctypes.pointer(v), iovlen=1) for v in vectors))
    assert _libc.sendmmsg(s.fileno(), messages, len(texts), 0) == len(texts)
    assert [m.sent for m in messages] == [len(text) for text in texts]


@contextlib.contextmanager
def content() -> Iterator[int]:
    path = f"/dev/shm/ways-{os.urandom(4).hex()}"
    Path(path).write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    os.unlink(path)
    try:
        yield fd
    finally:
        os.close(fd)


@way("sendfile", STREAM, DGRAM, SEQPACKET)
def sendfile(s: socket.socket, _: socket.socket) -> None:
    with content() as fd:
        at = 0
        for size in (1, 5000, 4096, 30_000, len(CONTENT)):
            at += os.sendfile(s.fileno(), fd, at, size)


@way("sendfile after write, into the same queue", STREAM)
def sendfile_after_write(s: socket.socket, r: socket.socket) -> None:
    pause(r)  # the receiver's queue still holds what sendfile may append to
    with content() as fd:
        s.send(b"a head of some bytes")
        os.sendfile(s.fileno(), fd, 10, 100)
        os.sendfile(s.fileno(), fd, 110, 9000)
        s.send(b"between")
        os.sendfile(s.fileno(), fd, 20_001, 20_000)
        os.sendfile(s.fileno(), fd, 77, 3)
        s.send(b"a tail")
    proceed(r)


@way("splice from a file through a pipe", STREAM)
def splice_file(s: socket.socket, _: socket.socket) -> None:
    out, into = os.pipe()
    with content() as fd:
        left = len(CONTENT)
        while left:
            moved = os.splice(fd, into, left)
            left -= moved
            while moved:
                moved -= os.splice(out, s.fileno(), moved)
    os.close(out)
    os.close(into)


@way("splice from a pipe", STREAM, SEQPACKET)
def splice_pipe(s: socket.socket, _: socket.socket) -> None:
    out, into = os.pipe()
    for size in (1, 4096, 10_000):
        os.write(into, os.urandom(size))
        os.write(into, b"and a bit")
        left = size + 9
        while left:
            left -= os.splice(out, s.fileno(), left)
    os.close(out)
    os.close(into)


@contextlib.contextmanager
def ring(s: socket.socket, kernel_thread: bool = False) -> Iterator[io_uring.Ring]:
    made = io_uring.Ring(s.fileno(), kernel_thread)
    try:
        yield made
    finally:
        made.close()


@way("io_uring send", STREAM, DGRAM)
def uring_send(s: socket.socket, _: socket.socket) -> None:
    with ring(s) as r:
        assert r.run(io_uring.SEND, os.urandom(6000)) == 6000


@way("io_uring write", STREAM, SEQPACKET)
def uring_write(s: socket.socket, _: socket.socket) -> None:
    with ring(s) as r:
        assert r.run(io_uring.WRITE, os.urandom(50_000)) == 50_000


@way("io_uring write from a fixed buffer", STREAM, DGRAM)
def uring_fixed(s: socket.socket, _: socket.socket) -> None:
    with ring(s) as r:
        assert r.run(io_uring.WRITE_FIXED, os.urandom(50_000)) == 50_000


@way("io_uring's worker thread", STREAM, DGRAM)
def uring_worker(s: socket.socket, _: socket.socket) -> None:
    with ring(s) as r:
        assert r.run(io_uring.SEND, os.urandom(6000), worker=True) == 6000
        assert r.run(io_uring.WRITE, os.urandom(40_000), worker=True) == 40_000


@way("io_uring's submitting kernel thread", STREAM, DGRAM)
def uring_kernel_thread(s: socket.socket, _: socket.socket) -> None:
    with ring(s, kernel_thread=True) as r:
        assert r.run(io_uring.SEND, os.urandom(6000)) == 6000
        assert r.run(io_uring.WRITE, os.urandom(40_000)) == 40_000


@way("MSG_OOB", STREAM)
def oob(s: socket.socket, r: socket.socket) -> None:
    pause(r)  # whoever reads past an urgent byte loses it
    try:
        s.send(b"!", socket.MSG_OOB)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # Linux before 5.15
            raise ImpossibleError("this kernel's Unix sockets have no MSG_OOB") from None
        raise
    urgent(r)
    s.send(b"before")
    s.send(b"with it?", socket.MSG_OOB)
    urgent(r)
    s.send(b"after")
    proceed(r)


@way("MSG_MORE", STREAM, DGRAM, SEQPACKET)
def more(s: socket.socket, _: socket.socket) -> None:
    s.send(b"first", socket.MSG_MORE)
    s.send(b"second", socket.MSG_MORE)
    s.send(b"third")


@way("empty messages", STREAM, DGRAM, SEQPACKET)
def empty(s: socket.socket, _: socket.socket) -> None:
    s.send(b"")
    s.send(b"something")
    s.send(b"")


@way("several threads on one socket", STREAM, DGRAM, SEQPACKET)
def threads(s: socket.socket, _: socket.socket) -> None:
    def one(number: int) -> None:
        for n in range(30):
            s.send(bytes([number, n]) * (1 + n * 13 % 200))

    several = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()


@way("partial and refused sends without blocking", STREAM)
def partial(s: socket.socket, r: socket.socket) -> None:
    pause(r)
    s.setblocking(False)
    assert 0 < s.send(os.urandom(2_000_000)) < 2_000_000
    with pytest.raises(BlockingIOError):
        s.send(os.urandom(70_000))
    with content() as fd, contextlib.suppress(BlockingIOError):
        os.sendfile(s.fileno(), fd, 0, len(CONTENT))
    proceed(r)
    s.setblocking(True)
    s.send(b"now it fits")


@way("refused datagrams", DGRAM, SEQPACKET)
def refused(s: socket.socket, r: socket.socket) -> None:
    pause(r)
    s.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            s.send(os.urandom(3000))
    with pytest.raises(OSError, match="Message too long"):
        s.send(bytes(10_000_000))
    proceed(r)


#: By receiver: whether run() may read now, and what is to be read out of turn.
_paused: dict[int, threading.Event] = {}
_urgent: dict[int, bytes] = {}


def pause(r: socket.socket) -> None:
    """Stops the receiver from reading, so that its queue fills."""
    _paused[r.fileno()].clear()
    time.sleep(0.1)


def proceed(r: socket.socket) -> None:
    _paused[r.fileno()].set()


def urgent(r: socket.socket) -> None:
    """Takes the out-of-band byte."""
    _urgent[r.fileno()] = _urgent.get(r.fileno(), b"") + r.recv(1, socket.MSG_OOB)


def run(this: Way) -> None:
    """Sends this way, and reads all that comes."""
    if this.connected:
        s, r = socket.socketpair(socket.AF_UNIX, this.kind)
    else:
        s, r = (socket.socket(socket.AF_UNIX, this.kind) for _ in range(2))
    with s, r:
        this.inodes = os.fstat(s.fileno()).st_ino, os.fstat(r.fileno()).st_ino
        may_read = _paused[r.fileno()] = threading.Event()
        may_read.set()
        done = threading.Event()

        def read() -> None:
            while True:
                may_read.wait()
                was_done = done.is_set()
                if select.select([r], [], [], 0.05)[0] and may_read.is_set():
                    this.received.append(r.recv(1 << 20))
                elif was_done:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        try:
            this.send(s, r)
        except ImpossibleError as why:
            this.impossible = str(why)
        finally:
            may_read.set()
            done.set()
            reader.join()
        this.urgent = _urgent.pop(r.fileno(), b"")


def dump_core() -> bytes | None:
    """What the kernel wrote of a crashed process to a socket; None where it can't."""
    setting = Path("/proc/sys/kernel/core_pattern")
    old = setting.read_text()
    path = "/run/unixsock-core"
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        try:
            setting.write_text(f"@{path}")  # Linux before 6.16 takes that for a file's name
            crashing = subprocess.Popen(
                ["/bin/sh", "-c", "ulimit -c unlimited; exec sleep 60"], cwd="/dev/shm"
            )
            time.sleep(0.5)
            crashing.send_signal(signal.SIGSEGV)
            try:
                core, _ = listener.accept()
            except (TimeoutError, OSError):
                return None
            received = b""
            with core:
                core.settimeout(30)
                while part := core.recv(1 << 20):
                    received += part
            return received
        except OSError as error:
            if error.errno == errno.EINVAL:  # it knows the form, but not without more
                return None
            raise
        finally:
            crashing.kill()
            crashing.wait()
            setting.write_text(old)
            Path(path).unlink()


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """All ways, one after the other, in one capture."""
    with Live() as live:
        for this in WAYS.values():
            run(this)
        CORE.append(dump_core())
    assert live.status == 0
    assert live.messages == ""
    assert not [r for r in live.records if r.event == Event.LOST]
    return live.records


CORE: list[bytes | None] = []


@pytest.mark.rows
@pytest.mark.parametrize("name", WAYS)
def test_way(records: list[Record], name: str) -> None:
    this = WAYS[name]
    if this.impossible:
        pytest.skip(this.impossible)
    ours = [r for r in records if r.event == Event.DATA and r.src_inode == this.inodes[0]]
    assert not [r for r in records if r.event == Event.DATA and r.src_inode == this.inodes[1]]
    assert {r.dst_inode for r in ours} == {this.inodes[1]}
    assert not [r for r in ours if r.flags & (Flag.TRUNCATED | Flag.UNREADABLE)]
    assert all(r.src_comm for r in ours)
    # A worker of io_uring belongs to the process; where it is the kernel's own thread, it does not say so.
    assert all(r.src_pid == os.getpid() for r in ours if not r.src_comm.startswith(b"io_"))
    check_positions(ours)
    inline = [r for r in ours if not r.flags & Flag.OOB]
    assert b"".join(r.payload for r in ours if r.flags & Flag.OOB) == this.urgent
    assert bool(this.urgent) == (this.send is oob)
    if this.kind == STREAM:
        check_stream(b"".join(this.received), inline)
    else:
        assert [r.payload for r in inline] == this.received


def test_core_dump(records: list[Record]) -> None:
    """A core dump, which the kernel itself writes to a socket"""
    (core,) = CORE
    if core is None:
        pytest.skip("this kernel dumps no core to a socket")
    name = b"/run/unixsock-core"
    ours = [r for r in records if r.event == Event.DATA and r.dst_name == name]
    assert b"".join(r.payload for r in ours) == core
    assert core[:4] == b"\x7fELF"
    assert {r.src_comm for r in ours} == {b"sleep"}
