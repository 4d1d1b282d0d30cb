"""The compiler's process: what it gives back, how it fails, and that it does not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe.compiler_process import CompilerProcess


def test_work_is_done_side_by_side_and_its_answer_comes_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")
    (tmp_path / "meeting").chmod(0o666)
    tmp_path.chmod(0o711)

    def wait() -> str:
        return (tmp_path / "meeting").read_text()

    def wake() -> list[int]:
        (tmp_path / "meeting").write_text("awake")
        return [1, 2]

    with CompilerProcess(wait) as first, CompilerProcess(wake) as second:
        assert first.result() == "awake"
        assert second.result() == [1, 2]


def test_an_exception_comes_back_with_the_last_line_on_stderr() -> None:
    def fail() -> None:
        os.write(2, b"one thing\nanother thing\n\n")
        raise ValueError("no good")

    with CompilerProcess(fail) as job, pytest.raises(ProbeError, match=r"^no good \(another thing\)$"):
        job.result()


def test_a_process_that_ends_itself_is_told_from_what_it_said() -> None:
    def end() -> None:
        os.write(2, b"LLVM ERROR: too long")
        os._exit(1)

    with (
        CompilerProcess(end) as job,
        pytest.raises(ProbeError, match=r"can't be compiled: LLVM ERROR: too long$"),
    ):
        job.result()


def test_it_ends_with_the_block() -> None:
    began = time.monotonic()
    with CompilerProcess(lambda: time.sleep(100)) as job:
        child = job._child
    assert time.monotonic() - began < soon(10)
    assert child is not None
    assert not _alive(child)


PARENT = """
import os, time
from unixsock_bpf.probe.compiler_process import CompilerProcess
with CompilerProcess(lambda: time.sleep(100)) as job:
    os.write(1, b"%d " % job._child)
    time.sleep(100)
"""


def test_it_ends_with_its_parent_however_that_ends() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    with parent:
        child = _pid(parent)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + soon(10)
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


def test_it_can_read_what_root_can_but_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("header")
    (tmp_path / "secret").chmod(0o600)

    def look() -> list[str]:
        assert len(os.listdir("/proc/self/fd")) == 5  # stdin to stderr, the answer, and the list
        (tmp_path / "secret").read_text()
        refused = []
        for path in (tmp_path / "secret", tmp_path / "another", Path("/proc/sys/vm/drop_caches")):
            try:
                path.open("a").close()
            except PermissionError:
                refused.append(path.name)
        words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return [*refused, *words["Uid"].split(), words["NoNewPrivs"].strip(), words["CapEff"].strip()]

    with CompilerProcess(look) as job:
        *found, kept = job.result()
    assert found == ["secret", "another", "drop_caches", *["65534"] * 4, "1"]
    # A container may have had fewer.
    assert int(kept, 16) & ~(1 << 2 | 1 << 24 | 1 << 39) == 0
    assert int(kept, 16) & 1 << 2


def test_work_is_not_done_unprepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no room")

    done = tmp_path / "done"
    # Where a process may have no mounts of its own, what prepares it must not run either.
    for own_mounts, reason in ((True, "no room"), (False, "may not have mounts of its own")):
        monkeypatch.setattr("unixsock_bpf.probe.compiler_process._hide_symbols", lambda own=own_mounts: own)
        with CompilerProcess(done.touch, fail) as job, pytest.raises(ProbeError, match=reason):
            job.result()
    assert not done.exists()
