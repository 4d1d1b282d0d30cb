"""The part of the bench that counts instructions: in a guest whose clock counts them (``vm.guest.boot``).

There processor time is the number of instructions executed for a process, in kernel and user, BPF programs
and interrupts included: a nanosecond is one.  Nothing else that runs on the machine changes it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import observers, workloads
from benchmarks.observers import MARKS, Dump, Observer, ObserverError, Ours, Tshark
from benchmarks.workloads import WORKLOADS, Workload

_KEYS = ("pingpong", "blast", "blast30k", "dgram", "rejected")
#: What is counted.
COUNTED = (
    *(workload for workload in WORKLOADS if workload.key in _KEYS),
    Workload("rejected_blast", "rejected: blast 64 B", "blast", 64, rejected=True),
)


def one(workload: Workload, seconds: float, observer: Observer | None, family: str) -> dict[str, Any]:
    """Run ``workload`` once and return its row: instructions a message, losses.

    ``traced``: of both ends; ``capturing``: of the capturing processes, what they do after the last
    message included; ``wall``: all that the processor did meanwhile.
    """
    position, cpu = (observer.position(), observer.cpu()) if observer else (0, 0.0)
    wrap = observer.wrap if observer and not workload.rejected else ()
    said = workloads.run(workload, family, seconds, wrap=wrap)
    row: dict[str, Any] = {
        "workload": workload.key,
        "family": family,
        "observer": observer.name if observer else "",
        "messages": said.messages,
        "traced": said.cpu / said.messages * 1e9,
        "wall": said.seconds / said.messages * 1e9,
    }
    if not observer:
        return row
    observer.settle()
    if not wrap:
        row["capturing"] = (observer.cpu() - cpu) / (said.messages + MARKS) * 1e9
    if not workload.rejected:
        messages, size = observer.seen(position, workload.size)
        row |= {"lost": max(0, said.messages - messages), "lost_bytes": max(0, said.bytes - size)}
    return row


def rows_under(observer: Observer | None, family: str, seconds: float, times: int) -> list[dict[str, Any]]:
    """Run all workloads ``times`` times.  Raises ObserverError."""
    if observer:
        observer.start()
    try:
        found = []
        for workload in COUNTED:
            for _ in range(times if workload.speaks(family) else 0):
                found.append(one(workload, seconds, observer, family))
                row = found[-1]
                print(
                    f"  {row['observer'] or 'nothing':9} {family:4} {workload.title:26}"
                    f" {row['traced']:9,.0f} traced, {row['wall']:9,.0f} in all,"
                    f" {row.get('lost', 0)} of {row['messages']} lost",
                    flush=True,
                )
        return found
    finally:
        if observer:
            observer.stop()
            observer.forget()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--peer", default="")
    parser.add_argument("--only", default="", help="observers, separated by commas")
    options = parser.parse_args()
    os.environ["TMPDIR"] = "/dev/shm"
    workloads.build()
    seconds, times = (0.02, 1) if options.short else (0.2, 3)
    watchers, missing = observers.present(options.peer)
    watchers[2:2] = [Dump("dump"), Tshark("tshark")]
    chosen = options.only.split(",") if options.only else [one.name for one in watchers]
    found: dict[str, Any] = {"kernel": os.uname().release, "rows": [], "missing": missing}
    for observer in [None, *(one for one in watchers if one.name in chosen)]:
        families = ["unix", "tcp"] if observer is None else [observer.family]
        for family in families:
            try:
                found["rows"] += rows_under(observer, family, seconds, times)
            except (ObserverError, subprocess.CalledProcessError) as problem:
                if observer is None or isinstance(observer, (Ours, Dump, Tshark)):
                    raise
                print(f"  {observer.name} is left out: {problem}", flush=True)
                found["missing"].append(observer.name)
        options.results.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
