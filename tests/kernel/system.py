"""A fresh system for a test: writable /usr and /etc, the product installed, two unprivileged users."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live import CHECKOUT

MEMBER, STRANGER = "alice", "bob"
#: The guest's root is the machine's own, read-only: what is written lies here.
LAYERS = Path("/dev/shm/layers")
_FOLDERS = ("usr", "etc")


def run(*words: str, check: bool = False, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, with its output as text."""
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=check, cwd=cwd)


def unixsock(*words: str) -> subprocess.CompletedProcess[str]:
    """The command from the checkout, by the distribution's Python, as root."""
    return run("/usr/bin/python3", "-m", "unixsock_bpf", *words, cwd=CHECKOUT)


def as_user(user: str) -> list[str]:
    """Words before a command that is to run as ``user``, in a session with all of its groups."""
    own = (f"HOME=/dev/shm/{user}", f"TMPDIR=/dev/shm/{user}")
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "env", "-C", "/", *own]


@contextmanager
def writable(*names: str) -> Iterator[None]:
    """Let tests write to folders of the root directory; everything is as it was afterwards."""
    for name in names:
        upper, work = LAYERS / name / "upper", LAYERS / name / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", options, f"/{name}", check=True)
    try:
        yield
    finally:
        for name in names:
            run("umount", "-l", f"/{name}", check=True)
        shutil.rmtree(LAYERS)


@contextmanager
def installed() -> Iterator[None]:
    """The product is installed; everything is as it was afterwards."""
    with writable(*_FOLDERS):
        # The machine that the guest was made of may be somebody's, with the product installed.
        unixsock("uninstall", "--system")
        know_host()
        for user in (MEMBER, STRANGER):
            run("useradd", "-m", "-d", f"/dev/shm/{user}", user, check=True)
        done = unixsock("install", "--system", "--group", "unixsock")
        assert done.returncode == 0, done.stderr
        run("usermod", "-aG", "unixsock", MEMBER, check=True)
        yield


def know_host() -> None:
    """Let sudo know the host by its name."""
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.1.1 {os.uname().nodename}\n")


def written() -> set[str]:
    """What the system has that it had not before, without /etc's users and caches."""
    return {
        f"/{name}/{path.relative_to(LAYERS / name / 'upper')}"
        for name in _FOLDERS
        for path in (LAYERS / name / "upper").rglob("*")
        if not path.is_dir()
    }
