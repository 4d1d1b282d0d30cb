"""The whole way from a ring to Wireshark's side, on a ring that the test fills in place of a probe."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kernel_ring import SIZE, Kernel
from patience import soon

from unixsock_bpf import record
from unixsock_bpf.capture.pipe import PIPE_SIZE
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Record

HERE = Path(__file__).parent
LUA = HERE.parents[2] / "dissector/unixsock.lua"
#: Seconds within which a capture that was told to stop has to have ended.
SOON = 2.0


class Ring(Kernel):
    """A ring into which records come, each as soon as there is room."""

    def say(self, payload: bytes) -> bytes:
        """Returns the block that has to arrive."""
        one = Record(src_sock=1, dst_sock=2, type=2, len=len(payload), payload=payload)
        block = pcapng.packet(1, record.encode(one))
        self.write_block(block)
        return block


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with the interface in it, and the ring that it reads."""
    extcap = tmp_path / ".config/wireshark/extcap/unixsock"
    extcap.parent.mkdir(parents=True)
    extcap.write_text(
        f"#!{sys.executable}\n"
        f"import sys; sys.path.insert(0, {str(HERE.parent / 'fakes')!r})\n"
        f"import fake_ring; fake_ring.use({str(tmp_path / 'ring')!r}, {SIZE})\n"
        "from unixsock_bpf.extcap.main import main; sys.exit(main())\n"
    )
    extcap.chmod(0o755)
    return tmp_path


@pytest.fixture
def ring(home: Path) -> Iterator[Ring]:
    fd = os.open(home / "ring", os.O_RDWR | os.O_CREAT)
    yield Ring(fd)
    os.close(fd)


class Extcap:
    """The extcap, as Wireshark starts it, or a shell of the name ``starter``.  Nobody reads its fifo yet."""

    def __init__(self, home: Path, *options: str, starter: str = "") -> None:
        fifo = home / "fifo"
        os.mkfifo(fifo)
        self.reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.reader, True)
        shell = []
        if starter:
            (home / starter).symlink_to("/bin/sh")
            shell = [home / starter, "-c", '"$@" & wait', starter]
        self.process = subprocess.Popen(
            [
                *shell,
                home / ".config/wireshark/extcap/unixsock",
                *("--capture", "--extcap-interface", "unixsock", "--fifo", str(fifo), *options),
            ],
            stderr=subprocess.PIPE,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
        )
        self.seen = bytearray()
        self._thread = threading.Thread(target=self._read)

    def read(self) -> None:
        """Begins to read."""
        self._thread.start()

    def _read(self) -> None:
        while not (data := os.read(self.reader, 65_536)) and not self.seen:
            time.sleep(0.01)  # it has not opened it yet
        while data:
            self.seen += data
            data = os.read(self.reader, 65_536)

    def end(self) -> list[tuple[int, bytes]]:
        """Kind and bytes of each block, once it has ended in order."""
        began = time.monotonic()
        _, said = self.process.communicate(timeout=soon(30))
        assert time.monotonic() - began < soon(SOON)
        assert (self.process.returncode, said) == (0, b"")
        self.join()
        return self.blocks()

    def join(self) -> None:
        """Waits until all is read, and it has closed the fifo."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self.reader)

    def blocks(self) -> list[tuple[int, bytes]]:
        """Kind and bytes of each block that was read."""
        return [(kind, pcapng.block(kind, bytes(body))) for kind, body in pcapng.blocks(bytes(self.seen))]


def wait_until_read(ring: Ring) -> None:
    deadline = time.monotonic() + soon(30)
    while ring.consumed < ring.at and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ring.consumed == ring.at


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_all_arrives(number: signal.Signals, home: Path, ring: Ring) -> None:
    extcap = Extcap(home)
    extcap.read()
    said = [ring.say(b"%d" % number) for number in range(300)]
    wait_until_read(ring)
    said += [ring.say(b"%d" % number) for number in range(50)]  # still in the ring when the signal comes
    extcap.process.send_signal(number)
    blocks = extcap.end()
    assert [kind for kind, _ in blocks[:2]] == [pcapng.SHB, pcapng.IDB]
    assert [block for _, block in blocks[2:-1]] == said
    assert blocks[-1][0] == pcapng.ISB


def test_a_burst_comes_through_while_nobody_reads(home: Path, ring: Ring) -> None:
    extcap = Extcap(home, "--buffer-size", "8")
    said = [ring.say(b"%04d" % number * 300) for number in range(4000)]
    assert sum(map(len, said)) > PIPE_SIZE + SIZE
    extcap.read()
    deadline = time.monotonic() + soon(30)
    while len(extcap.seen) < sum(map(len, said)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(extcap.seen) > sum(map(len, said))  # without another message, and with the headers
    extcap.process.terminate()
    assert [block for _, block in extcap.end()[2:-1]] == said


def test_a_reader_that_goes_away_ends_it(home: Path, ring: Ring) -> None:
    extcap = Extcap(home)
    ring.say(b"one")
    wait_until_read(ring)
    os.close(extcap.reader)
    _, said = extcap.process.communicate(timeout=soon(SOON))
    assert (extcap.process.returncode, said) == (0, b"")


def test_it_ends_with_wireshark_however_that_ends(home: Path, ring: Ring) -> None:
    extcap = Extcap(home, starter="wireshark")
    extcap.read()
    said = [ring.say(b"%d" % number) for number in range(300)]
    wait_until_read(ring)
    extcap.process.kill()
    extcap.process.wait()
    began = time.monotonic()
    extcap.join()
    assert time.monotonic() - began < soon(SOON)
    kinds, blocks = zip(*extcap.blocks())
    assert list(blocks[2:-1]) == said
    assert kinds[-1] == pcapng.ISB


def test_it_ends_if_wireshark_was_killed_while_it_started(home: Path, ring: Ring) -> None:
    extcap = Extcap(home, "--snaplen", "14", starter="wireshark")
    extcap.read()
    deadline = time.monotonic() + soon(30)
    while not extcap.seen:  # the header
        assert time.monotonic() < deadline, "no header came"
        time.sleep(0.01)
    time.sleep(0.2)
    extcap.process.kill()
    extcap.process.wait()
    began = time.monotonic()
    extcap.join()
    assert time.monotonic() - began < soon(1 + SOON)


def test_it_outlives_a_shell_that_started_it(home: Path, ring: Ring) -> None:
    extcap = Extcap(home, starter="shell")
    extcap.read()
    ring.say(b"before")
    wait_until_read(ring)
    extcap.process.kill()
    extcap.process.wait()
    time.sleep(0.5)
    ring.say(b"after")
    wait_until_read(ring)
    for pid in _running(home):
        os.kill(pid, signal.SIGTERM)
    extcap.join()
    assert len(extcap.blocks()) == 2 + 2 + 1  # headers, both messages, statistics


def test_a_refusal_is_told_once_the_fifo_is_open(home: Path, ring: Ring) -> None:
    extcap = Extcap(home, "--snaplen", "13")
    _, said = extcap.process.communicate(timeout=soon(30))
    assert (extcap.process.returncode, said) == (1, b"Thirteen is refused.\n")
    assert os.read(extcap.reader, 65_536).startswith(b"\x0a\x0d\x0d\x0a")  # as it was before the refusal
    os.close(extcap.reader)


def test_tshark_shows_all_and_leaves_nothing(home: Path, ring: Ring) -> None:
    tshark = subprocess.Popen(
        [
            *("tshark", "-l", "-n", "-X", f"lua_script:{LUA}", "-i", "unixsock"),
            *("-T", "fields", "-e", "unixsock.payload"),
        ],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert tshark.stdout
    said = [b"%d" % number for number in range(200)]
    for payload in said:
        ring.say(payload)
    assert [bytes.fromhex(tshark.stdout.readline().decode()) for _ in said] == said
    tshark.send_signal(signal.SIGINT)
    out, err = tshark.communicate(timeout=soon(30))
    assert (out, tshark.returncode) == (b"", 0)
    assert re.search(rb"^%d packets captured" % len(said), err, re.MULTILINE)
    deadline = time.monotonic() + soon(5)
    while (left := _running(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == {}


def _running(home: Path) -> dict[int, str]:
    """Processes with this home directory, and their command lines."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"HOME={home}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
    return found
