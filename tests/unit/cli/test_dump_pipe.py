"""``unixsock dump | tshark``, by a pipe: all of it, as it comes, and an end on either side.

``wireshark -k -i -`` reads as ``tshark -i -`` does, through dumpcap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import soon

HERE = Path(__file__).parent
LUA = HERE.parents[2] / "dissector/unixsock.lua"
WAYS = [("pcapng", "-r"), ("pcapng", "-i"), ("pcap", "-r"), ("pcap", "-i")]


class Pipeline:
    """A dump of so many records a second, each of ``size`` bytes, and the tshark that reads it."""

    def __init__(
        self, way: tuple[str, str], rate: int, size: int = 0, dump: str = "", tshark: str = ""
    ) -> None:
        form, how = way
        self.dump = subprocess.Popen(
            [
                sys.executable,
                str(HERE.parent / "fakes" / "fake_dump.py"),
                "dump",
                "--format",
                form,
                *dump.split(),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"UNIXSOCK_FAKE": str(rate), "UNIXSOCK_FAKE_SIZE": str(size)},
        )
        self.tshark = subprocess.Popen(
            [
                *("tshark", "-l", "-n", "-X", f"lua_script:{LUA}", how, "-", *tshark.split()),
                *("-T", "fields", "-e", "unixsock.payload"),
            ],
            stdin=self.dump.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.dump.stdout
        self.dump.stdout.close()

    def line(self) -> bytes:
        """The next payload."""
        assert self.tshark.stdout
        return bytes.fromhex(self.tshark.stdout.readline().decode())

    def end(self) -> list[bytes]:
        """The rest of the payloads, once both have ended as they should."""
        out, err = self.tshark.communicate(timeout=30)
        assert self.tshark.returncode == 0, err
        _, said = self.dump.communicate(timeout=10)
        assert self.dump.returncode == 0
        assert b"Traceback" not in said
        return [bytes.fromhex(line) for line in out.decode().splitlines()]


def payloads(count: int, size: int = 0) -> list[bytes]:
    return [(b"%d" % number).ljust(size, b".") for number in range(count)]


@pytest.mark.parametrize("way", WAYS, ids="".join)
def test_all_arrives(way: tuple[str, str]) -> None:
    assert Pipeline(way, 10_000, dump="-c 500").end() == payloads(500)


@pytest.mark.parametrize("way", WAYS, ids="".join)
def test_the_largest_records_arrive(way: tuple[str, str]) -> None:
    size = 200_000  # the largest datagram that the default limits let through has 212,960 bytes
    assert Pipeline(way, 1000, size, dump="-c 20").end() == payloads(20, size)


@pytest.mark.parametrize("way", WAYS[:2], ids="".join)
def test_each_record_is_shown_as_it_comes(way: tuple[str, str]) -> None:
    """Nothing waits until more has come: the buffers of all that is between would hold hours of this."""
    pipeline = Pipeline(way, 5)
    watchdog = threading.Timer(soon(60), pipeline.tshark.kill)
    watchdog.start()
    assert [pipeline.line() for _ in range(4)] == payloads(4)
    watchdog.cancel()
    pipeline.dump.terminate()
    assert pipeline.tshark.stdout
    rest = [bytes.fromhex(line.decode()) for line in pipeline.tshark.stdout]
    assert rest == payloads(4 + len(rest))[4:]
    assert pipeline.end() == []


@pytest.mark.parametrize("way", WAYS[:2], ids="".join)
def test_a_reader_that_has_enough_ends_the_dump(way: tuple[str, str]) -> None:
    assert Pipeline(way, 100, tshark="-c 3").end() == payloads(3)
