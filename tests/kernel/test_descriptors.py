"""Passed descriptors: each one's kind, inode and path, as the kernel's own /proc shows them."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live

from unixsock_bpf.record import Event, Fd, FdKind, Record

#: SCM_MAX_FD in the kernel.
MOST = 253


def anonymous(call: str, *arguments: object) -> int:
    """A descriptor from a libc function that Python 3.11 lacks."""
    fd: int = getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments)
    assert fd >= 0, (call, ctypes.get_errno())
    return fd


def io_uring() -> int:
    """An io_uring, or -1 where it is switched off or can't be passed, as on kernels since 2023."""
    parameters = ctypes.create_string_buffer(120)
    fd = int(ctypes.CDLL(None).syscall(425, 1, parameters))
    one, other = socket.socketpair()
    with one, other:
        try:
            send(one, b"x", [fd])
        except OSError:
            return -1
    return fd


def pidfd() -> int:
    return os.pidfd_open(os.getpid())


@pytest.fixture(scope="module")
def descriptors() -> Iterator[dict[str, tuple[int, FdKind]]]:
    """One of each kind."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm")) / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "a file").write_text("x")
    (folder / "gone").write_text("x")
    os.mkfifo(folder / "fifo")
    mask = ctypes.create_string_buffer(128)
    pair = socket.socketpair()
    pipe = os.pipe()
    found = {
        "file": (os.open(folder / "a file", os.O_RDONLY), FdKind.FILE),
        "deleted": (os.open(folder / "gone", os.O_RDONLY), FdKind.FILE),
        "unnamed": (os.open(folder, os.O_TMPFILE | os.O_RDWR), FdKind.FILE),
        "directory": (os.open(folder, os.O_RDONLY), FdKind.DIRECTORY),
        "root": (os.open("/", os.O_RDONLY), FdKind.DIRECTORY),
        "mounted": (os.open("/proc/self/status", os.O_RDONLY), FdKind.FILE),
        "mount": (os.open("/dev/shm", os.O_RDONLY), FdKind.DIRECTORY),
        "device": (os.open("/dev/null", os.O_RDONLY), FdKind.CHARDEV),
        "fifo": (os.open(folder / "fifo", os.O_RDWR), FdKind.PIPE),
        "pipe": (pipe[0], FdKind.PIPE),
        "socket": (pair[0].detach(), FdKind.SOCKET),
        "memfd": (os.memfd_create("a memory file"), FdKind.MEMFD),
        "eventfd": (anonymous("eventfd", 0, 0), FdKind.EVENTFD),
        "epoll": (anonymous("epoll_create1", 0), FdKind.EPOLL),
        "timerfd": (anonymous("timerfd_create", 1, 0), FdKind.TIMERFD),
        "signalfd": (anonymous("signalfd", -1, mask, 0), FdKind.SIGNALFD),
        "inotify": (anonymous("inotify_init"), FdKind.INOTIFY),
        "fanotify": (anonymous("fanotify_init", 0, 0), FdKind.ANON),
        "pidfd": (pidfd(), FdKind.PIDFD),
    }
    (folder / "gone").unlink()
    ring = io_uring()
    if ring >= 0:
        found["io_uring"] = (ring, FdKind.IO_URING)
    yield found
    for fd, _ in found.values():
        os.close(fd)


def send(one: socket.socket, payload: bytes, fds: list[int]) -> None:
    one.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


@pytest.fixture(scope="module")
def records(descriptors: dict[str, tuple[int, FdKind]]) -> list[Record]:
    """All of them in one message of each type of socket, then as many as the kernel allows, then others."""
    fds = [fd for fd, _ in descriptors.values()]
    kinds = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(Live())
        for name, kind in kinds.items():
            here, there = socket.socketpair(socket.AF_UNIX, kind)
            with here, there:
                send(here, name.encode(), fds)
                received = socket.recv_fds(there, 100, MOST)[1]
                assert len(received) == len(fds)
                for fd in received:
                    os.close(fd)
                here.send(b"without " + name.encode())
        here, there = socket.socketpair()
        with here, there:
            send(here, b"many", [fds[0]] * MOST)
            send(here, b"one", [fds[1]])
            with contextlib.suppress(OSError):  # refused: nothing is passed
                send(here, b"refused", [fds[0], 12345])
            here.send(b"after a refusal")
            send(here, b"x" * 150_000, [descriptors["pipe"][0]])
            here.shutdown(socket.SHUT_WR)
            while there.recvmsg(1 << 18, 8000)[0]:
                pass
    assert live.status == 0
    assert live.messages == ""
    return live.records


def of(records: list[Record], payload: bytes) -> Record:
    (found,) = [r for r in records if r.event == Event.DATA and r.payload == payload]
    return found


def in_pidfs(fd: int, descriptors: dict[str, tuple[int, FdKind]]) -> bool:
    """Since Linux 6.9 pidfds lie in a file system of their own, though /proc calls them what it did."""
    anonymous, _ = descriptors["eventfd"]
    return fd == descriptors["pidfd"][0] and os.fstat(fd).st_dev != os.fstat(anonymous).st_dev


@pytest.mark.parametrize("type_", ["stream", "dgram", "seqpacket"])
def test_each_is_described_as_in_proc(
    records: list[Record], descriptors: dict[str, tuple[int, FdKind]], type_: str
) -> None:
    record = of(records, type_.encode())
    assert record.fds_count == len(descriptors)
    for got, (name, (fd, kind)) in zip(record.fds, descriptors.items(), strict=True):
        link = os.readlink(f"/proc/self/fd/{fd}").encode()
        path = b"" if link.startswith((b"pipe:", b"socket:")) or in_pidfs(fd, descriptors) else link
        assert got == Fd(kind, os.fstat(fd).st_ino, path), name


def test_a_message_without_descriptors_has_none(records: list[Record]) -> None:
    for payload in (b"without stream", b"without dgram", b"without seqpacket", b"after a refusal"):
        record = of(records, payload)
        assert (record.fds_count, record.fds) == (0, [])


def test_as_many_as_the_kernel_allows(
    records: list[Record], descriptors: dict[str, tuple[int, FdKind]]
) -> None:
    # All have their kind and inode; paths end where there is no more room for them.
    fd = descriptors["file"][0]
    record = of(records, b"many")
    assert record.fds_count == len(record.fds) == MOST
    assert {(one.kind, one.inode) for one in record.fds} == {(FdKind.FILE, os.fstat(fd).st_ino)}
    path = os.readlink(f"/proc/self/fd/{fd}").encode()
    with_path = [one.path for one in record.fds if one.path]
    assert set(with_path) == {path}
    assert len(with_path) > 60
    assert len(of(records, b"one").fds) == 1


def test_only_the_first_part_of_a_long_stream_message_carries_them(records: list[Record]) -> None:
    parts = [r for r in records if r.event == Event.DATA and r.payload and not r.payload.strip(b"x")]
    assert sum(len(r.payload) for r in parts) == 150_000
    assert [r.fds_count for r in parts] == [1] + [0] * (len(parts) - 1)
    assert parts[0].fds[0].kind == FdKind.PIPE
