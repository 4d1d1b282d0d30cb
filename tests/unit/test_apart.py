"""The compiler's process: what it gives back, how it fails, and that it does not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unixsock_bpf.probe.apart import Apart
from unixsock_bpf.probe.errors import ProbeError


def test_work_is_done_side_by_side_and_its_answer_comes_back() -> None:
    meeting, waiting = os.pipe()

    def wait() -> str:
        return os.read(meeting, 9).decode()

    def wake() -> list[int]:
        os.write(waiting, b"awake")
        return [1, 2]

    with Apart(wait) as first, Apart(wake) as second:
        assert first.result() == "awake"
        assert second.result() == [1, 2]


def test_an_exception_comes_back_with_the_last_line_on_stderr() -> None:
    def fail() -> None:
        os.write(2, b"one thing\nanother thing\n\n")
        raise ValueError("no good")

    with Apart(fail) as job, pytest.raises(ProbeError, match=r"^no good \(another thing\)$"):
        job.result()


def test_a_process_that_ends_itself_is_told_from_what_it_said() -> None:
    def end() -> None:
        os.write(2, b"LLVM ERROR: too long")
        os._exit(1)

    with Apart(end) as job, pytest.raises(ProbeError, match=r"can't be compiled: LLVM ERROR: too long$"):
        job.result()


def test_it_ends_with_the_block() -> None:
    began = time.monotonic()
    with Apart(lambda: time.sleep(100)):
        pass
    assert time.monotonic() - began < 10
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


PARENT = """
import os, time
from unixsock_bpf.probe.apart import Apart
with Apart(lambda: (os.write(1, b"%d " % os.getpid()), time.sleep(100))):
    time.sleep(100)
"""


def test_it_ends_with_its_parent_however_that_ends() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    with parent:
        child = _pid(parent)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _pid(parent: subprocess.Popen[bytes]) -> int:
    assert parent.stdout
    digits = b""
    while not digits.endswith(b" "):
        digits += os.read(parent.stdout.fileno(), 1)
    return int(digits)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
