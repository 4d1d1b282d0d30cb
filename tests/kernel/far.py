"""Hosts for a test to log in to: real sshds in the guest, each in a network namespace of its own if wanted.

``unixsock`` is in their path, from this checkout.  A guest's /usr can be written to, in memory.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import system
from leftovers import SOON, ours, programs
from live import CHECKOUT, READY_TIMEOUT
from patience import soon
from system import run

#: All that ssh and sshd need.  Root's home is in memory as long as this is used.
HOME = Path("/root/.ssh")
#: What tests write.
FOLDER = Path("/dev/shm/far")
COMMAND = Path("/usr/local/bin/unixsock")
PORT = 2222
#: Users who may log in: one whom sudo asks for no password, and one whom it does.
SUDOER, OTHER = "carol", "dave"

_SERVER = """\
Port {port}
ListenAddress {address}
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
MaxStartups 100
"""
_CLIENT = """\
Host {name}
    HostName {address}
    Port {port}
    IdentityFile {home}/id
    UserKnownHostsFile {home}/known_hosts
    BatchMode yes
"""
_SUDOERS = f"{SUDOER} ALL=(ALL) NOPASSWD: ALL\n{OTHER} ALL=(ALL) ALL\n"


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """The command, users, and keys that all hosts accept."""
    with system.writable("etc"), contextlib.ExitStack() as ending:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/root", check=True)
        ending.callback(run, "umount", "-l", "/root", check=True)
        HOME.mkdir()
        FOLDER.mkdir(exist_ok=True)
        for name in ("host_key", "id"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(HOME / name), check=True)
        shutil.copy(HOME / "id.pub", HOME / "authorized_keys")
        if run("id", "sshd").returncode:
            run("useradd", "-r", "-d", "/run/sshd", "-s", "/usr/sbin/nologin", "sshd", check=True)
        for user in (SUDOER, OTHER):
            run("useradd", "-d", "/tmp", "-s", "/bin/sh", "-p", "*", user, check=True)
        system.know_host()
        sudoers = Path("/etc/sudoers.d/far")
        sudoers.write_text(_SUDOERS)
        sudoers.chmod(0o440)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # A copy in memory: from the checkout, its start alone takes up to a minute.
        shutil.copytree(CHECKOUT / "unixsock_bpf", HOME / "unixsock_bpf")
        COMMAND.write_text(f'#!/bin/sh\nPYTHONPATH={HOME} exec /usr/bin/python3 -m unixsock_bpf "$@"\n')
        ending.callback(COMMAND.unlink)
        COMMAND.chmod(0o755)
        yield


class Far:
    """A host to log in to as ``name``: a process of sshd, which listens at ``address``.

    ``through``: what starts it; ``path``: where its users' commands are.
    """

    def __init__(
        self,
        name: str,
        address: str = "127.0.0.1",
        port: int = PORT,
        through: tuple[str, ...] = (),
        path: str = "",
    ):
        self.name, self.address, self.port = name, address, port
        self._through = through
        self._path = f"SetEnv PATH={path}\n" if path else ""

    def __enter__(self) -> Far:
        program = shutil.which("sshd")
        assert program, "sshd is missing: tests/setup tests/kernel/debian-packages"
        config = HOME / f"sshd-{self.name}"
        names = {"name": self.name, "address": self.address, "port": self.port, "home": HOME}
        config.write_text(_SERVER.format(**names) + self._path)
        with (HOME / "config").open("a") as client:
            client.write(_CLIENT.format(**names))
        host_key = (HOME / "host_key.pub").read_text().rsplit(" ", 1)[0]
        with (HOME / "known_hosts").open("a") as known:
            known.write(f"[{self.address}]:{self.port} {host_key}\n")
        self.log = HOME / f"log-{self.name}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._through, program, "-D", "-e", "-f", str(config)], stderr=log
            )
        deadline = time.monotonic() + soon(30)
        while b"Server listening" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def wait_until(true: Callable[[], object], seconds: float = SOON) -> None:
    """Wait for ``seconds`` at most."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone() -> bool:
    """Whether neither programs in the kernel nor processes of captures are left."""
    return programs() == 0 and not any(" dump " in f"{line} " for line in ours().values())


class Running:
    """A command that captures, its output in a file, and what it says on stderr."""

    def __init__(self, *words: str, ready_s: float = READY_TIMEOUT) -> None:
        self._ready_s = ready_s
        self.file = FOLDER / "output"
        self.errors = FOLDER / "errors"
        with self.file.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=output, stderr=errors, start_new_session=True
            )
        try:
            self.wait_for("capturing")
        except BaseException:
            self.process.kill()
            raise

    @property
    def said(self) -> str:
        """What it has printed so far."""
        # With a terminal there is one stream.
        return self.errors.read_text() + self.file.read_bytes().decode(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + self._ready_s
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)

    @property
    def size(self) -> int:
        return self.file.stat().st_size

    def grown(self, seconds: float) -> int:
        """Bytes that come in ``seconds``."""
        before = self.size
        time.sleep(seconds)
        return self.size - before

    def settle(self) -> None:
        """Wait until nothing has come for a while."""
        deadline = time.monotonic() + 60
        while self.grown(3) and time.monotonic() < deadline:
            pass

    def interrupt(self) -> str:
        """End it as Ctrl-C does; return what it said."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(soon(60))
        return self.said


@contextlib.contextmanager
def running(*words: str, ready_s: float = READY_TIMEOUT) -> Iterator[Running]:
    """A command that captures by now, within ``ready_s`` seconds; after it, nothing of it is left."""
    one = Running(*words, ready_s=ready_s)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        wait_until(gone, soon(30))
