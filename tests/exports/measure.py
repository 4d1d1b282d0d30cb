"""Measure exports and queries: ``python -m exports.measure [RECORDS...]`` prints a row for each number."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from exports.big_capture import write

from unixsock_bpf.cli.main import main

#: A day of records, whatever their number.
_DAY_NS = 86_400_000_000_000
_QUERY = (
    "SELECT count(*), sum(caplen), count(DISTINCT src_pid) FROM records WHERE path = '/run/docker.sock'"
    " AND time >= TIMESTAMPTZ '2023-11-15 03:00:00+00' AND time < TIMESTAMPTZ '2023-11-15 04:00:00+00'"
)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return processor time, also of children, and time on the clock."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    before, began = used(), time.monotonic()
    work()
    return used() - before, time.monotonic() - began


def run(*command: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(command) == 0


def measure(count: int, folder: Path) -> None:
    capture = write(folder / "a.pcapng", count, step_ns=_DAY_NS // count)
    size = capture.stat().st_size
    merged = ["mergecap", "-w", str(folder / "merged"), str(capture)]
    merge, _ = seconds(lambda: subprocess.run(merged, check=True))
    tcp, _ = seconds(lambda: run("export", str(capture), "--format", "tcp", "-w", str(folder / "a.pcap")))
    parquet = ["export", str(capture), "--format", "parquet", "-w", str(folder / "dataset"), "--host", "h"]
    written, _ = seconds(lambda: run(*parquet))
    stored = sum(file.stat().st_size for file in (folder / "dataset").rglob("*.parquet"))
    query = [sys.executable, "-m", "unixsock_bpf", "query", _QUERY, str(folder / "dataset")]
    asked, clock = seconds(lambda: subprocess.run(query, check=True, stdout=subprocess.DEVNULL))
    print(
        f"| {count:,} | {size / 1e6:,.0f} MB | {count / merge:,.0f} | {count / tcp:,.0f} |"
        f" {count / written:,.0f} |"
        f" {size / stored:.1f} | {asked:.2f} s, {clock:.2f} s |",
        flush=True,
    )


if __name__ == "__main__":
    for word in sys.argv[1:] or ["100000", "1000000", "10000000"]:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            measure(int(word), Path(name))
