"""Facts of single records: who wrote, who reads, what travelled along, and what was queued."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sockmap
from leftovers import gone
from live import Live, decoded

from unixsock_bpf.record import Event, Record

SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD = 16, 34, 76
SCM_CREDENTIALS, SCM_SECURITY, SCM_PIDFD = 2, 3, 4
ROUNDS = 300
#: Rounds in which a peer goes away while somebody writes.
RACES = 400


class Facts:
    """What was captured, and what really happened."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.of: dict[str, object] = {}

    def data(self, prefix: bytes) -> list[Record]:
        return [r for r in self.records if r.event == Event.DATA and r.payload.startswith(prefix)]


@pytest.fixture(scope="module")
def facts() -> Facts:
    found = Facts()
    with Live() as live:
        for act in ACTS:
            act(found.of)
    assert live.status == 0, live.messages
    found.of["messages"] = live.messages
    found.records = live.records
    return found


def _in_child(work: Callable[[], None]) -> int:
    """Fork a process that does ``work``; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def _ended(pid: int) -> None:
    assert os.waitpid(pid, 0)[1] == 0


def _shared_end(of: dict[str, object]) -> None:
    """A parent reads from the end that its child writes to, while a third process answers."""
    ours, theirs = socket.socketpair()

    def write() -> None:
        for number in range(ROUNDS):
            ours.send(b"shared %03d" % number)
            # Who reads is known from the first receive on.
            while not number and fcntl.ioctl(ours, termios.TIOCOUTQ, bytes(4)) != bytes(4):
                time.sleep(0.01)

    def answer() -> None:
        for _ in range(ROUNDS):
            theirs.recv(10)
            theirs.send(b"answer")

    writer, answerer = _in_child(write), _in_child(answer)
    left = ROUNDS * len("answer")
    while left:
        left -= len(ours.recv(100))
    of["shared"] = os.getpid(), writer, answerer
    _ended(writer)
    _ended(answerer)


def test_the_sender_is_who_wrote_and_the_receiver_who_reads(facts: Facts) -> None:
    reader, writer, answerer = facts.of["shared"]  # type: ignore[misc]
    sent = facts.data(b"shared ")
    assert len(sent) == ROUNDS
    assert {(r.src_pid, r.src_tid) for r in sent} == {(writer, writer)}
    assert {r.dst_pid for r in sent[1:]} == {answerer}
    answers = facts.data(b"answer")
    assert {(r.src_pid, r.src_tid) for r in answers} == {(answerer, answerer)}
    assert {r.dst_pid for r in answers[1:]} == {reader}


def _other_user(of: dict[str, object]) -> None:
    """A process that gives up root between two messages."""
    ours, theirs = socket.socketpair()

    def write() -> None:
        ours.send(b"as root")
        os.setresgid(1234, 1234, 1234)
        os.setresuid(4321, 4321, 4321)
        ours.send(b"as user")

    _ended(_in_child(write))
    assert theirs.recv(100) == b"as rootas user"


def test_user_and_group_are_those_of_the_moment(facts: Facts) -> None:
    assert [(r.src_uid, r.src_gid) for r in facts.data(b"as ")] == [(0, 0), (4321, 1234)]


def _other_name(of: dict[str, object]) -> None:
    """A process that changes its name while another of its threads writes."""
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys, threading\n"
        f"s = socket.socket(fileno={ours.fileno()})\n"
        "def name(text): open('/proc/self/comm', 'w').write(text)\n"
        "def send(text):\n"
        "    t = threading.Thread(target=s.send, args=[text]); t.start(); t.join()\n"
        "name('before'); send(b'named before'); name('after'); send(b'named after')\n"
    )
    subprocess.run([sys.executable, "-c", code], pass_fds=[ours.fileno()], check=True)
    theirs.recv(100)


def test_a_name_that_changes_is_the_new_one(facts: Facts) -> None:
    assert [r.src_comm for r in facts.data(b"named ")] == [b"before", b"after"]


def _received(receiver: socket.socket) -> dict[int, bytes]:
    """Receive one message; its control messages of level SOL_SOCKET by type."""
    _, control, _, _ = receiver.recvmsg(100, 4096)
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == SCM_PIDFD:
            os.close(struct.unpack("i", value)[0])
    return {kind: value for level, kind, value in control if level == socket.SOL_SOCKET}


def _has_pidfds() -> bool:
    """Whether this kernel passes pidfds of senders (Linux 6.5)."""
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.getsockopt(socket.SOL_SOCKET, SO_PASSPIDFD)
        except OSError:
            return False
        return True


def _credentials(of: dict[str, object]) -> None:
    """All ways in which a message may carry who sent it, and what the receiver got."""
    got: dict[bytes, dict[int, bytes]] = {}
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        for option in (SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC):
            for side in ("receiver", "sender"):
                sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
                if option == SO_PASSPIDFD and not _has_pidfds():
                    continue
                (receiver if side == "receiver" else sender).setsockopt(socket.SOL_SOCKET, option, 1)
                payload = b"credentials %d %d %s" % (kind, option, side.encode())
                sender.send(payload)
                got[payload] = _received(receiver)
        sender, receiver = socket.socketpair(socket.AF_UNIX, kind)
        receiver.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
        payload = b"credentials %d explicit" % kind
        claimed = struct.pack("3i", os.getpid(), 77, 88)
        sender.sendmsg([payload], [(socket.SOL_SOCKET, SCM_CREDENTIALS, claimed)])
        got[payload] = _received(receiver)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0unixsock-credentials")
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("\0unixsock-credentials")
    client.send(b"credentials before accept")
    server, _ = listener.accept()
    server.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    got[b"credentials before accept"] = _received(server)
    of["credentials"] = got


def test_credentials_are_those_that_the_receiver_got(facts: Facts) -> None:
    got: dict[bytes, dict[int, bytes]] = facts.of["credentials"]  # type: ignore[assignment]
    assert any(SCM_CREDENTIALS in control for control in got.values())
    for payload, control in got.items():
        (r,) = facts.data(payload)
        wanted = struct.unpack("3i", control[SCM_CREDENTIALS]) if SCM_CREDENTIALS in control else None
        assert r.creds == wanted, payload
        assert r.creds_pidfd == (os.getpid() if SCM_PIDFD in control else None), payload
        assert (r.creds_security is not None) == (SCM_SECURITY in control), payload


def _redirected(of: dict[str, object]) -> None:
    """A BPF program of a sockmap takes a datagram to another socket than the one that it was sent to."""
    of["redirected"] = sockmap.redirect(b"redirected")


def test_a_message_that_a_sockmap_redirects_is_recorded_once(facts: Facts) -> None:
    if facts.of["redirected"] is None:  # sockmaps take Unix sockets since Linux 5.15
        assert not Path("/sys/kernel/btf/vmlinux").read_bytes().count(b"unix_dgram_bpf_update_proto")
        return
    src, dst = facts.of["redirected"]  # type: ignore[misc]
    assert [(r.src_inode, r.dst_inode) for r in facts.data(b"redirected")] == [(src, dst)]


def _fill(one: socket.socket) -> None:
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            one.send(b"filler")
    one.setblocking(True)


def _descriptors(of: dict[str, object]) -> None:
    """Of two threads on the processor that was not the first to pass descriptors, one waits in its send."""
    processors = sorted(os.sched_getaffinity(0))
    first, second = processors[0], processors[-1]
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    full, drain = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    _fill(full)

    def send(cpu: int, one: socket.socket, payload: bytes) -> None:
        os.sched_setaffinity(0, {cpu})
        socket.send_fds(one, [payload], [0])

    def run(*arguments: object) -> threading.Thread:
        thread = threading.Thread(target=send, args=arguments)
        thread.start()
        return thread

    run(first, here, b"passed first").join()
    waiting = run(second, full, b"passed after waiting")
    time.sleep(0.5)
    for number in range(8):
        run(second, here, b"passed %d" % number).join()
    with contextlib.suppress(BlockingIOError):
        drain.setblocking(False)
        while True:
            drain.recv(100)
    waiting.join()
    there.close()


def test_passed_descriptors_are_told_of_all_threads(facts: Facts) -> None:
    sent = facts.data(b"passed ")
    assert len(sent) == 10
    assert [r.payload for r in sent if len(r.fds) != 1] == []


def _undelivered(of: dict[str, object]) -> None:
    """Writers that race with their peer's end, some on one socket; how many bytes their calls returned."""
    total = [0]
    lock = threading.Lock()

    def write(one: socket.socket) -> None:
        for _ in range(60):
            try:
                sent = one.send(b"r" * 64, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                continue
            except OSError:
                return
            with lock:
                total[0] += sent

    inodes = set()
    for number in range(RACES):
        ours, theirs = socket.socketpair()
        inodes.add(os.fstat(ours.fileno()).st_ino)
        ours.setblocking(False)
        threads = [threading.Thread(target=write, args=[ours]) for _ in range(1 + number % 3 // 2 * 2)]
        for thread in threads:
            thread.start()
        time.sleep(random.random() * 0.002)
        theirs.shutdown(socket.SHUT_RD) if number % 2 else theirs.close()
        for thread in threads:
            thread.join()
        ours.close()
        theirs.close()
    of["undelivered"] = total[0]


def test_what_was_not_queued_in_the_end_is_taken_back(facts: Facts) -> None:
    recorded = sum(r.len for r in facts.data(b"r" * 64))
    taken_back = [r for r in facts.records if r.event == Event.UNDELIVERED]
    assert recorded - sum(r.len for r in taken_back) == facts.of["undelivered"]
    for r in taken_back:
        of_it = [d for d in facts.data(b"r" * 64) if d.src_sock == r.src_sock]
        assert any((d.seq, d.len) == (r.seq, r.len) for d in of_it)


ACTS = (_shared_end, _other_user, _other_name, _credentials, _redirected, _descriptors, _undelivered)


def test_nothing_was_lost(facts: Facts) -> None:
    assert facts.of["messages"] == ""


def test_a_message_that_is_cut_by_a_full_ring_is_lost_from_there_on() -> None:
    limit = Path("/proc/sys/net/core/wmem_max")
    old = limit.read_text()
    limit.write_text("8000000")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
    try:
        with Live("--buffer-size", "1") as live:
            live.reading.clear()
            filler, sink = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            # Pipes and the reader's own buffers take some before the ring fills.
            for _ in range(40):
                for _ in range(10):
                    filler.send(bytes(60_000))
                    sink.recv(1)
                time.sleep(0.01)
            for _ in range(20):
                left.send(b"C" * 900_000)
                right.recv(1)
            time.sleep(0.5)
            live.reading.set()
            live.wait_ready()
            left.send(b"C")
    finally:
        limit.write_text(old)
    sent = [r for r in live.records if r.src_inode == os.fstat(left.fileno()).st_ino]
    position = 0
    cut = 0
    for before, r in zip([None, *sent], sent):
        assert r.seq + r.offset == position, (r.seq, r.offset, position)
        if r.event == Event.LOST:
            assert r.lost
            cut += before is not None and before.event == Event.DATA and bool(before.flags & 16)
            position += r.lost[1]
        else:
            position += len(r.payload)
    assert position == 20 * 900_000 + 1
    assert any(r.lost for r in sent)


def test_positions_go_on_in_a_pause_and_an_end_is_told() -> None:
    from unixsock_bpf.capture.session import Capture
    from unixsock_bpf.options import Settings

    stream, datagrams = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    early, late = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    pid = os.getpid()
    records: list[Record] = []
    with Capture(Settings(include_capture_processes=True)) as capture:
        reader = threading.Thread(target=lambda: records.extend(decoded(capture.blocks())))
        reader.start()
        pairs = {b"stream": stream, b"dgram": datagrams}
        for name, (one, other) in pairs.items():
            one.send(b"a " + name)
            other.recv(100)
        early[0].send(b"closed in the pause")
        capture.pause(True)
        for one, other in pairs.values():
            one.send(b"b" * 40)
            other.recv(100)
        late[0].send(b"c" * 7)
        late[1].recv(100)
        for one in early:
            one.close()
        capture.pause(False)
        for name, (one, other) in pairs.items():
            one.send(b"d " + name)
            other.recv(100)
        late[0].send(b"d late")
        late[1].recv(100)
        capture.stop()
        reader.join(60)
    ours = [r for r in records if r.src_pid == pid and r.event == Event.DATA]
    positions = {r.payload: (r.seq, r.message) for r in ours}
    assert positions[b"d stream"] == (len(b"a stream") + 40, 2)
    assert positions[b"d dgram"] == (len(b"a dgram") + 40, 2)
    assert positions[b"d late"] == (7, 1) or not any(r.flags & 128 for r in ours if r.payload == b"d late")
    assert not any(r.payload.startswith((b"b", b"c" * 7)) for r in ours)
    (closed,) = [r for r in ours if r.payload == b"closed in the pause"]
    assert any(r.event == Event.CLOSE and r.src_sock == closed.src_sock for r in records)
    gone()  # although the process that captured lives on


#: Of this file and of the package, for programs of their own.
FOLDERS = (str(Path(__file__).parent), str(Path(__file__).parents[2]))

INSIDE = """
import json, os, socket, sys
sys.path[:0] = sys.argv[2:]
from live import Live
outside = socket.socket(fileno=int(sys.argv[1]))
with Live() as live:
    a, b = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        a.send(b"inside")
        os._exit(0)
    os.waitpid(pid, 0)
    b.recv(100)
    outside.send(b"go on")
    outside.recv(100)
    inherited = os.fstat(outside.fileno()).st_ino
found = [
    [r.payload.decode(), r.src_pid, r.src_tid, r.dst_pid, r.src_uid]
    for r in live.records
    if r.payload in (b"inside", b"go on", b"outside")
]
own = [r.src_comm.decode() for r in live.records if r.src_pid == live.process.pid]
print(json.dumps([os.getpid(), pid, found, own, live.messages]))
"""


def test_pids_are_those_of_the_capture_s_pid_namespace() -> None:
    import json

    here, there = socket.socketpair()
    threading.Thread(target=lambda: (here.recv(100), here.send(b"outside"))).start()
    answer = subprocess.run(
        [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            sys.executable,
            "-c",
            INSIDE,
            str(there.fileno()),
            *FOLDERS,
        ],
        pass_fds=[there.fileno()],
        capture_output=True,
        timeout=500,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr.decode()
    inside, child, found, own, messages = json.loads(answer.stdout)
    assert (inside, messages) == (1, "")
    told = {payload: values for payload, *values in found}
    assert told["inside"] == [child, child, 1, 0]
    assert told["go on"][:2] == [1, 1]
    assert told["outside"][:2] == [0, 0]  # not visible from inside
    assert own == []


@pytest.mark.thorough
def test_the_memory_that_the_probe_takes_is_told() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "unixsock_bpf", "check"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    (line,) = [line for line in answer.stdout.splitlines() if "MiB" in line]
    words = line.split()
    assert float(words[words.index("MiB") - 1]) <= 40


def test_the_kernel_prints_no_warning() -> None:
    log = ctypes.create_string_buffer(1 << 20)
    length = ctypes.CDLL(None).klogctl(3, log, len(log))
    assert b"WARNING" not in log.raw[:length]
