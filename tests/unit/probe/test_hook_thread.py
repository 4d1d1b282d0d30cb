"""Threads that keep a descriptor each.  A pipe's end stands for a hook: its reader sees it close."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf.linux import sandbox
from unixsock_bpf.probe import hook_thread
from unixsock_bpf.probe.hook_thread import HookThread


def is_closed(reader: int, seconds: float = 0.0) -> bool:
    """Whether nobody has the other end of a pipe open, or within some seconds from now."""
    poll = select.poll()
    poll.register(reader, 0)
    return bool(poll.poll(seconds * 1000))


def thread_of(one: HookThread) -> Path:
    return Path(f"/proc/self/task/{one._thread.native_id}")


def test_it_is_open_until_detached() -> None:
    reader, writer = os.pipe()
    one = HookThread(writer)
    assert one.apart
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)  # taken over
    assert not is_closed(reader, 0.1)
    one.detach()
    one.join()
    assert is_closed(reader)
    os.close(reader)


def test_it_has_nothing_else_and_gets_no_signal() -> None:
    reader, writer = os.pipe()
    target = os.readlink(f"/proc/self/fd/{writer}")
    one = HookThread(writer)
    thread = thread_of(one)
    assert [os.readlink(fd) for fd in (thread / "fd").iterdir()] == [target]
    lines = dict(
        line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line
    )
    assert lines["NoNewPrivs"] == "1"
    assert int(lines["CapBnd"], 16) == 0
    blocked = int(lines["SigBlk"], 16)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGIO, signal.SIGALRM):
        assert blocked >> (number - 1) & 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()  # ours are as they were
    one.detach()
    one.join()
    os.close(reader)


def test_all_are_detached_when_the_process_is_killed() -> None:
    readers, writers = zip(*(os.pipe() for _ in range(10)))
    begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        for reader in readers:
            os.close(reader)
        kept = [HookThread(writer) for writer in writers]
        os.write(begin, bytes([len(kept)]))
        signal.pause()
    for writer in writers:
        os.close(writer)
    assert os.read(begun, 1) == b"\n"
    assert not any(map(is_closed, readers))
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + soon(5)
    while not all(map(is_closed, readers)):
        assert time.monotonic() < deadline
    os.waitpid(child, 0)
    for fd in (*readers, begun, begin):
        os.close(fd)


def test_a_forked_process_cannot_detach() -> None:
    reader, writer = os.pipe()
    one = HookThread(writer)
    child = os.fork()
    if child == 0:
        one.detach()
        one.join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not is_closed(reader, 0.1)
    one.detach()
    one.join()
    assert is_closed(reader)
    os.close(reader)


def test_where_threads_get_no_table_the_process_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise PermissionError

    monkeypatch.setattr(hook_thread, "_take_own_table", refuse)
    reader, writer = os.pipe()
    one = HookThread(writer)
    assert not one.apart
    os.fstat(writer)
    one.detach()
    one.join()
    assert is_closed(reader)
    os.close(reader)


def test_it_gives_up_root_with_the_process_and_can_detach_then() -> None:
    reader, writer = os.pipe()
    results, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        one = HookThread(writer)
        thread = thread_of(one)
        status = os.open(thread / "status", os.O_RDONLY)
        sandbox.enter(65534, {results, status}, {report})
        text = os.read(status, 8192).decode()
        one.detach()
        one.join()
        os.write(report, json.dumps(text).encode())
        os._exit(0)
    os.close(writer)
    os.close(report)
    assert is_closed(reader, 5)
    with os.fdopen(results, "rb") as pipe:
        lines = json.loads(pipe.read()).splitlines()
    assert os.waitpid(child, 0)[1] == 0
    left = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(left[name][0], 16) == 0
    assert left["Uid"] == left["Gid"] == ["65534"] * 4
    assert (left["Groups"], left["NoNewPrivs"], left["Seccomp"]) == ([], ["1"], ["2"])
    os.close(reader)
