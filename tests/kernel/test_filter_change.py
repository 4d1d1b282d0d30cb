"""The toolbar changes the filter while several programs talk: each message that matches is there, once."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from live import Live, streams
from wireshark_toolbar import Toolbar

from unixsock_bpf.probe import cache
from unixsock_bpf.record import Event, Record

pytestmark = pytest.mark.thorough

#: Bound by one side of each conversation, so that filters can tell them apart.
KEPT, DROPPED = "@unixsock-kept", "@unixsock-dropped"
KINDS = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
SIZE = 32
#: How often the filter is changed under load.
CHANGES = 1000

#: Each lets the kept ones through, some of them the dropped ones too.
FILTERS = [f"path {KEPT}*", "", f"path {KEPT}* or fds", "path @unixsock-*", f"not path {DROPPED}*"]


class Talk:
    """Numbered messages on one conversation, until ``stop``.  ``sent``: how many there were."""

    def __init__(self, kind: str, name: str) -> None:
        self.word = f"{kind} {name}"
        bound = f"\0{name[1:]}-{kind}"
        self._server = socket.socket(socket.AF_UNIX, KINDS[kind])
        self._server.bind(bound)
        self._client = socket.socket(socket.AF_UNIX, KINDS[kind])
        if kind == "dgram":
            self._client.connect(bound)
            self._receiver = self._server
        else:
            self._server.listen()
            self._client.connect(bound)
            self._receiver, _ = self._server.accept()
        self.sent = 0
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def message(self, number: int) -> bytes:
        return f"{number} {self.word}".encode().ljust(SIZE, b".")[:SIZE]

    def _send(self) -> None:
        while not self._done.is_set():
            self._client.send(self.message(self.sent))
            self.sent += 1
            time.sleep(0.0005)
        self._client.send(b"end".ljust(SIZE))

    def _receive(self) -> None:
        while not self._receiver.recv(SIZE).startswith(b"end"):
            pass

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        for end in (self._client, self._receiver, self._server):
            end.close()

    def inode(self) -> int:
        return os.fstat(self._client.fileno()).st_ino


def test_no_message_is_lost_or_doubled() -> None:
    toolbar = Toolbar(Path("/dev/shm"))
    with Live(*toolbar.options) as live:
        kept = [Talk(kind, KEPT) for kind in KINDS]
        dropped = [Talk(kind, DROPPED) for kind in KINDS]
        inodes = {talk.inode(): talk for talk in kept + dropped}
        for text in FILTERS:
            toolbar.apply(text)
            time.sleep(0.5)
        started = time.monotonic()
        for number in range(len(FILTERS), CHANGES):
            toolbar.apply(FILTERS[number % len(FILTERS)])
        each = (time.monotonic() - started) / (CHANGES - len(FILTERS))
        print(f"{each:.3f} s for each change, with the toolbar's way there and back")
        for talk in kept + dropped:
            talk.stop()
    assert (live.status, live.messages) == (0, "")
    data: dict[Talk, list[Record]] = {talk: [] for talk in inodes.values()}
    for r in live.records:
        assert r.event != Event.LOST, "the ring was full: this tells nothing"
        if r.event == Event.DATA and r.src_inode in inodes and not r.payload.startswith(b"end"):
            data[inodes[r.src_inode]].append(r)
    for talk in kept:
        assert [r.payload for r in data[talk]] == [talk.message(n) for n in range(talk.sent)]
        assert [r.seq for r in data[talk]] == [n * SIZE for n in range(talk.sent)]
        assert [r.message for r in data[talk]] == list(range(talk.sent))
        assert len({(r.src_sock, r.dst_sock) for r in data[talk]}) == 1
    for talk in dropped:
        numbers = [int(r.payload.split()[0]) for r in data[talk]]
        assert [r.payload for r in data[talk]] == [talk.message(n) for n in numbers]
        assert numbers == sorted(set(numbers))
        assert 0 < len(numbers) < talk.sent
    assert streams([r for talk in kept for r in data[talk] if talk.word.startswith("stream")])


def test_events_come_and_go_with_the_filter() -> None:
    """Hooks that an earlier filter had no use for are added; nothing is compiled for a filter."""
    said: list[tuple[int, list[Event]]] = []

    def talk() -> int:
        """A stream that is made, said something on, and refused."""
        left, right = socket.socketpair()
        with left:
            number = os.fstat(left.fileno()).st_ino
            left.send(b"word")
            right.close()
            with pytest.raises(BrokenPipeError):
                left.send(b"too late", socket.MSG_NOSIGNAL)
        return number

    toolbar = Toolbar(Path("/dev/shm"))
    with Live(*toolbar.options) as live:
        compiled = {path: path.stat().st_mtime for path in cache.FOLDER.iterdir()}
        plain = talk()
        toolbar.apply("event connect or event send_error or event data")
        eventful = talk()
        toolbar.apply("")
        assert {path: path.stat().st_mtime for path in cache.FOLDER.iterdir()} == compiled
        plain_again = talk()
    for number in (plain, eventful, plain_again):
        said.append((number, [r.event for r in live.records if r.src_inode == number]))
    assert said == [
        (plain, [Event.DATA, Event.CLOSE]),
        (eventful, [Event.CONNECT, Event.DATA, Event.SEND_ERROR]),
        (plain_again, [Event.DATA, Event.CLOSE]),
    ]
