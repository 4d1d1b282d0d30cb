"""Measure exports and queries: ``python -m exports.measure [--write] [--memory] [RECORDS...]``.

A row for each number of records, and with ``--memory`` one for each format on a capture of more than 2 GiB;
``--write`` puts them into docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from exports.big_capture import write

#: A day of records, whatever their number.
_DAY_NS = 86_400_000_000_000
_QUERY = (
    "SELECT count(*), sum(caplen), count(DISTINCT src_pid) FROM records WHERE path = '/run/docker.sock'"
    " AND time >= TIMESTAMPTZ '2023-11-15 03:00:00+00' AND time < TIMESTAMPTZ '2023-11-15 04:00:00+00'"
)
_HEADS = (
    "records", "pcapng", "mergecap, records/s", "`tcp`, records/s; mergecap's / its", "`parquet`, records/s",
    "pcapng's size / Parquet's", "query: CPU, clock",
)  # fmt: skip
#: The formats that are tried with a large capture.
FORMATS = ("tcp", "dbus", "har", "dot", "raw", "parquet", "json")
#: Bytes after each answer of a large capture.
_PADDING = bytes(range(32, 127)) * 90


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return processor time, also of children, and time on the clock."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    before, began = used(), time.monotonic()
    work()
    return used() - before, time.monotonic() - began


def command(*words: str) -> None:
    """Run the command as a process of its own: with the start of Python and all imports."""
    subprocess.run([sys.executable, "-m", "unixsock_bpf", *words], check=True, stdout=subprocess.DEVNULL)


def installed(folder: Path) -> None:
    """Have all modules compiled, as an installation has them."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    growth(1000, folder)


def large(folder: Path) -> tuple[Path, Path]:
    """Write a capture of more than 2 GiB, and a hundredth of it."""
    both = [write(folder / f"{count}.pcapng", count, padding=_PADDING) for count in (520_000, 5_200)]
    assert both[0].stat().st_size > 2 << 30
    return both[0], both[1]


def peak_mib(capture: Path, form: str, output: Path) -> int:
    """Export a capture in a process of its own; return the most memory that it had, MiB.

    VmHWM, because ru_maxrss is also of what the process was before exec: of us.  Mapped parts of the
    capture count.
    """
    program = (
        "import re, sys; from unixsock_bpf.cli.main import main; assert main(sys.argv[1:]) == 0;"
        " print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    words = [sys.executable, "-c", program, "export", str(capture), "--format", form, "-w", str(output)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) >> 10


def growth(count: int, folder: Path) -> list[str]:
    """Return a row for a capture of ``count`` records."""
    capture = write(folder / "a.pcapng", count, step_ns=_DAY_NS // count)
    size = capture.stat().st_size
    merged = ["mergecap", "-w", str(folder / "merged"), str(capture)]
    export = ["export", str(capture), "--format", "tcp", "-w", str(folder / "a.pcap")]
    pairs = [  # beside other work, the least is nearest to what each takes alone
        (seconds(lambda: subprocess.run(merged, check=True))[0], seconds(lambda: command(*export))[0])
        for _ in range(3)
    ]
    merge, tcp = map(min, zip(*pairs))
    dataset = folder / "dataset"
    parquet = ["export", str(capture), "--format", "parquet", "-w", str(dataset), "--host", "h"]
    written, _ = seconds(lambda: command(*parquet))
    files = list(dataset.rglob("*.parquet"))
    smaller = size / sum(file.stat().st_size for file in files)
    asked, clock = min((seconds(lambda: command("query", _QUERY, str(dataset))) for _ in range(3)), key=max)

    def judged(text: str, limit: str, met: bool) -> str:  # Python's start is most of what fewer records take
        return text if count < 10**6 else f"{text}, {limit}: {'met' if met else '**missed**'}"

    return [
        f"{count:,}", f"{size / 1e6:,.0f} MB", f"{count / merge:,.0f}",
        judged(f"{count / tcp:,.0f}; {tcp / merge:.1f}", "≤ 2", tcp <= 2 * merge),
        judged(f"{count / written:,.0f}", "≥ 100,000", count / written >= 100_000),
        judged(f"{smaller:.1f}", "≥ 10", smaller >= 10),
        judged(f"{asked:.2f} s, {clock:.2f} s", "≤ 2 s", clock <= 2),
    ]  # fmt: skip


def memory(folder: Path) -> list[list[str]]:
    """Return a row for each format: memory for the small capture and the large one."""
    much, little = large(folder)
    rows = []
    for form in FORMATS:
        small = peak_mib(little, form, folder / "small")
        peak = peak_mib(much, form, folder / "large")
        rows.append([f"`{form}`", f"{small} MiB", f"{peak} MiB"])
        for output in ("small", "large"):
            subprocess.run(["rm", "-rf", str(folder / output)], check=True)
    return rows


def _main() -> None:
    parser = argparse.ArgumentParser(prog="exports.measure", description=__doc__)
    parser.add_argument("records", nargs="*", type=int, help="(default: 10^5, 10^6 and 10^7)")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    made = {}
    with contextlib.ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR"))))

        when = f"Measured {datetime.date.today()}, Python {sys.version.split()[0]}.\n\n"
        if options.memory:
            heads = ["format", "memory for 21 MB", "memory for 2.1 GB"]
            made["memory"] = when + report.table(heads, memory(folder()))
            print(made["memory"])
        if options.records or not options.memory:
            installed(folder())
            rows = [growth(count, folder()) for count in options.records or (10**5, 10**6, 10**7)]
            made["exports"] = when + report.table(_HEADS, rows)
            print(made["exports"])
    if options.write:
        report.write(made)


if __name__ == "__main__":
    _main()
