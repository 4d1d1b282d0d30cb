"""What goes wrong on another host, by a real sshd: one sentence each, and everything received is kept."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import far
import pytest
from far import FOLDER, OTHER, Far, Running, gone, running, wait_until
from leftovers import family, ours
from live import CHECKOUT
from patience import soon
from system import run

from unixsock_bpf.formats import reader
from unixsock_bpf.version import __version__

pytestmark = pytest.mark.thorough

SAVED = FOLDER / "saved"
#: A way that leaves room for what a shell there does first.
VIA = "ssh root@here"
_DUMP = (str(far.COMMAND), "dump")
_FAKE = CHECKOUT / "tests/unit/fakes/fake_remote.py"


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with far.prepared(), Far("here"):
        yield


def refused(*words: str) -> str:
    """Start a capture that ends at once; return the sentence that says why."""
    done = run(*_DUMP, *words, "-w", str(SAVED))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    wait_until(gone, soon(5))
    return line


def test_sudo_asks_for_a_password_there() -> None:
    said = refused("--host", f"{OTHER}@here")
    assert "Becoming root on here asks for a password" in said
    assert "--remote-priv none" in said


def test_another_version_is_there() -> None:
    declared = far.HOME / "unixsock_bpf/version.py"
    text = declared.read_text()
    try:
        # This end has read it by then.
        said = refused("--via", f"{VIA} sed -i s/{__version__}/0.1.99/ {declared};")
    finally:
        declared.write_text(text)
    assert f"is of version 0.1.99, and this is {__version__}: install the same on both" in said


@pytest.mark.parametrize("kib", [20_000, 60_000, 120_000])
def test_it_has_no_memory(kib: int) -> None:
    """From too little for Python to too little for the ring buffer."""
    said = refused("--via", f"{VIA} ulimit -v {kib};", "--buffer-size", "256")
    assert re.match(r"unixsock: \S", said)
    print(said)


@contextmanager
def acting(before: str = "", silence_s: int = 300) -> Iterator[Running]:
    """A capture there whose records are made up; all but the probe is real.

    ``before``: what a shell there does first.  ``silence_s``: how long that end does without heartbeats.
    """
    program = FOLDER / "acting/unixsock"
    program.parent.mkdir(exist_ok=True)
    words = f"PYTHONPATH={far.HOME} FAKE_RATE=20 FAKE_SILENCE_S={silence_s} exec /usr/bin/python3 {_FAKE}"
    program.write_text(f'#!/bin/sh\n{before}\n{words} unixsock "$@"\n')
    program.chmod(0o755)
    with (
        Far("acting", port=far.PORT + 1, path=f"{program.parent}:/usr/bin:/bin"),
        running(*_DUMP, "--host", "root@acting", "--remote-priv", "none", "-w", str(SAVED)) as dump,
    ):
        yield dump


def arrived(count: int) -> None:
    """Wait until so many records are in the file."""
    wait_until(lambda: b"fake %d" % count in SAVED.read_bytes(), soon(30))


def saved() -> list[bytes]:
    return [one.record.payload for one in reader.SavedCapture(str(SAVED), forgiving=True)]


def assert_whole() -> None:
    """Everything that was sent is in the file, in its order."""
    found = saved()
    assert found[:10] == [b"fake %d" % number for number in range(10)]
    assert found == [b"fake %d" % number for number in range(len(found))]


def other_end() -> list[int]:
    """The process there that captures."""
    return [pid for pid, line in ours().items() if "fake_remote.py" in line and "--control" in line]


def test_a_host_that_answers_slowly() -> None:
    with acting("sleep 9") as dump:
        arrived(10)
        said = dump.interrupt()
        assert dump.process.returncode == 0, said
    assert saved()[-1] == b"last"


def test_its_kernel_kills_the_capture() -> None:
    """As one without memory does."""
    with acting() as dump:
        arrived(10)
        (pid,) = other_end()
        os.kill(pid, signal.SIGKILL)
        assert dump.process.wait(soon(60)) == 1
    *_, last = dump.errors.read_text().splitlines()
    assert "acting" in last
    assert "Traceback" not in dump.said
    assert_whole()


def test_the_laptop_sleeps() -> None:
    """This end stands still for longer than the other waits for a sign of life."""
    with acting(silence_s=15) as dump:
        arrived(10)
        asleep = family(dump.process.pid)
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not other_end(), soon(30))
        for pid in asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert dump.process.wait(soon(60)) == 1
    *_, last = dump.errors.read_text().splitlines()
    assert "the connection was silent for too long; everything received is kept" in last
    assert "Traceback" not in dump.said
    assert saved()[-1] == b"last"
