"""A capture of everything that a real sshd carries does not feed on itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import far
import pytest
from far import SUDOER, Far, running

pytestmark = pytest.mark.thorough

#: Seconds in which nothing may grow.
QUIET = 5
MARKER = b"one message"


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with far.prepared(), Far("here"):
        yield


def one_message() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.send(MARKER)
        there.recv(99)


PTY = "Defaults use_pty\n"


@pytest.mark.parametrize(
    ("words", "sudoers"),
    [
        (("here", "unixsock dump '*' -w -"), ""),
        ((f"{SUDOER}@here", "sudo -n unixsock dump '*' -w -"), ""),
        ((f"{SUDOER}@here", "sudo -n unixsock dump '*' -w - | cat"), PTY),
        (("-tt", f"{SUDOER}@here", "sudo -n unixsock dump '*' --format string"), PTY),
    ],
    ids=["root", "sudo", "sudo with a pty, and a pipe", "terminal"],
)
def test_no_feedback_through_sshd(words: tuple[str, ...], sudoers: str) -> None:
    Path("/etc/sudoers.d/pty").write_text(sudoers)
    with running("ssh", *words) as capture:
        capture.settle()
        assert capture.grown(QUIET) == 0, capture.said[-3000:]
        for _ in range(3):
            one_message()
            capture.settle()
        assert capture.file.read_bytes().count(MARKER) == 3
        assert capture.grown(QUIET) == 0
        assert capture.size < 16_384
