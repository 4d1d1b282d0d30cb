"""Exactness as a property: whatever programs send, the capture has what the receivers read.

Random programs of sends run on random sockets; then, per socket and direction, what the
capture says has to equal what came out of the receiving sockets, byte for byte, in order,
nothing twice and nothing more.  At the end tshark reads the same capture.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import Live

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Flag
from unixsock_bpf.wireshark import tshark

TYPES = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}

#: One send: the way, and the lengths of its segments.
sizes = st.one_of(
    st.integers(0, 200),
    st.integers(1, 70_000),
    st.sampled_from([4095, 4096, 32_768, 36_544, 65_536, 150_000]),
)
sends = st.tuples(st.sampled_from(["send", "write", "sendmsg"]), st.lists(sizes, min_size=1, max_size=4))


@dataclass
class Channel:
    """A pair of sockets and what is sent on it: for each writing thread its sends."""

    kind: str
    made_by: str
    blocking: bool
    send_buffer: int
    writers: list[list[tuple[str, list[int]]]]
    readers: int = 1
    received: list[bytes] = field(default_factory=list)
    inodes: tuple[int, int] = (0, 0)
    captured: list[bytes] = field(default_factory=list)
    failures: int = 0


channels = st.builds(
    Channel,
    kind=st.sampled_from(sorted(TYPES)),
    made_by=st.sampled_from(["pair", "path", "abstract"]),
    blocking=st.booleans(),
    send_buffer=st.sampled_from([0, 4608, 100_000]),
    writers=st.lists(st.lists(sends, min_size=1, max_size=5), min_size=1, max_size=3),
)


@contextlib.contextmanager
def connected(channel: Channel) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sending and a receiving socket."""
    kind = TYPES[channel.kind]
    if channel.made_by == "pair":
        sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
    else:
        name = f"unixsock-exact-{os.urandom(6).hex()}"
        address = f"/run/{name}" if channel.made_by == "path" else f"\0{name}"
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(address)
        sender = socket.socket(socket.AF_UNIX, kind)
        if channel.kind == "dgram":
            receiver = server
            sender.connect(address)
        else:
            server.listen()
            sender.connect(address)
            receiver, _ = server.accept()
            server.close()
        if channel.made_by == "path":
            os.unlink(address)
    if channel.send_buffer:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, channel.send_buffer)
    sender.setblocking(channel.blocking)
    receiver.setblocking(False)
    with sender, receiver:
        yield sender, receiver


def write(channel: Channel, sender: socket.socket, plan: list[tuple[str, list[int]]]) -> None:
    """One writing thread.  Refused sends are part of the plan."""
    for way, lengths in plan:
        segments = [os.urandom(length) for length in lengths]
        try:
            if way == "send":
                sender.send(b"".join(segments))
            elif way == "write":
                os.write(sender.fileno(), b"".join(segments))
            else:
                sender.sendmsg(segments)
        except OSError:  # EAGAIN, EMSGSIZE
            channel.failures += 1


def run(channel: Channel) -> None:
    """Sends and receives until all that was sent is read."""
    with connected(channel) as (sender, receiver):
        channel.inodes = (os.fstat(sender.fileno()).st_ino, os.fstat(receiver.fileno()).st_ino)
        threads = [threading.Thread(target=write, args=(channel, sender, plan)) for plan in channel.writers]
        for thread in threads:
            thread.start()
        while True:
            busy = any(thread.is_alive() for thread in threads)
            readable = select.select([receiver], [], [], 0.02)[0]
            if readable:
                channel.received.append(receiver.recv(1 << 20))
            elif not busy:
                break
        for thread in threads:
            thread.join()


def interleaved(received: bytes, threads: list[list[bytes]]) -> bool:
    """Whether ``received`` is made of each thread's messages, each thread's in its order."""
    tried = set()
    todo = [(0, (0,) * len(threads))]
    while todo:
        at, taken = todo.pop()
        if at == len(received) and all(n == len(t) for n, t in zip(taken, threads, strict=True)):
            return True
        for i, messages in enumerate(threads):
            if taken[i] < len(messages) and received.startswith(messages[taken[i]], at):
                state = at + len(messages[taken[i]]), (*taken[:i], taken[i] + 1, *taken[i + 1 :])
                if state not in tried:
                    tried.add(state)
                    todo.append(state)
    return False


def check_stream(received: bytes, ours: list[record.Record]) -> None:
    """The captured bytes are the received ones, in order.

    Where the kernel has no moment at which order is settled (6.17 and later), the probe marks
    messages of threads that wrote at once: then each thread's order has to be right.
    """
    threads: dict[int, list[bytes]] = {}
    for r in ours:
        threads.setdefault(r.src_tid, []).append(r.payload)
    if any(r.flags & Flag.UNORDERED for r in ours):
        assert len(threads) > 1
        assert interleaved(received, list(threads.values()))
    elif b"".join(r.payload for r in ours) != received:
        # Megabytes of random bytes tell nobody anything.
        order = "another order" if interleaved(received, list(threads.values())) else "other bytes"
        pytest.fail(f"{order} in {[(r.src_tid, r.seq, r.len, r.message) for r in ours]}")


def check_positions(ours: list[record.Record]) -> None:
    """Positions and numbers leave no gap, and rise, except where threads wrote at once: see check_stream."""
    in_order = ours
    if any(r.flags & Flag.UNORDERED for r in ours):
        in_order = sorted(ours, key=lambda r: (r.seq, r.seq + r.len))
        assert sorted(r.message for r in ours) == list(range(len(ours)))
    else:
        assert [r.message for r in ours] == list(range(len(ours)))
    position = 0
    for r in in_order:
        assert (r.seq, r.len) == (position, len(r.payload))
        position += r.len


def check(channel: Channel, records: list[record.Record]) -> None:
    """Compares what the capture says of a channel with what was received."""
    ours = [r for r in records if r.event == Event.DATA and (r.src_inode, r.dst_inode) == channel.inodes]
    if channel.kind == "stream":
        check_stream(b"".join(channel.received), ours)
    else:
        assert [r.payload for r in ours] == channel.received
    channel.captured = [r.payload for r in ours]
    check_positions(ours)
    assert all(r.src_pid == os.getpid() for r in ours)
    back = [r for r in records if r.event == Event.DATA and (r.dst_inode, r.src_inode) == channel.inodes]
    assert not back


def everything_until_now(live: Live) -> list[record.Record]:
    """Waits for a marker, so that all that was sent before it is there."""
    live.wait_ready()
    time.sleep(0.1)
    data = bytes(live._data)
    end = len(data)
    while True:
        try:
            return [record.decode(p.data) for p in pcapng.packets(data[:end])]
        except pcapng.PcapngError:  # the end of the last block is still on its way
            time.sleep(0.1)
            data = bytes(live._data)
            end = len(data)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, list[Channel]]]:
    done: list[Channel] = []
    with Live() as live:
        yield live, done
        live.stop()
        path = tmp_path_factory.mktemp("exact") / "exact.pcapng"
        live.save(path)
        check_with_tshark(path, done)


def check_with_tshark(path: Path, done: list[Channel]) -> None:
    """The whole capture again, as tshark reads it through the dissector."""
    options = ["-r", "-", "-T", "fields"]
    for name in ("event", "src.inode", "dst.inode", "payload"):
        options += ["-e", f"unixsock.{name}"]
    with path.open("rb") as file:
        reading = tshark.start(options, file)
    said, complaints = (text.decode() for text in reading.communicate())
    assert reading.returncode == 0, complaints
    seen: dict[tuple[int, int], list[bytes]] = {}
    for line in said.splitlines():
        event, src, dst, payload = line.split("\t")
        if event == "0" and src and dst:
            seen.setdefault((int(src), int(dst)), []).append(bytes.fromhex(payload))
    assert done
    for channel in done:
        assert seen.pop(channel.inodes, []) == channel.captured


@settings(
    max_examples=int(os.environ.get("UNIXSOCK_EXAMPLES", "40")),
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(program=st.lists(channels, min_size=1, max_size=4))
def test_what_is_received_is_captured(capture: tuple[Live, list[Channel]], program: list[Channel]) -> None:
    live, done = capture
    threads = [threading.Thread(target=run, args=(channel,)) for channel in program]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = everything_until_now(live)
    for channel in program:
        check(channel, records)
    done += program


#: Streams in the test of writers that race, and processes that write to each of them.
RACES, RACERS = 250, 3

fork = multiprocessing.get_context("fork")


def race(pairs: list[tuple[socket.socket, socket.socket]], racer: int, at: Any) -> None:
    """One of the processes that write to the same streams, each of them at the same moment."""
    for number, (sender, _) in enumerate(pairs):
        with at.get_lock():
            at.value += 1
        while at.value < (number + 1) * RACERS:
            os.sched_yield()
        for count in range(2):
            sender.send(b"%d %d %d;" % (number, racer, count))


def test_writers_that_race_are_told() -> None:
    """Processes that write to one stream at once, from its first message on."""
    with contextlib.ExitStack() as open_ones:
        others = check_races(open_ones)
    print(f"{others} of {RACES} streams in another order, all of them told")


def check_races(open_ones: contextlib.ExitStack) -> int:
    """How many streams were captured in another order than received.  Raises where that was not told."""

    def made() -> list[tuple[socket.socket, socket.socket]]:
        pairs = [socket.socketpair() for _ in range(RACES // 2)]
        for one in itertools.chain(*pairs):
            open_ones.enter_context(one)
        return pairs

    pairs = made()  # half of them before the capture
    with Live() as live:
        pairs += made()
        at = fork.Value("I", 0)
        racers = [fork.Process(target=race, args=(pairs, racer, at)) for racer in range(RACERS)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        live.wait_ready()
    records: dict[int, list[record.Record]] = {}
    for r in live.records:
        if r.event == Event.DATA:
            records.setdefault(r.src_inode, []).append(r)
    others = 0
    for sender, receiver in pairs:
        received = receiver.recv(1 << 16)
        ours = records[os.fstat(sender.fileno()).st_ino]
        check_stream(received, ours)
        check_positions(ours)
        others += b"".join(r.payload for r in ours) != received
    return others


def test_refused_sends_add_nothing(capture: tuple[Live, list[Channel]]) -> None:
    live, _ = capture
    full, _slow = socket.socketpair()
    full.setblocking(False)
    filled = 0
    refused = b"EAGAIN" + os.urandom(8)
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += full.send(bytes(10_000))
    with pytest.raises(BlockingIOError):
        full.send(refused)

    left, right = socket.socketpair()
    right.close()
    broken = b"EPIPE" + os.urandom(8)
    with pytest.raises(BrokenPipeError):
        left.send(broken)

    lonely = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    nobody = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    nobody.bind("/run/unixsock-nobody")
    nobody.close()
    nowhere = b"ECONNREFUSED" + os.urandom(8)
    with pytest.raises(ConnectionRefusedError):
        lonely.sendto(nowhere, "/run/unixsock-nobody")
    os.unlink("/run/unixsock-nobody")

    records = everything_until_now(live)
    inode = os.fstat(full.fileno()).st_ino
    assert sum(r.len for r in records if r.src_inode == inode and r.event == Event.DATA) == filled
    for payload in (refused, broken, nowhere):
        assert not [r for r in records if payload in r.payload]
