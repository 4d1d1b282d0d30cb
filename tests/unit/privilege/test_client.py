"""The unprivileged user's side and the privileged helper together: real pipes, processes and confinement.

In place of the probe, the test fills a ring; nothing is started through sudo.
"""

from __future__ import annotations

import contextlib
import os
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

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter import parse
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege import launch
from unixsock_bpf.privilege.client import RemoteCapture

FAKE = Path(__file__).parents[1] / "fakes" / "fake_helper.py"


class Ring(Kernel):
    """A ring that takes blocks and waits for room, as senders would not."""

    def packet(self, number: int) -> bytes:
        block = pcapng.packet(number, b"%d" % number * (number % 300))
        self.write_block(block)
        return block


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    path = tmp_path / "ring"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    ring = Ring(fd)
    command = [sys.executable, str(FAKE), str(path), str(SIZE)]
    monkeypatch.setattr(launch, "commands", lambda _: {"sudo": command})
    monkeypatch.setattr(launch, "HELPER", FAKE)
    yield ring
    os.close(fd)


def helpers(ring: Ring) -> list[int]:
    """The processes of the privileged helper."""
    found = []
    path = os.readlink(f"/proc/self/fd/{ring.fd}").encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if str(FAKE).encode() in words and path in words:
                found.append(int(pid))
    return found


def all_gone(ring: Ring) -> bool:
    deadline = time.monotonic() + soon(5)
    while helpers(ring) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not helpers(ring)


def test_all_that_is_captured_arrives(ring: Ring) -> None:
    said: list[bytes] = []

    def talk() -> None:
        said.extend(ring.packet(number) for number in range(2000))
        capture.stop()

    with RemoteCapture(Settings()) as capture:
        assert capture.attached == "fentry"
        threading.Thread(target=talk).start()
        seen = [bytes(block) for batch in capture.blocks() for block in batch]
    assert seen == said
    assert all_gone(ring)


def test_it_writes_to_the_fifo_itself(ring: Ring, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    seen = bytearray()

    def read() -> None:
        while data := os.read(reader, 65_536):
            seen.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    with RemoteCapture(Settings(), writer) as capture:
        os.close(writer)
        said = [ring.packet(number) for number in range(500)]
        capture.stop()
        assert [block for batch in capture.blocks() for block in batch] == []
    thread.join(10)
    os.close(reader)
    blocks = [pcapng.block(kind, bytes(body)) for kind, body in pcapng.blocks(bytes(seen))]
    assert blocks[:-1] == said
    assert int.from_bytes(blocks[-1][:4], "little") == pcapng.ISB
    assert all_gone(ring)


def test_a_change_is_made_or_refused(ring: Ring) -> None:
    answers: list[str] = []
    seconds: list[float] = []
    with RemoteCapture(Settings(control_in="/toolbar")) as capture:
        assert len(helpers(ring)) == 2  # one may load, the other drains
        capture.each_second = lambda: seconds.append(time.monotonic())

        def answered(problem: str) -> None:
            answers.append(problem)
            if len(answers) == 3:
                capture.stop()

        capture.replace(Settings(filter=parse("/x"), control_in="/toolbar"), answered)
        capture.replace(Settings(snaplen=13, control_in="/toolbar"), answered)
        capture.pause(True)
        capture.replace(Settings(snaplen=14, control_in="/toolbar"), answered)
        said = [ring.packet(number) for number in range(20)]
        seen = [bytes(block) for batch in capture.blocks() for block in batch]
    assert answers == ["", "Thirteen is refused.", ""]
    assert seen == said
    assert seconds
    assert all_gone(ring)


def test_a_refusal_is_its_sentence(ring: Ring) -> None:
    with pytest.raises(ProbeError, match=r"^Thirteen is refused\.$"), RemoteCapture(Settings(snaplen=13)):
        pass
    assert all_gone(ring)


def test_trying_to_start_leaves_nothing(ring: Ring) -> None:
    before = len(os.listdir("/proc/self/fd"))
    RemoteCapture(Settings()).try_to_start()
    assert all_gone(ring)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("control", [None, "/toolbar"])
def test_a_privileged_helper_that_is_killed_is_told(ring: Ring, control: str | None) -> None:
    said: list[bytes] = []
    seen: list[bytes] = []

    def capture_and_kill() -> None:
        with RemoteCapture(Settings(control_in=control)) as capture:
            said.extend(ring.packet(number) for number in range(10))
            for batch in capture.blocks():
                seen.extend(map(bytes, batch))
                if len(seen) == 10:
                    for pid in helpers(ring):
                        os.kill(pid, signal.SIGKILL)

    with pytest.raises(ProbeError, match="ended by someone else"):
        capture_and_kill()
    assert seen == said
    assert all_gone(ring)


CLIENT = f"""
import sys
sys.path[:0] = [{str(FAKE.parents[3])!r}]
from pathlib import Path
from unixsock_bpf.privilege import launch
launch.HELPER = Path({str(FAKE)!r})
launch.commands = lambda _: {{"sudo": [sys.executable, {str(FAKE)!r}, *sys.argv[1:3]]}}
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege.client import RemoteCapture
with RemoteCapture(Settings(control_in=sys.argv[3] or None)) as capture:
    print("captures", flush=True)
    list(capture.blocks())
"""


@pytest.mark.parametrize("control", ["", "/toolbar"])
def test_it_ends_with_its_user(ring: Ring, control: str) -> None:
    path = os.readlink(f"/proc/self/fd/{ring.fd}")
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, path, str(SIZE), control], stdout=subprocess.PIPE
    )
    assert client.stdout
    with client.stdout:
        assert client.stdout.readline() == b"captures\n"
        assert len(helpers(ring)) == (2 if control else 1)
        client.kill()
        client.wait()
    assert all_gone(ring)
