"""What a capture costs in executed instructions, on several kernels: guests, and the part of the document."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from vm import guest, kernels
from vm.__main__ import show
from vm.debian import SetupError

from benchmarks import report
from benchmarks.instructions import COUNTED
from benchmarks.report import TITLES, table

TITLE = "## Counted in instructions"
SUITES = ("bookworm", "sid")
#: Seconds that a guest may take.
_LONGEST = 3600
#: The observers in the order of the tables.
_TITLES = {"": "(nothing)", **TITLES, "dump": "`dump -w`", "tshark": "tshark"}
_ORDER = ("fentry", "kprobe", "dump", "tshark", "peer", "bpftrace", "strace", "tcpdump")


def measure(suites: Sequence[str], peer: str, short: bool, only: str = "") -> dict[str, Any]:
    """Count in a guest for each of ``suites``; return the rows by kernel.  Raises SetupError."""
    found = {}
    for suite in suites:
        words = [
            "/usr/bin/python3",
            "-m",
            "benchmarks.instructions",
            "RESULT",
            "--peer",
            peer,
            "--only",
            only,
        ]
        command = shlex.join(words + (["--short"] if short else [])).replace("RESULT", '"$RESULTS"/rows.json')
        with guest.boot(kernels.fetch(suite), f"export PYTHONPATH=tests\n{command}", counted=True) as running:
            show(running, _LONGEST)
            if running.wait(1):
                raise SetupError(f"counting on {suite}'s kernel failed")
            rows = json.loads((running.results / "rows.json").read_text())
        found[rows["kernel"]] = rows
    return found


def _median(
    rows: list[dict[str, Any]], observer: str, workload: str, family: str, value: str
) -> float | None:
    chosen = [
        row[value]
        for row in rows
        if (row["observer"], row["workload"], row["family"]) == (observer, workload, family) and value in row
    ]
    return statistics.median(chosen) if chosen else None


def _thousands(value: float | None, base: float | None = None) -> str:
    if value is None:
        return "-"
    shown = f"{value / 1000:.{1 if value >= 100_000 else 2}f}"
    return shown if base is None else f"{shown} ({(value - base) / 1000:+.2f})"


def _kernel(found: dict[str, Any]) -> str:
    """Return one kernel's three tables."""
    rows = found["rows"]
    present = {row["observer"] for row in rows}
    shown = [name for name in _ORDER if name in present]
    traced, wall, capturing, lost = [], [], [], []
    for workload in COUNTED:
        lines: dict[str, list[str]] = {"traced": [], "wall": [], "capturing": [], "lost": []}
        for name in ("", *[one for one in shown if one != "tcpdump"], "tcp", "tcpdump"):
            family = "tcp" if name in ("tcp", "tcpdump") else "unix"
            observer = "" if name == "tcp" else name
            for value in ("traced", "wall"):
                base = _median(rows, "", workload.key, family, value) if observer else None
                lines[value].append(_thousands(_median(rows, observer, workload.key, family, value), base))
            if observer:
                lines["capturing"].append(
                    _thousands(_median(rows, observer, workload.key, family, "capturing"))
                )
                lines["lost"].append(_lost(rows, observer, workload.key))
        traced.append([workload.title, *lines["traced"]])
        wall.append([workload.title, *lines["wall"]])
        if not workload.rejected:
            capturing.append([workload.title, *lines["capturing"]])
            lost.append([workload.title, *lines["lost"]])
    local = [_TITLES[name] for name in shown if name != "tcpdump"]
    heads = [_TITLES[""], *local, "(TCP alone)", TITLES["tcpdump"]]
    missing = ", ".join(found["missing"])
    return "\n".join(
        [
            f"### Linux {found['kernel']}\n",
            table(["traced programs", *heads], traced),
            table(["the processor, in all", *heads], wall),
            table(["the capturing processes", *local, TITLES["tcpdump"]], capturing),
            table(["lost", *local, TITLES["tcpdump"]], lost),
            f"Not counted, as not installed or not able to run here: {missing}.\n" if missing else "",
        ]
    )


def _lost(rows: list[dict[str, Any]], observer: str, workload: str) -> str:
    chosen = [
        row for row in rows if (row["observer"], row["workload"]) == (observer, workload) and "lost" in row
    ]
    if not chosen:
        return "-"
    sent, messages, size = (sum(row[what] for row in chosen) for what in ("messages", "lost", "lost_bytes"))
    return f"{messages:,} of {sent:,}; {size:,} B" if messages or size else f"0 of {sent:,}"


_METHOD = """\
Thousands of executed instructions a message, counted by the emulator (`-icount shift=0,sleep=off`, one
processor): whatever else the machine does, the same run again differs by some tenths of a per cent. In
brackets is what the tool adds. *Traced programs*: processor time of both ends, in kernel and user, the
capture's programs included. *The processor, in all*: what it executed from the first message until the last
one was received, the capturing processes included; what these do later is only in their own table. Copies
count by the byte.
Caches, several processors at once and waiting do not count at all: the times below have them.
"""


def part(found: dict[str, Any], peer: str, when: str) -> str:
    """Return the part of the document."""
    named = f"PEER is `{peer}`." if peer else "No PEER was given."
    sections = [TITLE + "\n", f"Written by `make bench-counted` on {when}. {named}\n", _METHOD]
    return "\n".join([*sections, *(_kernel(one) for one in found.values())])


def write(found: dict[str, Any], peer: str, when: str) -> None:
    """Put the part into docs/performance.md."""
    report.write({"counted": part(found, peer, when)})
