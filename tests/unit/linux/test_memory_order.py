"""Memory barriers, where the processor needs them."""

from __future__ import annotations

import errno
import os

import pytest

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux import memory_order


def test_x86_64_needs_none() -> None:
    assert (memory_order.needed_barrier() is None) == (os.uname().machine == "x86_64")


def test_a_kernel_without_membarrier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_order, "_MEMBARRIER", 283)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(memory_order.libc, "call", refuse)
    with pytest.raises(ProbeError, match=r"no membarrier\(2\).*CONFIG_MEMBARRIER"):
        memory_order.needed_barrier()


def test_the_barrier_is_a_call_that_the_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"x86_64": 324, "aarch64": 283}
    monkeypatch.setattr(memory_order, "_MEMBARRIER", numbers[os.uname().machine])
    barrier = memory_order.needed_barrier()
    assert barrier
    barrier()
