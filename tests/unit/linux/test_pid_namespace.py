"""Whose pids /proc shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unixsock_bpf.linux.pid_namespace import own_pid, parent_pid, pid_namespace

CHECKOUT = Path(__file__).parents[3]
LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from unixsock_bpf.linux.pid_namespace import own_pid, parent_pid, pid_namespace
print(own_pid(), parent_pid(), pid_namespace())
"""


def look(*prefix: str) -> list[int]:
    words = [*prefix, sys.executable, "-c", LOOK, str(CHECKOUT)]
    return [int(word) for word in subprocess.run(words, check=True, capture_output=True).stdout.split()]


def test_ours() -> None:
    assert (own_pid(), parent_pid()) == (os.getpid(), os.getppid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes pid namespaces")
def test_a_namespace_with_its_own_proc() -> None:
    pid, parent, namespace = look("unshare", "--pid", "--fork", "--mount-proc")
    assert (pid, parent) == (1, 0)
    assert namespace not in (0, pid_namespace())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes pid namespaces")
def test_a_namespace_that_sees_the_proc_of_another() -> None:
    pid, parent, namespace = look("unshare", "--pid", "--fork")
    assert pid > 1
    assert parent > 1
    assert namespace == pid_namespace()
