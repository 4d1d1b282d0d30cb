"""``unixsock dump`` and the Python API on a real kernel, with real programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import soon

import unixsock_bpf
from unixsock_bpf.formats import reader

pytestmark = pytest.mark.thorough

CHECKOUT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "unixsock_bpf"]
#: Seconds that compiling and attaching may take under emulation on a busy machine.
PATIENCE = 400


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which sockets can be bound, which 9p does not allow."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        os.chmod(path, 0o750)  # chronyd wants it so
        yield Path(path)


class Dump:
    """``unixsock dump`` from when it captures to the end of ``with``, which is Ctrl-C."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.out = b""
        self.err = ""

    def __enter__(self) -> Dump:
        self.process = subprocess.Popen(
            [*COMMAND, "dump", *self._arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline().decode()
        assert "capturing" in first, first + self.process.stderr.read().decode()
        return self

    def wait(self) -> None:
        """Until it ends by itself."""
        out, err = self.process.communicate(timeout=PATIENCE)
        self.out, self.err = self.out + out, self.err + err.decode()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            time.sleep(0.5)  # what was just sent is on its way
            self.process.send_signal(signal.SIGINT)
        if not self.out:
            self.wait()

    @property
    def payloads(self) -> list[bytes]:
        """Of the format hexstring."""
        lines = [line for line in self.out.decode().splitlines() if line.startswith("\\x")]
        return [bytes.fromhex(line.replace("\\x", "")) for line in lines]


def exchange(name: str, *payloads: bytes) -> None:
    """Datagrams to a socket bound to ``name``, and read there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
            for payload in payloads:
                here.sendto(payload, name)
                assert there.recv(1 << 20) == payload
    if name[0] != "\0":
        os.unlink(name)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)


def test_chronyc_and_chronyd_in_hexstring(folder: Path) -> None:
    bound = folder / "chronyd.sock"
    configuration = folder / "chrony.conf"
    configuration.write_text(
        f"local stratum 8\ncmdport 0\nport 0\nbindcmdaddress {bound}\npidfile {folder}/pid\n"
    )
    server = subprocess.Popen(["chronyd", "-x", "-d", "-u", "root", "-f", str(configuration)])
    try:
        wait_for(bound)
        with Dump(str(bound), "--format", "hexstring") as dump:
            subprocess.run(["chronyc", "-h", str(bound), "ntpdata"], check=True)
    finally:
        server.terminate()
        server.wait()
    # candm.h: version 6, type 1 (request) or 2 (reply), ..., command 14 (number of sources).
    request, reply = next(
        (a, b) for a, b in zip(dump.payloads, dump.payloads[1:], strict=False) if a[4:6] == b"\0\x0e"
    )
    assert (request[:2], reply[:2], reply[4:6]) == (b"\x06\x01", b"\x06\x02", b"\0\x0e")
    assert request[8:12] == reply[16:20]  # the sequence number that chronyc chose
    assert re.search(rf"chronyc\[\d+\] → chronyd\[{server.pid}\] {re.escape(str(bound))} dgram \d+ bytes",
                     dump.out.decode())  # fmt: skip
    assert dump.process.returncode == 0
    assert re.search(r"(?m)^\d+ records captured, 0 lost$", dump.err)


def test_pmc_and_ptp4l_in_hexstring(folder: Path) -> None:
    bound = folder / "ptp4l"
    server = subprocess.Popen(["ptp4l", "-i", "lo", "-S", "-m", "--uds_address", str(bound)])
    try:
        wait_for(bound)
        with Dump(str(bound), "--format", "hexstring") as dump:
            pmc = subprocess.run(
                ["pmc", "-u", "-b", "0", "-s", str(bound), "-i", f"{folder}/pmc", "GET CURRENT_DATA_SET"],
                check=True,
                capture_output=True,
                text=True,
            )
    finally:
        server.terminate()
        server.wait()
    assert "RESPONSE MANAGEMENT CURRENT_DATA_SET" in pmc.stdout
    # IEEE 1588, 15.4: message type 0xd, action 0 (get) or 2 (response) at 46, id 0x2001 at 52.
    asked = [(one[0] & 0xF, one[46] & 0xF, one[52:54]) for one in dump.payloads]
    assert (0xD, 0, b"\x20\x01") in asked
    assert (0xD, 2, b"\x20\x01") in asked
    assert asked.index((0xD, 0, b"\x20\x01")) < asked.index((0xD, 2, b"\x20\x01"))


def test_each_format_has_the_same_bytes(folder: Path) -> None:
    payloads = [b"text\n", b"\x1b[2J\0\xff", b"", bytes(range(256)) * 400]
    name = "\0unixsock-formats"
    with (
        Dump("@unixsock-formats", "--format", "json") as as_json,
        Dump("@unixsock-formats", "--format", "string") as as_string,
        Dump("@unixsock-formats", "-w", f"{folder}/a.pcapng") as as_pcapng,
        Dump("@unixsock-formats", "--format", "pcap", "-w", f"{folder}/a.pcap") as as_pcap,
    ):
        exchange(name, *payloads)
    import base64

    assert [base64.b64decode(json.loads(line)["payload"]) for line in as_json.out.splitlines()] == payloads
    assert b"\x1b" not in as_string.out
    assert b"\\x1b[2J\\x00\\xff" in as_string.out
    for path, dump in ((folder / "a.pcapng", as_pcapng), (folder / "a.pcap", as_pcap)):
        assert [one.record.payload for one in reader.read(str(path)) if one.record.event == 0] == payloads
        assert path.stat().st_mode & 0o777 == 0o600
        assert dump.process.returncode == 0
        # The first line is there if the socket was not, and the records are also those of closes.
        nearby = "unixsock: no present socket has the abstract name @unixsock-formats\n"
        assert re.fullmatch(rf"({nearby})?\d records captured, 0 lost\n", dump.err)


def test_count_and_duration_end_it() -> None:
    with Dump("@unixsock-count", "-c", "2", "--format", "hexstring") as dump:
        exchange("\0unixsock-count", b"one", b"two", b"three")
        dump.wait()
    assert dump.payloads == [b"one", b"two"]
    with Dump("@unixsock-count", "-a", "duration:2") as dump:
        started = time.monotonic()
        dump.wait()
    assert dump.process.returncode == 0
    assert time.monotonic() - started < soon(30)


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    """As ``| head``: the next message shows that the reader has left, or the pipe itself does."""
    with Dump("@unixsock-head") as dump:
        exchange("\0unixsock-head", b"one")
        assert dump.process.stdout is not None
        assert dump.process.stderr is not None
        assert b"unixsock-head" in dump.process.stdout.readline()
        dump.process.stdout.close()
        assert dump.process.wait(30) == 0
        assert b"Traceback" not in dump.process.stderr.read()
        dump.out = b"-"


def test_a_pipe_into_tshark(folder: Path) -> None:
    from unixsock_bpf.wireshark.folders import dissector_source

    with Dump("@unixsock-pipe", "--format", "pcapng") as dump:
        tshark = subprocess.Popen(
            [
                "tshark",
                *("-X", f"lua_script:{dissector_source()}"),
                "-r",
                "-",
                "-Y",
                "unixsock.event == 0",
                "-T",
                "fields",
                "-e",
                "unixsock.path",
                "-e",
                "unixsock.len",
            ],
            stdin=dump.process.stdout,
            stdout=subprocess.PIPE,
            text=True,
        )
        exchange("\0unixsock-pipe", b"one", b"three")
        time.sleep(1)
        dump.process.send_signal(signal.SIGINT)
        out = tshark.communicate(timeout=PATIENCE)[0]
    assert out.splitlines() == ["@unixsock-pipe\t3", "@unixsock-pipe\t5"]


def test_a_full_disk_leaves_a_whole_file(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with Dump("@unixsock-full", "-w", f"{small}/a.pcapng") as dump:
            exchange("\0unixsock-full", *(bytes([number]) * 9000 for number in range(10)))
            dump.wait()
        assert dump.process.returncode == 1
        assert f"cannot write {small}/a.pcapng: no space left on device" in dump.err
        kept = [one.record.payload for one in reader.read(f"{small}/a.pcapng") if one.record.event == 0]
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert 1 <= len(kept) < 10
    assert kept == [bytes([number]) * 9000 for number in range(len(kept))]


def test_sockets_and_check_name_what_is_there(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()
        listed = subprocess.run(
            [*COMMAND, "sockets", f"{folder}/*", "--json"], cwd=CHECKOUT, capture_output=True, check=True
        )
        (one,) = json.loads(listed.stdout)
        assert (one["name"], one["state"]) == (f"{folder}/s", "listening")
        assert one["processes"][0]["pid"] == os.getpid()
        checked = subprocess.run(
            [*COMMAND, "check", "--filter", f"{folder}/s"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert checked.stdout.startswith("stream listening ")
    needs = subprocess.run([*COMMAND, "check"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert needs.returncode == 0, needs.stdout
    assert "tracing: the probe loads" in needs.stdout


def test_live_messages_lose_none_of_a_bounded_capture() -> None:
    count = 300
    with unixsock_bpf.live("@unixsock-api", count=count) as messages:
        exchange("\0unixsock-api", *(b"%d" % number for number in range(count)))
        found = list(messages)
    assert [one.payload for one in found] == [b"%d" % number for number in range(count)]
    assert {one.src.pid for one in found} == {os.getpid()}
    assert {one.path for one in found} == {"@unixsock-api"}
    assert [int(one.packet.unixsock.len) for one in found] == [len(one.payload) for one in found]


def test_live_messages_stop_in_order_and_in_async_code() -> None:
    async def collect() -> list[bytes]:
        found = []
        async with unixsock_bpf.live("@unixsock-async") as messages:
            threading.Thread(target=exchange, args=("\0unixsock-async", b"a", b"b", b"c")).start()
            async for message in messages:
                if message.event == 0:
                    found.append(message.payload)
                if message.payload == b"c":
                    messages.stop()
        return found

    assert asyncio.run(collect()) == [b"a", b"b", b"c"]


def test_a_bad_filter_is_told_to_the_program() -> None:
    with pytest.raises(unixsock_bpf.MessagesError, match="At position 1"):
        next(unixsock_bpf.live("nonsense"))
