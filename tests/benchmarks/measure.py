"""The part of the bench that runs in the guest: everything is measured here, in one boot, alternating.

Writes what it measured as JSON to the file that it is given, after each step, so that a bench that
is interrupted still has something to show.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import observers, programs, startup, workloads
from benchmarks.observers import Observer, ObserverError, Ours
from benchmarks.workloads import WORKLOADS, Said, Workload

#: Rates at which "the highest rate without loss" is looked for: messages of 64 B a second.
RATES = [1000 * 2**step for step in range(10)]


class Results:
    """What was measured, by kind: lists of rows, which report.py turns into tables."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.data: dict[str, Any] = {
            "rows": [],
            "rates": {},
            "probe": [],
            "growth": [],
            "idle": {},
            "ready": {},
            "missing": [],
        }

    def save(self) -> None:
        self._file.write_text(json.dumps(self.data, indent=1))


def say(text: str) -> None:
    print(text, flush=True)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    return {
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "cpu": cpu.partition(":")[2].strip(),
        "emulated": "hypervisor" not in Path("/proc/cpuinfo").read_text() or "QEMU" in cpu,
    }


def one(observer: Observer, workload: Workload, seconds: float, **options: Any) -> dict[str, Any]:
    """One run under ``observer``: time, losses and CPU of one workload."""
    position, cpu = observer.position(), observer.cpu()
    children = _children_cpu()
    wrap = () if workload.rejected else observer.wrap
    said = workloads.run(workload, observer.family, seconds, wrap=wrap, **options)
    if wrap:
        used = _children_cpu() - children - said.cpu
    observer.settle()
    if not wrap:
        used = observer.cpu() - cpu
    row = _row(said) | {"cpu": used / said.messages * 1e6}
    if not workload.rejected:
        messages, size = observer.seen(position, workload.size)
        row |= {"lost": said.messages - messages, "lost_bytes": said.bytes - size}
    return row


def _row(said: Said) -> dict[str, Any]:
    return {"messages": said.messages, "bytes": said.bytes, "each": said.each}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def round_of(
    number: int, observer: Observer, chosen: list[Workload], seconds: float, results: Results, idle: float
) -> None:
    """All workloads without and then with ``observer``."""
    spoken = [workload for workload in chosen if workload.speaks(observer.family)]
    # Rejection is a matter of a few per cent: it is measured more often.
    times = {workload.key: 3 if workload.rejected else 1 for workload in spoken}
    alone = {
        w.key: [workloads.run(w, observer.family, seconds).each for _ in range(times[w.key])] for w in spoken
    }
    observer.start()
    try:
        results.data["ready"].setdefault(observer.name, []).append(observer.started)
        for workload in spoken:
            for again in range(times[workload.key]):
                row = one(observer, workload, seconds)
                row |= {
                    "round": number,
                    "observer": observer.name,
                    "workload": workload.key,
                    "alone": alone[workload.key][again],
                }
                results.data["rows"].append(row)
                say(
                    f"  {observer.name:9} {workload.title:26} {row['each']:8.1f} us a message,"
                    f" {row['alone']:8.1f} without, {row.get('lost', 0)} of {row['messages']} lost"
                )
        if idle and observer.processes:
            cpu = observer.idle_cpu()
            time.sleep(idle)
            results.data["idle"].setdefault(observer.name, []).append((observer.idle_cpu() - cpu) / idle)
    finally:
        observer.stop()
        observer.forget()
    results.save()


def keeps_up(observer: Observer, rate: float, seconds: float) -> tuple[bool, float]:
    """Whether all of a paced blast was captured, and the rate that the sender really reached."""
    paced = Workload("paced", "paced", "paced", 64, number=rate)
    position = observer.position()
    said = workloads.run(paced, observer.family, seconds, wrap=observer.wrap)
    observer.settle()
    messages, _ = observer.seen(position, paced.size)
    return messages >= said.messages, said.messages / said.seconds


def highest_rate(observer: Observer, seconds: float) -> dict[str, float]:
    """The highest rate at which nothing was lost, and the lowest at which something was (0: none)."""
    good = bad = 0.0
    for rate in RATES:
        whole, reached = keeps_up(observer, rate, seconds)
        say(f"  {observer.name:9} {reached:8.0f} messages/s: {'all' if whole else 'not all'} captured")
        if not whole:
            bad = reached
            break
        good = max(good, reached)
        if reached < rate * 0.9:  # the sender can't say more
            break
    for _ in range(3 if bad and good else 0):
        whole, reached = keeps_up(observer, (good + bad) / 2, seconds)
        say(f"  {observer.name:9} {reached:8.0f} messages/s: {'all' if whole else 'not all'} captured")
        if whole:
            good = max(good, reached)
        else:
            bad = min(bad, reached)
    return {"good": good, "bad": bad}


def rates(watchers: list[Observer], seconds: float, results: Results) -> None:
    say("The highest rate with zero loss")
    for observer in watchers:
        observer.start()
        try:
            results.data["rates"][observer.name] = highest_rate(observer, seconds)
        finally:
            observer.stop()
            observer.forget()
        results.save()


def probe(watchers: list[Ours], seconds: float, repeats: int, results: Results) -> None:
    say("What the probe itself takes")
    for observer in watchers:
        observer.start()
        try:
            with programs.counted():
                for _ in range(repeats):
                    for workload in WORKLOADS:
                        before = programs.nanoseconds()
                        said = workloads.run(workload, observer.family, seconds)
                        each = (programs.nanoseconds() - before) / 1e3 / said.messages
                        results.data["probe"].append(
                            {"observer": observer.name, "workload": workload.key, "each": each}
                        )
                        say(f"  {observer.name:9} {workload.title:34} {each:8.2f} us a message")
                        observer.settle()
        finally:
            observer.stop()
            observer.forget()
        results.save()


def growth(opened: list[int], terms: list[int], seconds: float, repeats: int, results: Results) -> None:
    """What more open sockets and more filter terms cost: blast 64 B and ping-pong under fentry."""
    say("Growth with open sockets and filter terms")
    chosen = [workload for workload in WORKLOADS if workload.key in ("pingpong", "blast")]
    for count in terms:
        observer = Ours("fentry", terms=count)
        observer.start()
        try:
            for repeat in range(repeats):
                for sockets in opened if count == terms[0] else opened[:1]:
                    for workload in chosen:
                        row = one(observer, workload, seconds, opened=sockets)
                        row |= {"workload": workload.key, "opened": sockets, "terms": count}
                        results.data["growth"].append(row)
                        if not repeat:
                            what = f"{sockets:6} sockets, {count:2} terms, {workload.title}"
                            say(f"  {what}: {row['each']:.1f} us")
        finally:
            observer.stop()
            observer.forget()
        results.save()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60, help="begin no round after so many")
    parser.add_argument("--peer", default="")
    parser.add_argument("--only", default="", help="observers, separated by commas")
    options = parser.parse_args()
    began = time.monotonic()
    os.environ["TMPDIR"] = "/dev/shm"
    workloads.build()
    results = Results(options.results)
    watchers, results.data["missing"] = observers.present(options.peer)
    results.data["machine"] = machine()
    results.data["short"] = options.short
    rounds, seconds = (1, 0.2) if options.short else (options.rounds, 0.6)
    chosen = options.only.split(",") if options.only else []
    if options.short:
        chosen = chosen or ["fentry", "tcpdump", "strace"]
    if chosen:
        watchers = [one for one in watchers if one.name in chosen]
    say("Start-up")
    results.data["startup"] = startup.measure(1 if options.short else 3)
    for number in range(rounds):
        if time.monotonic() - began > options.minutes * 60:
            break
        results.data["rounds"] = number + 1
        say(f"Round {number + 1} of {rounds}")
        for observer in list(watchers):
            try:
                round_of(number, observer, list(WORKLOADS), seconds, results, 1 if options.short else 3)
            except (ObserverError, subprocess.CalledProcessError) as problem:
                if isinstance(observer, Ours):
                    raise
                say(f"  {observer.name} is left out: {problem}")
                results.data["missing"].append(observer.name)
                watchers.remove(observer)
    if not options.short:
        probe([one for one in watchers if isinstance(one, Ours)], 0.3, 3, results)
        rates([one for one in watchers if one.name != "kprobe"], 5, results)
        growth([10, 1000, 20_000], [1, 64], 0.6, 3, results)
    results.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
