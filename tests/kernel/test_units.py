"""Filters by systemd unit and by container: the kernel takes their processes, also those of a later start."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import Actor
from live import Live

from unixsock_bpf.record import Event

pytestmark = pytest.mark.thorough

CGROUPS = Path("/sys/fs/cgroup")
UNIT, CONTAINER = CGROUPS / "unixsock-late.service", CGROUPS / "unixsock-slice" / f"docker-{'a5' * 32}.scope"


@contextlib.contextmanager
def member(folder: Path, comm: str) -> Iterator[Actor]:
    """A process in a cgroup that is there as long as it is."""
    folder.mkdir(parents=True)
    try:
        with Actor(comm) as actor:
            actor.do(f"open('{folder}/cgroup.procs', 'w').write(str(os.getpid()))")
            yield actor
    finally:
        for one in (folder, *folder.parents):
            with contextlib.suppress(OSError):
                one.rmdir()


def until_captured(live: Live, actor: Actor) -> None:
    """Have ``actor`` send something until it is captured."""

    def send(marker: bytes, _: socket.socket) -> None:
        actor.do(f"a, b = socket.socketpair(); a.send({marker!r}); b.recv(100)")

    live.wait_ready_by(send)


def test_a_start_after_the_captures_is_captured_and_another() -> None:
    """From the first and the second start on; nothing of processes elsewhere."""
    wanted = f"unit unixsock-late or container {'a5' * 8} or pid {os.getpid()}"
    with Actor("elsewhere") as other, Live("--process-details", capture_filter=wanted) as live:
        for number in (1, 2):
            for name, folder in (("unit", UNIT), ("container", CONTAINER)):
                with member(folder / "inner", f"{name}-{number}") as inside:
                    until_captured(live, inside)
                    other.do("a, b = socket.socketpair(); a.send(b'elsewhere'); b.recv(100)")
        live.stop()
    assert live.status == 0, live.messages
    senders = {one.src_comm for one in live.records if one.event == Event.DATA}
    assert {b"unit-1", b"unit-2", b"container-1", b"container-2"} <= senders
    assert b"elsewhere" not in senders
    own = [one for one in live.records if one.src_comm == b"unit-2" and one.event == Event.DATA]
    known = {(one.src_exe, one.src_parent, one.src_user, one.src_cmdline.split(b"\0")[1]) for one in own}
    assert (os.readlink("/proc/self/exe").encode(), os.getpid(), b"root", b"-c") in known
