"""The bench's traffic: what there is to say, and the program that says it (load.c)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Where sockets, the generator and files lie in the guest; sockets can't be on 9p.
HOME = Path("/dev/shm/bench")
LOAD = HOME / "load"
#: The same program by another name, for observers that choose by name.
UNHEARD = HOME / "unheard"

#: The path that observers watch, and one that they do not.
SEEN = HOME / "seen"
WATCHED = {"unix": f"{SEEN}.stream", "dgram": f"{SEEN}.dgram", "tcp": "7001"}
IGNORED = {"unix": str(HOME / "ignored"), "tcp": "7002"}

#: Connections of the workload ``many``.
CONNECTIONS = 200


@dataclass(frozen=True)
class Workload:
    """One kind of traffic.  ``size``: bytes of a message.  ``rejected``: on a socket nobody watches.

    ``lasts``: how many times as long as others.
    """

    key: str
    title: str
    kind: str
    size: int
    rejected: bool = False
    number: float = 0
    lasts: int = 1

    def speaks(self, family: str) -> bool:
        """Whether there is the same over ``family``."""
        return family == "unix" or self.kind != "dgram"


WORKLOADS = (
    Workload("pingpong", "ping-pong 64 B", "pingpong", 64),
    Workload("pingpong2", "ping-pong 64 B, on two processors", "pingpong", 64, number=2),
    Workload("pingpong1", "ping-pong 64 B, on one processor", "pingpong", 64, number=1),
    Workload("blast", "blast 64 B", "blast", 64),
    Workload("blast_on", "blast 64 B, eight times as long", "blast", 64, lasts=8),
    Workload("blast30k", "blast 30 kB", "blast", 30_000),
    Workload("many", f"{CONNECTIONS} connections, 64 B", "many", 64, number=CONNECTIONS),
    Workload("dgram", "datagrams 64 B", "dgram", 64),
    Workload("rejected", "rejected: ping-pong 64 B", "pingpong", 64, rejected=True),
)


@dataclass(frozen=True)
class Said:
    """What one run of the generator did.  ``seconds`` of wall time, ``cpu`` seconds of its own."""

    messages: int
    bytes: int
    seconds: float
    cpu: float

    @property
    def each(self) -> float:
        """Microseconds a message."""
        return self.seconds / self.messages * 1e6


def build() -> None:
    """Compiles the generator."""
    HOME.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("load.c")
    subprocess.run(["gcc", "-O2", "-o", LOAD, source], check=True)
    UNHEARD.write_bytes(LOAD.read_bytes())
    UNHEARD.chmod(0o755)


def run(
    workload: Workload, family: str, seconds: float, *, opened: int = 0, wrap: Sequence[str] = ()
) -> Said:
    """Says ``workload`` over ``family``, with ``opened`` other sockets open.

    ``seconds``: of a workload that lasts as long as most.  ``wrap``: a command that runs the generator.
    """
    addresses = IGNORED if workload.rejected else WATCHED
    address = addresses["dgram" if workload.kind == "dgram" else family]
    command = [*wrap, str(UNHEARD if workload.rejected else LOAD)]
    if opened:
        command += ["-o", str(opened)]
    command += [family, address, workload.kind, str(workload.size)]
    command += [str(seconds * workload.lasts), str(workload.number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    messages, size, wall, cpu = map(int, done.stdout.split())
    return Said(messages, size, wall / 1e9, cpu / 1e9)


def mark(family: str, count: int) -> None:
    """Sends ``count`` watched messages that are not counted: they push the last ones through buffers."""
    subprocess.run([LOAD, family, WATCHED[family], "mark", str(count)], check=True)


def count(file: Path, offset: int) -> tuple[int, int]:
    """Messages that begin and that end in ``file`` from ``offset`` on."""
    done = subprocess.run([LOAD, "count", file, str(offset)], stdout=subprocess.PIPE, check=True)
    begun, ended = map(int, done.stdout.split())
    return begun, ended


def segments(file: Path) -> int:
    """TCP payload bytes in a pcap file."""
    done = subprocess.run([LOAD, "segments", file], stdout=subprocess.PIPE, check=True)
    return int(done.stdout)
