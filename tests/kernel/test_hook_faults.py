"""Hooks that cannot be attached, see nothing or are passed by: named or counted, and never a wrong zero."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from blocked_senders import BlockedSenders
from live import Live

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event

SHIM = Path(__file__).parent / "hooks_shim.py"

#: More threads than a kretprobe has instances: max(10, 2 x possible processors).
BLOCKED = 2 * os.sysconf("SC_NPROCESSORS_CONF") + 12
BESIDE = 100


def shim(what: str, functions: str = "") -> list[str]:
    """Return the command that starts another one with such hooks."""
    return [sys.executable, str(SHIM), what, functions]


def unixsock(what: str, functions: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*shim(what, functions), *command], capture_output=True, text=True, check=False)


@pytest.mark.thorough
def test_hooks_that_are_not_needed_are_a_line_each() -> None:
    functions = ("unix_bind", "unix_release_sock", "unix_stream_recvmsg", "cgroup_mkdir")
    done = unixsock("missing", ",".join(functions), "check")
    lines = done.stdout.splitlines()
    for function in functions:
        (line,) = [line for line in lines if line.startswith("note") and f"hook: {function} " in line]
        assert "Unknown without it: " in line
    for way in ("stream, write", "stream, splice", "dgram, write", "seqpacket, splice"):
        assert f"ok      self-test: {way}: captured" in lines


def test_a_capture_without_hooks_that_are_not_needed_captures() -> None:
    """Its log names them; the messages are there."""
    with Live(through=shim("missing", "unix_bind,unix_release_sock,unix_stream_recvmsg")) as live:
        here, there = socket.socketpair()
        with here, there:
            here.send(b"without them")
            there.recv(100)
    assert [r.payload for r in live.records if r.payload == b"without them"] == [b"without them"]


@pytest.mark.parametrize("what", ["missing", "blind"])
def test_a_message_hook_that_is_not_there_or_sees_nothing_is_named(what: str) -> None:
    done = unixsock(what, "skb_queue_tail", "dump", "-a", "duration:1")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if "skb_queue_tail" in line]
    assert "cannot be hooked" in sentence if what == "missing" else "that the probe itself sent" in sentence


def test_the_self_tests_own_messages_are_not_captured() -> None:
    with Live() as live:
        pass
    assert not [r for r in live.records if r.src_comm == b"unixsock"]


def _send_beside_blocked_threads() -> int:
    """Send numbered messages while other threads block in the middle of a send; return the sender's inode."""
    here, there = socket.socketpair()
    with here, there, BlockedSenders(BLOCKED):
        for number in range(BESIDE):
            here.send(struct.pack("<I", number))
            there.recv(4)
        return os.fstat(here.fileno()).st_ino


def _numbers(live: Live, inode: int) -> list[int]:
    data = [r for r in live.records if r.src_inode == inode and r.event == Event.DATA]
    return [struct.unpack("<I", r.payload)[0] for r in data]


def test_threads_that_block_in_the_middle_of_a_send_hide_no_message_of_others() -> None:
    with Live() as live:
        inode = _send_beside_blocked_threads()
    assert _numbers(live, inode) == list(range(BESIDE))


def test_without_sessions_messages_that_such_threads_hide_are_counted() -> None:
    """Where there are no kprobe.session links, at least as many are lost as are missing."""
    with Live(through=shim("sessionless")) as live:
        inode = _send_beside_blocked_threads()
    missing = BESIDE - len(_numbers(live, inode))
    (statistics,) = [body for kind, body in live.blocks if kind == pcapng.ISB]
    dropped = statistics[12:].partition(struct.pack("<HH", 5, 8))[2][:8]
    assert struct.unpack("<Q", dropped)[0] >= missing
