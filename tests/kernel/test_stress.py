"""Eight writers and eight readers with all types of socket between them: what was captured and what was
counted as lost make up what was sent, exactly; and at a rate that the guest sustains nothing is lost.

``UNIXSOCK_LONG`` (``make test-faults``) goes on for five minutes.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import random
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import pytest
from live import Live, accounted

from unixsock_bpf.record import Event, Record

pytestmark = pytest.mark.thorough

#: Of the writers, and of the readers.
COUNT = 8

#: Seconds as fast as they can, and then at RATE.
FAST, PACED = (60, 240) if os.environ.get("UNIXSOCK_LONG") else (5, 15)

#: Messages a second of all writers together.
RATE = 200

KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

#: The payload, by position in the conversation; longer than any message.
TEXT = random.Random(8).randbytes(65_521)

fork = multiprocessing.get_context("fork")


def said(conversation: int, position: int, length: int) -> bytes:
    """Which bytes a conversation has at a position."""
    begin = (conversation * 977 + position) % len(TEXT)
    return (TEXT + TEXT)[begin : begin + length]


@dataclass
class Conversation:
    """One writer's socket to one reader."""

    number: int
    sender: socket.socket
    inode: int
    messages: int = 0
    size: int = 0


def write(conversations: list[Conversation], commands: Connection) -> None:
    """A writer: for each command, seconds and messages a second (0: as many as can be), says what it sent."""
    lengths = random.Random(conversations[0].number)
    while command := commands.recv():
        seconds, rate = command
        sent = {c.number: (0, 0) for c in conversations}
        begin = time.monotonic()
        for count, c in enumerate(itertools.cycle(conversations)):
            if rate and (early := begin + count / rate - time.monotonic()) > 0:
                time.sleep(early)
            if time.monotonic() > begin + seconds:
                break
            length = lengths.choice((1, 20, 64, 300, 1500))
            if count % 100 == 0:
                length = 30_000
            assert c.sender.send(said(c.number, c.size, length)) == length
            c.size += length
            messages, size = sent[c.number]
            sent[c.number] = messages + 1, size + length
        commands.send(sent)


def read(receivers: list[socket.socket], total: ctypes.c_uint64) -> None:
    """A reader: adds up all that comes."""
    poll = select.epoll()
    for receiver in receivers:
        poll.register(receiver, select.EPOLLIN)
    by_number = {receiver.fileno(): receiver for receiver in receivers}
    while True:
        for number, _ in poll.poll():
            total.value += len(by_number[number].recv(1 << 17))


class Crowd:
    """Writers, readers, and the conversations of each with each."""

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        receivers: list[list[socket.socket]] = [[] for _ in range(COUNT)]
        mailboxes = []
        for reader in range(COUNT):
            mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            mailbox.bind(f"\0stress-{os.getpid()}-{reader}")
            receivers[reader].append(mailbox)
            mailboxes.append(mailbox)
        for number, (writer, reader) in enumerate(itertools.product(range(COUNT), repeat=2)):
            kind = KINDS[(writer + reader) % len(KINDS)]
            if kind == socket.SOCK_DGRAM:
                sender = socket.socket(socket.AF_UNIX, kind)
                sender.connect(mailboxes[reader].getsockname())
            else:
                sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
                receivers[reader].append(receiver)
            inode = os.fstat(sender.fileno()).st_ino
            self.conversations.append(Conversation(number, sender, inode))

        self._totals = [fork.Value(ctypes.c_uint64, 0) for _ in range(COUNT)]
        self._processes = []
        self._writers: list[Connection] = []
        for own, total in zip(receivers, self._totals, strict=True):
            self._processes.append(fork.Process(target=read, args=(own, total), daemon=True))
        for writer in range(COUNT):
            here, there = fork.Pipe()
            own_part = self.conversations[writer * COUNT : (writer + 1) * COUNT]
            self._processes.append(fork.Process(target=write, args=(own_part, there), daemon=True))
            self._writers.append(here)
        for process in self._processes:
            process.start()

    def talk(self, seconds: float, rate: float = 0) -> None:
        """Let all talk, until the readers have read everything."""
        for writer in self._writers:
            writer.send((seconds, rate / COUNT))
        for writer in self._writers:
            for number, (messages, size) in writer.recv().items():
                self.conversations[number].messages += messages
                self.conversations[number].size += size
        deadline = time.monotonic() + 60
        while sum(total.value for total in self._totals) < sum(c.size for c in self.conversations):
            assert time.monotonic() < deadline, "the readers don't read all"
            time.sleep(0.1)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        for c in self.conversations:
            c.sender.close()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.close()


def follow(records: list[Record], conversations: list[Conversation]) -> int:
    """Checks that each conversation's records make up what was said.  Returns how many messages were lost."""
    by_inode: dict[int, list[Record]] = {c.inode: [] for c in conversations}
    for r in records:
        if r.src_inode in by_inode and r.event in (Event.DATA, Event.LOST):
            by_inode[r.src_inode].append(r)
    lost = 0
    for c in conversations:
        assert all(r.payload == said(c.number, r.seq, r.len) for r in by_inode[c.inode] if not r.lost)
        *made_up, missing = accounted(by_inode[c.inode])
        assert made_up == [c.messages, c.size]
        lost += missing
    return lost


def test_captured_and_lost_make_up_what_was_sent(crowd: Crowd) -> None:
    with Live("--buffer-size", "1") as live:
        live.reading.clear()
        crowd.talk(FAST)
        live.reading.set()
        live.wait_ready()
    lost = follow(live.records, crowd.conversations)
    sent = sum(c.messages for c in crowd.conversations)
    print(f"as fast as they can, with a small ring: {sent} messages in {FAST} s, of them {lost} lost")
    assert lost


def test_at_a_rate_that_the_guest_sustains_nothing_is_lost(crowd: Crowd) -> None:
    with Live() as live:
        crowd.talk(PACED, RATE)
    sent = sum(c.messages for c in crowd.conversations)
    print(f"at a fixed rate: {sent} messages in {PACED} s")
    assert sent > PACED * RATE / 2
    assert follow(live.records, crowd.conversations) == 0
