"""Names of sockets: as bound, and where a relative one lies; and filters that ask for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from live import Live

from unixsock_bpf.record import Event, Record

pytestmark = pytest.mark.thorough

ABSTRACT = b"\0unixsock\0names\0\xff"
#: Two names of one place: /var/run is a link to /run.
RUN, VAR_RUN = "/run/unixsock-names-1", "/var/run/unixsock-names-2"
#: What Live's marker is: see wait_ready.
MARKER = "type dgram and less 23 and greater 23"


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def name_call(call: str, one: socket.socket, name: bytes | str) -> None:
    """bind or connect.  Python refuses names of 108 bytes, which have no room for a NUL."""
    if len(name) < 108:
        getattr(one, call)(name)
        return
    address = struct.pack("=H108s", socket.AF_UNIX, os.fsencode(name))
    assert getattr(ctypes.CDLL(None), call)(one.fileno(), address, len(address)) == 0


def server(name: bytes | str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, kind)
    name_call("bind", one, name)
    if kind == socket.SOCK_STREAM:
        one.listen()
    return one


def talk(listener: socket.socket, payload: bytes, name: bytes | str | None = None) -> None:
    """A client asks ``payload``, and is answered it backwards."""
    with socket.socket(socket.AF_UNIX) as client:
        name_call("connect", client, listener.getsockname() if name is None else name)
        client.send(payload)
        with listener.accept()[0] as accepted:
            accepted.recv(100)
            accepted.send(payload[::-1])
            client.recv(100)


@dataclass
class Captured:
    records: list[Record] = field(default_factory=list)
    filtered: list[Record] = field(default_factory=list)
    folder: Path = Path()
    autobound: bytes = b""
    longest: bytes = b""

    def data(self, payload: bytes) -> Record:
        (found,) = [r for r in self.records if r.event == Event.DATA and r.payload == payload]
        return found

    def both(self, payload: bytes) -> tuple[Record, Record]:
        return self.data(payload), self.data(payload[::-1])


@pytest.fixture(scope="module")
def captured() -> Iterator[Captured]:
    """One conversation with each kind of name, seen by two captures: one of all, one with a filter."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    got = Captured(folder=folder)
    deep = folder / "deep" / "er"
    deep.mkdir(parents=True)
    for path in (RUN, VAR_RUN):
        Path(path).unlink(missing_ok=True)
    got.longest = os.fsencode(folder) + b"/" + b"x" * (107 - len(os.fsencode(folder)))
    wanted = " or ".join(
        [
            "path /var/run/unixsock-names-1",
            "path /run/unixsock-names-2",
            f"path {deep}/relative",
            f"path {deep}/older",
            f"path {folder}/not-yet",
            f"({MARKER})",
        ]
    )
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        with inside(deep):
            older = stack.enter_context(server("older"))
        everything = stack.enter_context(Live())
        filtered = stack.enter_context(Live(capture_filter=wanted))
        with inside(folder):
            talk(older, b"older", bytes(deep / "older"))
        with server(str(folder / "plain")) as one:
            talk(one, b"plain")
            os.unlink(folder / "plain")
            with contextlib.suppress(OSError):
                talk(one, b"nobody finds it")
        with server(ABSTRACT) as one:
            talk(one, b"abstract")
        with server(b"") as one:
            got.autobound = one.getsockname()
            talk(one, b"autobound")
        with inside(deep):
            relative = stack.enter_context(server("relative"))
        talk(relative, b"relative", bytes(deep / "relative"))
        with server(got.longest) as one:
            talk(one, b"longest", got.longest)
        with server(str(folder / "gone")) as one, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "gone"))
            os.unlink(folder / "gone")
            client.send(b"deleted")
            with one.accept()[0] as accepted:
                accepted.send(b"deteled")
        _bound_after_connect(folder)
        for path in (RUN, VAR_RUN):
            with server(path) as one:
                talk(one, path.encode())
            os.unlink(path)
        with server(str(folder / "not-yet")) as one:
            talk(one, b"not yet")
        for live in (everything, filtered):
            live.stop()
            assert (live.status, live.messages) == (0, "")
        got.records, got.filtered = everything.records, filtered.records
        yield got


def _bound_after_connect(folder: Path) -> None:
    """A datagram client that takes a name only when it wants an answer."""
    with (
        server(str(folder / "dgram"), socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        client.connect(str(folder / "dgram"))
        client.send(b"without a name")
        client.bind(str(folder / "late"))
        client.send(b"with a name")
        one.sendto(b"to the name", str(folder / "late"))


@pytest.mark.parametrize("payload", [b"plain", b"abstract", b"autobound", b"longest"])
def test_both_sides_show_the_servers_name(captured: Captured, payload: bytes) -> None:
    name = {
        b"plain": bytes(captured.folder / "plain"),
        b"abstract": ABSTRACT,
        b"autobound": captured.autobound,
        b"longest": captured.longest,
    }[payload]
    question, answer = captured.both(payload)
    assert (question.src_name, question.dst_name) == (b"", name)
    assert (answer.src_name, answer.dst_name) == (name, b"")
    assert question.name == answer.name == name
    assert not question.dst_path
    if payload == b"longest":
        assert len(name) == 108


def test_a_deleted_name_stays(captured: Captured) -> None:
    assert captured.data(b"deleted").name == bytes(captured.folder / "gone")
    assert captured.data(b"deteled").name == bytes(captured.folder / "gone")


@pytest.mark.parametrize("name", [b"relative", b"older"])
def test_a_relative_name_has_its_absolute_path(captured: Captured, name: bytes) -> None:
    # ``older`` was bound before the capture.
    path = bytes(captured.folder / "deep" / "er" / os.fsdecode(name))
    question, answer = captured.both(name)
    assert (question.dst_name, question.dst_path, question.src_path) == (name, path, b"")
    assert (answer.src_name, answer.src_path, answer.dst_path) == (name, path, b"")


def test_a_name_that_comes_after_connect(captured: Captured) -> None:
    late = bytes(captured.folder / "late")
    assert captured.data(b"without a name").src_name == b""
    assert captured.data(b"with a name").src_name == late
    assert captured.data(b"to the name").dst_name == late


@pytest.mark.parametrize(
    "payload", [RUN.encode(), VAR_RUN.encode(), b"relative", b"older", b"not yet"], ids=os.fsdecode
)
def test_a_filter_finds_a_socket_by_the_path_that_people_see(captured: Captured, payload: bytes) -> None:
    said = [r.payload for r in captured.filtered if r.event == Event.DATA]
    assert said.count(payload) == 1
    assert said.count(payload[::-1]) == 1


def test_a_filter_leaves_out_the_rest(captured: Captured) -> None:
    names = {r.name for r in captured.filtered}
    assert names - {b""} == {
        RUN.encode(),
        VAR_RUN.encode(),
        b"relative",
        b"older",
        bytes(captured.folder / "not-yet"),
    }
