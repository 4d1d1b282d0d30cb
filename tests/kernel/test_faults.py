"""Faults: whoever is killed, whatever ends in the middle, a capture leaves nothing behind and loses
nothing without saying so.

``UNIXSOCK_LONG`` (``make test-faults``) takes the long forms: more starts, longer silence and blast.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from leftovers import SOON, ended, family, gone, hooks, only, pinned, programs, readable
from live import EXTCAP, READY_TIMEOUT, Live
from patience import soon

from unixsock_bpf import record
from unixsock_bpf.formats import reader
from unixsock_bpf.record import Event

pytestmark = pytest.mark.thorough

LONG = bool(os.environ.get("UNIXSOCK_LONG"))

#: Seconds after which what was killed has left no probe.
AT_ONCE = 1

COMMAND = [sys.executable, "-m", "unixsock_bpf"]
CHECKOUT = Path(__file__).parents[2]


@contextmanager
def blast(pause: float = 0.0) -> Iterator[tuple[int, list[int]]]:
    """Numbered messages on a stream, from a thread: the sender's inode, and how many were sent so far."""
    left, right = socket.socketpair()
    sent = [0]
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            left.send(struct.pack("<I", sent[0]))
            right.recv(4)
            sent[0] += 1
            time.sleep(pause)

    thread = threading.Thread(target=run)
    with left, right:
        thread.start()
        yield os.fstat(left.fileno()).st_ino, sent
        ending.set()
        thread.join()


def numbers(records: list[record.Record], inode: int) -> list[int]:
    """What ``blast`` said, as captured."""
    ours = [r for r in records if r.src_inode == inode and r.event == Event.DATA]
    return [struct.unpack("<I", r.payload)[0] for r in ours]


@pytest.fixture
def interface(tmp_path: Path) -> Path:
    """A home whose tshark knows the interface."""
    for folder in (tmp_path / ".config/wireshark/extcap", tmp_path / ".local/lib/wireshark/extcap"):
        folder.mkdir(parents=True)
        (folder / "unixsock").symlink_to(EXTCAP)
    return tmp_path


def test_kill_9_in_a_burst_with_four_captures_at_once(interface: Path) -> None:
    files = {who: interface / f"{who}.pcapng" for who in ("tshark", "dumpcap", "extcap", "nobody")}
    environment = os.environ | {"HOME": str(interface)}
    begin = time.monotonic()
    running = {
        who: subprocess.Popen(
            ["tshark", "-q", "-i", "unixsock", "-f", "type stream", "-w", str(file)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )
        for who, file in files.items()
    }  # fmt: skip
    try:
        with blast(0.002) as (inode, sent):
            while not all(file.exists() and file.stat().st_size > 2000 for file in files.values()):
                assert time.monotonic() - begin < 3 * READY_TIMEOUT, "no packets in four captures"
                time.sleep(0.1)
            print(f"four captures at once deliver after {time.monotonic() - begin:.1f} s")
            each, rest = divmod(programs(), 4)
            assert (each > 5, rest) == (True, 0)
            left = 4
            for who in ("tshark", "dumpcap", "extcap"):
                processes = family(running[who].pid)
                victim = only(processes, {"extcap": "extcap/unixsock"}.get(who, who))
                os.kill(victim, signal.SIGKILL)
                left -= 1
                seconds = gone(left * each)
                assert seconds < soon(AT_ONCE)
                print(f"kill -9 of {who}: its probes are gone after {seconds:.2f} s, "
                      f"all its processes {ended(list(processes)):.2f} s later")  # fmt: skip
        last, deadline = b"", time.monotonic() + soon(SOON)
        while time.monotonic() < deadline and last != struct.pack("<I", sent[0] - 1):
            time.sleep(0.2)
            last = [r.payload for r in readable(files["nobody"]) if r.src_inode == inode and r.payload][-1]
        running["nobody"].send_signal(signal.SIGINT)
        running["nobody"].communicate(timeout=60)
    finally:
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    gone()
    assert pinned() == []
    found = numbers(readable(files["nobody"]), inode)
    assert found == list(range(found[0], sent[0]))  # the survivor has all, to the end
    for who in ("tshark", "dumpcap", "extcap"):
        found = numbers(readable(files[who]), inode)
        assert found
        assert found == list(range(found[0], found[0] + len(found)))


def test_kill_9_while_nothing_is_said(interface: Path) -> None:
    """dumpcap, which would notice with the next packet, ends with the extcap."""
    file, name = interface / "nothing.pcapng", str(interface / "socket")
    tshark = subprocess.Popen(
        ["tshark", "-q", "-i", "unixsock", "-f", f"path {name}", "-w", str(file)],
        env=os.environ | {"HOME": str(interface)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + READY_TIMEOUT
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
        here.bind(name)
        while not file.exists() or file.stat().st_size < 2000:
            assert time.monotonic() < deadline, "nothing was captured"
            here.sendto(bytes(1000), name)
            here.recv(1000)
            time.sleep(0.1)
    time.sleep(1)
    processes = family(tshark.pid)
    assert only(processes, "dumpcap") != only(processes, "extcap/unixsock")
    tshark.kill()
    tshark.wait()
    print(f"kill -9 of tshark while no socket is used: all its processes are gone after "
          f"{ended(list(processes)):.2f} s, its probes {gone():.2f} s later")  # fmt: skip


@pytest.mark.parametrize("talks", [False, True], ids=["nobody talks", "busy loop"])
def test_what_costs_those_who_talk_goes_first_when_killed(talks: bool) -> None:
    """The kernel takes fentry hooks out one by one, the last first: that which tells of messages.  It takes
    kprobes out meanwhile, and all are gone within a second."""
    with Live() as live, blast() if talks else nullcontext():
        time.sleep(1)
        attached = hooks()
        assert attached > 2
        live.process.kill()
        begin = time.monotonic()
        while hooks() == attached:
            assert time.monotonic() - begin < soon(1)
        first = time.monotonic() - begin
        gone()
        last = time.monotonic() - begin
        print(f"kill -9 of the extcap: the message hook gone after {first:.2f} s, all after {last:.2f} s")
        assert last < soon(AT_ONCE)
        live.process.wait()


def start(number: int, folder: Path) -> tuple[subprocess.Popen[str], str | None]:
    """The extcap, or ``unixsock dump -w``, in turn; and the file of the latter."""
    if number % 2:
        file = str(folder / f"{number}.pcapng")
        command = [*COMMAND, "dump", "type dgram", "-w", file]
        return subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True), file
    fifo = str(folder / f"{number}.fifo")
    os.mkfifo(fifo)
    threading.Thread(target=lambda: Path(fifo).read_bytes()).start()
    command = [str(EXTCAP), "--capture", "--extcap-interface", "unixsock", "--fifo", fifo]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True), None


def before_our_code(said: str) -> bool:
    """Whether it is the interpreter itself that complains of a signal, on its way to our code."""
    return "Fatal Python error: init_" in said or ("Traceback" in said and "unixsock_bpf/" not in said)


def test_a_signal_at_any_point_of_start_up(tmp_path: Path) -> None:
    count = 40 if LONG else 6
    begin = time.monotonic()
    with Live() as live:
        whole = time.monotonic() - begin
        live.stop()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGINT)
    for first in range(0, count, 3):  # three at once, so all is slower: half as late again
        group = [(n, *start(n, tmp_path)) for n in range(first, min(first + 3, count))]
        begin = time.monotonic()
        for n, process, _ in group:
            time.sleep(max(0.0, begin + whole * 1.5 * (n + 1) / count - time.monotonic()))
            process.send_signal(signals[n // 2 % 4])
        for n, process, file in group:
            said = process.communicate(timeout=READY_TIMEOUT)[1]
            if not before_our_code(said):
                assert process.returncode in (0, -signals[n // 2 % 4]), said
                assert "Traceback" not in said
            if file and Path(file).exists():
                assert [one for one in reader.read(file) if one.record.lost] == []
    print(f"{count} signals within {whole * 1.5:.0f} s of a start; nothing is left after {gone():.2f} s")
    assert pinned() == []


def test_sockets_and_processes_that_go_while_they_talk() -> None:
    """Children fork, talk and end, by themselves or killed; their messages are all there."""
    rounds = 400 if LONG else 60
    with Live() as live:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        inodes = {}
        for n in range(rounds):
            left, right = socket.socketpair()
            inodes[n] = os.fstat(left.fileno()).st_ino, os.fstat(here.fileno()).st_ino
            pid = os.fork()
            if pid == 0:
                left.send(b"%d" % n)
                here.send(b"%d" % n)
                if n % 3 == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if n % 3 == 1:
                    os._exit(0)
                os.execv("/bin/true", ["true"])
            left.close()
            if n % 2:
                right.close()  # it may be the last of the socket: a queued message dies with it
            there.recv(10)
            os.waitpid(pid, 0)
            if not n % 2:
                assert right.recv(10) == b"%d" % n
                right.close()
    by_inode = {inode: b"%d" % n for n, (inode, _) in inodes.items()}
    said = {r.src_inode: r.payload for r in live.records if r.event == Event.DATA and r.src_inode in by_inode}
    both_open = {inode: payload for inode, payload in by_inode.items() if not int(payload) % 2}
    assert {inode: said.get(inode) for inode in both_open} == both_open
    in_order = [r.payload for r in live.records if r.src_inode == inodes[0][1] and r.event == Event.DATA]
    assert in_order == [b"%d" % n for n in range(rounds)]
    assert live.messages == ""


def test_the_clock_jumps() -> None:
    """Time stamps follow the wall clock, both ways."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    when: list[float] = []
    moved = 0.0
    with left, right, Live() as live:
        try:
            for jump in (0, 3600, -7200, 86_400 * 400):
                time.clock_settime(time.CLOCK_REALTIME, time.time() + jump)
                moved += jump
                time.sleep(2.5)  # the reader looks at the clock at least once a second
                when.append(time.time())
                left.send(b"jump")
                right.recv(10)
        finally:
            time.clock_settime(time.CLOCK_REALTIME, time.time() - moved)
        inode = os.fstat(left.fileno()).st_ino
    stamps = [p.time_ns / 1e9 for p, r in zip(live.packets, live.records, strict=True) if r.src_inode == inode
              and r.payload == b"jump"]  # fmt: skip
    off = [abs(stamp - true) for stamp, true in zip(stamps, when, strict=True)]
    print(
        "after jumps of 0, 1 h, -2 h, 400 days time stamps are off by",
        [f"{seconds:.3f} s" for seconds in off],
    )
    assert max(off) < 0.5


def resident(pid: int) -> int:
    """A process's memory in KiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def test_memory_stays_flat_over_a_long_blast() -> None:
    """While nobody reads, as much again as the ring holds is kept; what is lost then is counted exactly."""
    seconds, silence = (600, 60) if LONG else (20, 3)
    with Live("--buffer-size", "1") as live, blast(0.0005 if LONG else 0) as (inode, sent):
        readings = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(seconds / 10)
            readings.append(resident(live.process.pid))
        before = sent[0]
        live.reading.clear()
        time.sleep(silence)
        readings.append(resident(live.process.pid))
        live.reading.set()
        live.wait_ready()
        time.sleep(1)
    growth, kept = max(readings[2:-1]) - readings[1], readings[-1] - readings[1]
    print(f"{before} messages in {seconds} s, then {silence} s without a reader: memory {readings} KiB")
    assert growth < 2048
    assert kept < 4 * 1024  # at most 1 MiB, and what Python needs for it: 3.2 MiB were measured
    position = lost = 0
    for r in (r for r in live.records if r.src_inode == inode):
        assert r.message == position
        if r.event == Event.DATA:
            assert struct.unpack("<I", r.payload)[0] == position
            position += 1
        elif r.lost:
            assert r.lost[1] == 4 * r.lost[0]
            position, lost = position + r.lost[0], lost + r.lost[0]
    assert position == sent[0]
    print(f"lost while nobody read: {lost}")


if LONG:

    def test_20_starts_and_stops_in_a_row() -> None:
        times = []
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with left, right:
            inode = os.fstat(left.fileno()).st_ino
            for _ in range(20):
                begin = time.monotonic()
                with Live() as live:
                    left.send(b"here")
                    right.recv(10)
                    live.stop()
                times.append(time.monotonic() - begin)
                assert [r.payload for r in live.records if r.src_inode == inode and r.event == 0] == [b"here"]
                gone()
        print("20 starts and stops:", [f"{seconds:.1f}" for seconds in times], "s")
