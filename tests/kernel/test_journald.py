"""A capture of everything in a systemd service does not feed on itself by way of journald and rsyslog."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from far import wait_until
from leftovers import programs
from live import CHECKOUT, READY_TIMEOUT
from patience import soon

pytestmark = pytest.mark.thorough

#: Seconds in which nothing may grow.
QUIET = 5
MARKER = b"one message"
SOCKETS = Path("/run/systemd/journal")
#: By which systemd's programs know that it runs.
BOOTED = Path("/run/systemd/system")
UNIT = "unixsock-dump"
#: As Debian's: what journald passes on goes into a file.
RSYSLOG = """\
module(load="imuxsock" SysSock.Name="{sockets}/syslog" SysSock.RateLimit.Interval="0")
action(type="omfile" file="{file}")
"""


class Log:
    """The file that everything ends in."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def text(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    def wait_for(self, text: bytes, count: int = 1) -> None:
        try:
            wait_until(lambda: self.text.count(text) >= count, READY_TIMEOUT)
        except AssertionError:
            pytest.fail(f"{text!r} is not {count} times in {self.text[-3000:].decode(errors='replace')}")

    def grown(self, seconds: float) -> int:
        """Bytes that come in ``seconds``."""
        before = len(self.text)
        time.sleep(seconds)
        return len(self.text) - before

    def settle(self) -> None:
        """Wait until nothing has come for a while."""
        deadline = time.monotonic() + 60
        while self.grown(3) and time.monotonic() < deadline:
            pass


@contextlib.contextmanager
def daemons(folder: Path) -> Iterator[tuple[Log, dict[str, str]]]:
    """Real ones: rsyslog, journald and a service manager.  The log, and the manager's environment."""
    program = shutil.which("rsyslogd")
    assert program, "rsyslogd is missing: tests/setup tests/kernel/debian-packages"
    log, config = Log(folder / "syslog"), folder / "rsyslog.conf"
    config.write_text(RSYSLOG.format(file=log.file, sockets=SOCKETS))
    for place in (SOCKETS, BOOTED):
        place.mkdir(parents=True, exist_ok=True)
    (modules,) = Path(program).parents[1].glob("lib/*/rsyslog")
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    with contextlib.ExitStack() as ending, (folder / "said").open("wb") as said:

        def start(*words: str) -> None:
            process = subprocess.Popen(words, env=environment, stdout=said, stderr=said)
            ending.callback(process.wait)
            ending.callback(process.kill)

        ending.callback(shutil.rmtree, SOCKETS.parent)
        start(program, "-n", "-i", "NONE", "-f", str(config), "-M", str(modules))
        wait_until((SOCKETS / "syslog").is_socket, soon(30))
        start("/lib/systemd/systemd-journald")
        wait_until((SOCKETS / "stdout").is_socket, soon(30))
        start("/lib/systemd/systemd", "--user")
        wait_until((runtime / "systemd/private").is_socket, soon(30))
        yield log, environment


def one_message() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.send(MARKER)
        there.recv(99)


def test_no_feedback_through_systemd_run_journald_and_rsyslog(tmp_path: Path) -> None:
    """Each line that it prints goes on to journald, and from there to rsyslog; others' lines are captured."""
    dump = (sys.executable, "-m", "unixsock_bpf", "dump", "--format", "string", "*")
    with daemons(tmp_path) as (log, environment):

        def tell(*words: str) -> None:
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

        tell("systemd-run", "--user", "--unit", UNIT, "--working-directory", str(CHECKOUT), *dump)
        try:
            log.wait_for(b"capturing")
            log.settle()
            began = len(log.text)
            assert log.grown(QUIET) == 0
            for number in range(1, 4):
                one_message()
                log.wait_for(MARKER, number)
                log.settle()
            assert log.text.count(MARKER) == 3
            assert len(log.text) - began < 16_384
            assert log.grown(QUIET) == 0
            tell("logger", "--socket", str(SOCKETS / "dev-log"), "honest line")
            log.wait_for(b"dev-log dgram")
            log.settle()
            assert log.grown(QUIET) == 0
        finally:
            tell("systemctl", "--user", "kill", "--signal", "INT", UNIT)
        log.wait_for(b"left out that repeat this output: systemd-journal")
        wait_until(lambda: programs() == 0, soon(30))
        assert len(log.text) - began < 16_384
