"""What started this process: where that can't be watched, nothing is."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

import pytest

from unixsock_bpf.capture import own_processes
from unixsock_bpf.linux import procfs

WRAPPED = (b"tshark", 1, 0)


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_wireshark_program_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "status", lambda _: WRAPPED)
    fd = own_processes.starter()
    assert fd is not None
    assert not select.select([fd], [], [], 0)[0]  # our parent runs
    os.close(fd)


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EPERM, errno.ENOSYS])
def test_what_may_not_be_watched_is_not(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(procfs, "status", lambda _: WRAPPED)
    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert own_processes.starter() is None


def test_another_parent_meanwhile_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([os.getppid(), 1])
    monkeypatch.setattr(procfs, "status", lambda _: WRAPPED)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    before = open_descriptors()
    assert own_processes.starter() is None
    assert open_descriptors() == before


@pytest.mark.parametrize("status", [None, (b"bash", 1, 0)])
def test_another_program_is_not_watched(
    monkeypatch: pytest.MonkeyPatch, status: tuple[bytes, int, int] | None
) -> None:
    monkeypatch.setattr(procfs, "status", lambda _: status)
    before = open_descriptors()
    assert own_processes.starter() is None
    assert open_descriptors() == before
