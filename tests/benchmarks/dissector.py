# ruff: noqa: E501 (tables of values)
"""How long tshark takes for a capture of ours, and for the same payloads in a plain TCP capture: the barest
that there can be, and one as ``tcpdump -i lo`` writes it.

``python tests/benchmarks/dissector.py [--packets N]`` prints a table, which ``--write`` puts into docs/performance.md.
No probe and no root are needed.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks import report  # noqa: E402
from unixsock_bpf.formats import pcapng  # noqa: E402
from unixsock_bpf.record import Flag, Record, Role, SocketType, encode  # noqa: E402

START = 1_700_000_000_000_000_000


@dataclass
class Message:
    """One payload in conversation ``number``; ``seq`` and ``ack`` count bytes each way before it."""

    number: int
    client: bool
    seq: int
    ack: int
    payload: bytes


def _talk(count: int, conversations: int, question: bytes, answer: bytes) -> Iterator[Message]:
    """``count`` messages: in each conversation in turn, a question and its answer."""
    rounds = [0] * conversations
    for number in range(count // 2):
        which = number % conversations
        asked, answered = rounds[which] * len(question), rounds[which] * len(answer)
        yield Message(which, True, asked, answered, question)
        yield Message(which, False, answered, asked + len(question), answer)
        rounds[which] += 1


_GET = b"GET /v1.43/containers/json HTTP/1.1\r\nHost: docker\r\nUser-Agent: curl/8.0\r\n\r\n"
_OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n[{"Id":"abc"}]'


#: The talk, the Unix socket's path, and the TCP port at which Wireshark expects the same protocol.
WORKLOADS: dict[str, tuple[Callable[[int], Iterator[Message]], bytes, int]] = {
    "binary, 1 conversation": (lambda n: _talk(n, 1, b"\x81" * 64, b"\x82" * 64), b"/run/own", 40001),
    "binary, 1000 conversations": (lambda n: _talk(n, 1000, b"\x81" * 64, b"\x82" * 64), b"/run/own", 40001),
    "HTTP, 100 conversations": (lambda n: _talk(n, 100, _GET, _OK), b"/run/docker.sock", 80),
}

#: What tshark is asked for.
READINGS: dict[str, list[str]] = {
    "packet list": [],
    "display filter": ["-Y", "tcp.len == 1"],
    "all details": ["-V"],
}


def _write_ours(path: Path, messages: Iterable[Message], name: bytes) -> None:
    flags = Flag.SRC_CREDS | Flag.DST_CREDS | Flag.FROM_START
    common = {
        "type": SocketType.STREAM,
        "flags": flags,
        "src_uid": 0,
        "src_gid": 0,
        "dst_uid": 0,
        "dst_gid": 0,
    }
    asks = Record(src_pid=1000, src_tid=1000, dst_pid=2000, src_comm=b"client", dst_comm=b"server", dst_name=name,
                  role=Role.DST_IS_SERVER, netns=4026531840, src_inode=11, dst_inode=22, **common)  # fmt: skip
    answers = Record(src_pid=2000, src_tid=2000, dst_pid=1000, src_comm=b"server", dst_comm=b"client", src_name=name,
                     role=Role.SRC_IS_SERVER, netns=4026531840, src_inode=22, dst_inode=11, **common)  # fmt: skip
    with path.open("wb") as out:
        out.write(pcapng.section_header("bench", "Linux", "bench") + pcapng.interface("unixsock", "", 262144))
        for at, one in enumerate(messages):
            client, server = 0x100000 + one.number, 0x200000 + one.number
            record = replace(
                asks if one.client else answers,
                src_sock=client if one.client else server,
                dst_sock=server if one.client else client,
                seq=one.seq,
                ack=one.ack,
                len=len(one.payload),
                payload=one.payload,
            )
            out.write(pcapng.packet(START + at * 1000, encode(record)))


def _write_tcp(path: Path, messages: Iterable[Message], port: int, on_lo: bool) -> None:
    """The same as TCP segments, each with the acknowledgment that the exchange allows.

    ``on_lo``: with an Ethernet header and time stamps, as Linux sends them; else raw IP without options.
    """
    with path.open("wb") as out:
        out.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1 if on_lo else 101))  # nanoseconds
        ends = [socket.inet_aton(end) for end in (["127.0.0.1"] * 2 if on_lo else ["10.0.0.1", "10.0.0.2"])]
        for at, one in enumerate(messages):
            ports = (20000 + one.number, port)
            step = 1 if one.client else -1
            options = struct.pack(">BBBBII", 1, 1, 8, 10, 1000 + at, 999 + at) if on_lo else b""
            tcp = struct.pack(">HHIIBBHHH", *ports[::step], (one.seq + 1) % 2**32, (one.ack + 1) % 2**32,
                              (20 + len(options)) // 4 << 4, 0x18, 65535, 0, 0) + options + one.payload  # fmt: skip
            packet = (bytes(12) + b"\x08\x00") if on_lo else b""
            packet += struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), at % 65536, 0x4000, 64, 6, 0,
                                  *ends[::step]) + tcp  # fmt: skip
            seconds, rest = divmod(START + at * 1000, 1_000_000_000)
            out.write(struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet)


def _cpu_seconds(capture: Path, home: Path, options: list[str]) -> float:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["tshark", "-n", "-r", str(capture), *options], env=env, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


#: Of so many runs the median counts; what takes longest is far from the target.
RUNS = {"packet list": 7, "display filter": 5, "all details": 1}


def measure(packets: int = 200_000) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of CPU time by workload and reading: {"ours": s, "tcp": s, "lo": s}.

    "tcp" is for bare segments, "lo" for those that ``tcpdump -i lo`` would have written.  Medians of
    alternating runs.  Raises OSError or CalledProcessError if tshark can't be run.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, tcp, lo, home = folder / "ours.pcapng", folder / "tcp.pcap", folder / "lo.pcap", folder / "home"
        plugins = home / ".local/lib/wireshark/plugins"
        plugins.mkdir(parents=True)
        (plugins / "unixsock.lua").symlink_to(ROOT / "dissector/unixsock.lua")
        for workload, (talk, path, port) in WORKLOADS.items():
            _write_ours(ours, talk(packets), path)
            _write_tcp(tcp, talk(packets), port, on_lo=False)
            _write_tcp(lo, talk(packets), port, on_lo=True)
            for reading, options in READINGS.items():
                seconds = [
                    (
                        _cpu_seconds(ours, home, options),
                        _cpu_seconds(tcp, folder, options),
                        _cpu_seconds(lo, folder, options),
                    )
                    for _ in range(RUNS[reading])
                ]
                medians = (statistics.median(column) for column in zip(*seconds, strict=True))
                table.setdefault(workload, {})[reading] = dict(
                    zip(("ours", "tcp", "lo"), medians, strict=True)
                )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packets", type=int, default=200_000, help="in each capture (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    made = report.dissector(measure(options.packets), f"{datetime.date.today()}", options.packets)
    print(made["dissector"])
    if options.write:
        report.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
