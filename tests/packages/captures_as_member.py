"""In a guest with the Debian packages: captures_as_member.py MEMBER STRANGER.  Exits with 1 if it fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from leftovers import gone

import unixsock_bpf

#: Seconds in which one capture has to begin: a guest compiles slowly.
_PATIENCE = 1200
_COUNT = 3


def writable(name: str) -> None:
    """Have what is written to a folder of the root directory lie in memory."""
    upper, work = Path(f"/dev/shm/layers/{name}/upper"), Path(f"/dev/shm/layers/{name}/work")
    upper.mkdir(parents=True)
    work.mkdir()
    options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"/{name}"], check=True)


#: Root may not look into others' homes, as where they are on NFS.
_SQUASHED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def as_user(user: str, command: str, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a shell command as after a login of ``user``."""
    began = time.monotonic()
    words = [*through, "su", "-", user, "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    print(f"{user}: {command}: {time.monotonic() - began:.1f} s", flush=True)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    return done


@contextmanager
def sending() -> Iterator[list[bytes]]:
    """Send messages through a pair of sockets of this process; yield what was sent."""
    sent: list[bytes] = []
    ended = threading.Event()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send() -> None:
        while not ended.wait(0.2):
            sent.append(b"message %d of the packages' test" % len(sent))
            here.send(sent[-1])
            there.recv(100)

    thread = threading.Thread(target=send)
    with here, there:
        thread.start()
        try:
            yield sent
        finally:
            ended.set()
            thread.join()


def check(member: str, stranger: str) -> None:
    assert "/dist-packages/" in str(unixsock_bpf.__file__)  # the package's, and not the checkout's
    listed = as_user(member, "tshark -D")
    assert listed.stdout.count("unixsock (Unix sockets)") == 1
    fields = "-l -T fields -e unixsock.pid -e unixsock.payload"
    ours = f"pid {os.getpid()}"
    with sending() as sent:
        captured = as_user(member, f"tshark -i unixsock -f '{ours}' -c {_COUNT} {fields}")
        assert captured.returncode == 0
        rows = [line.split("\t") for line in captured.stdout.splitlines()]
        assert len(rows) == _COUNT
        payloads = [bytes.fromhex(payload.replace(":", "")) for _, payload in rows]
        first = sent.index(payloads[0])
        assert payloads == sent[first : first + _COUNT]
        gone()
        Path("/home", member).chmod(0o700)
        assert subprocess.run([*_SQUASHED, "sh", "-c", f"! ls /home/{member}"], check=False).returncode == 0
        dumped = as_user(member, f"unixsock dump '{ours}' -c {_COUNT} --format json", _SQUASHED)
        assert dumped.returncode == 0
        assert dumped.stdout.count("of the packages' test") == _COUNT
        gone()
        refused = as_user(
            stranger, "unixsock dump"
        )  # tshark's words: tests/kernel/test_unprivileged_users.py
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"sudo usermod -aG unixsock {stranger}" in refused.stderr
        assert refused.stderr.count("\n") == 1
        gone()


if __name__ == "__main__":
    for folder in ("etc", "home", "var/lib", "usr/lib/unixsock", "usr/share/polkit-1"):
        writable(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp"], check=True)
    # What the package's script does on a machine that runs: in a chroot it could not compile for this kernel.
    subprocess.run(["unixsock", "install", "--system", "--group", "unixsock", "--yes"], check=True)
    check(*sys.argv[1:])
