"""How long a start takes, in parts: from starting the extcap (clocked.py) to its first packet."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.clocked import now

CHECKOUT = Path(__file__).parents[2]
EXTCAP = CHECKOUT / "extcap" / "unixsock"
CLOCKED = Path(__file__).with_name("clocked.py")

#: What ``measure`` gives, in order: seconds.
SHOWN = ("list interfaces", "imports, options, BTF", "compile", "load", "attach", "rest", "first packet")
#: The whole again, with programs that were compiled before: see unixsock_bpf/probe/cache.py.
AGAIN = "first packet of a later capture"
#: The same with a filter that no capture had before.
NEW = "first packet with a new filter"
#: The same up to the last program that is loaded.
LOADED = "loaded"
NEW_LOADED = "loaded, new filter"
LATER_LOADED = "loaded, later capture"

#: Seconds that a start may take under emulation.
PATIENCE = 180


@contextlib.contextmanager
def _timed_extcap(*options: str, environment: dict[str, str]) -> Any:
    """A timed extcap: the process, its fifo opened, and a function that reads the notes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        fifo, notes = f"{folder}/fifo", Path(folder, "notes")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        began = now()
        process = subprocess.Popen(
            ["/usr/bin/python3", CLOCKED, notes, "--capture", "--extcap-interface", "unixsock",
             "--fifo", fifo, *options],
            stderr=subprocess.PIPE, env=os.environ | environment,
        )  # fmt: skip

        def read() -> list[tuple[str, float, float]]:
            rows = [line.split() for line in (notes.read_text() if notes.exists() else "").splitlines()]
            return [(part, float(begin) - began, float(end) - began) for part, begin, end in rows]

        try:
            yield process, reader, began, read
        finally:
            process.terminate()
            process.communicate()
            os.close(reader)


def _took(notes: list[tuple[str, float, float]], part: str) -> float:
    """Seconds from the first begin of ``part`` to its last end: two compile side by side."""
    spans = [(begin, end) for name, begin, end in notes if name == part]
    return max(end for _, end in spans) - min(begin for begin, _ in spans) if spans else 0.0


def _listing(repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = now()
        subprocess.run([EXTCAP, "--extcap-interfaces"], stdout=subprocess.DEVNULL, check=True)
        times.append(now() - began)
    return statistics.median(times)


def _forget_programs() -> None:
    """Has the next start compile."""
    from unixsock_bpf.probe import cache

    shutil.rmtree(cache.FOLDER, ignore_errors=True)


def _new_filter() -> list[str]:
    """Options for a filter that takes everything and that no capture had before."""
    inode = random.getrandbits(31)
    return ["--extcap-capture-filter", f"inode {inode} or not inode {inode}"]


def one_start(*options: str) -> dict[str, float]:
    """Seconds of each part of one start, and ``first packet``: all of it."""
    import socket

    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    marker, seen = os.urandom(16), bytearray()
    with here, there, _timed_extcap(*options, environment={}) as (process, reader, began, notes):
        while marker not in seen:
            if process.poll() is not None or now() - began > PATIENCE:
                raise RuntimeError(f"the extcap did not start: {process.stderr.read().decode()}")
            here.send(marker)
            there.recv(100)
            time.sleep(0.002)
            with contextlib.suppress(BlockingIOError):
                seen += os.read(reader, 1 << 16)
            del seen[:-100_000]
        total = now() - began
        parts = {name: 0.0 for name in SHOWN}
        rows = notes()
        for part, begin, end in rows:
            if part in parts:
                parts[part] += end - begin
        parts["compile"] = _took(rows, "compile")
        first = min(begin for part, begin, _ in rows if part in ("compile", "load"))
    parts["imports, options, BTF"] = first
    parts["first packet"] = total
    parts["rest"] = total - first - sum(parts[part] for part in ("compile", "load", "attach"))
    return parts


def measure(repeats: int) -> dict[str, float]:
    """Medians of ``one_start``, where the kernel lets the probe in."""
    starts, later, new = [], [], []
    for _ in range(repeats):
        _forget_programs()
        starts.append(one_start())
        new.append(one_start(*_new_filter())["first packet"])
        later.append(one_start()["first packet"])
    parts = {part: statistics.median(start[part] for start in starts) for part in SHOWN}
    again = {NEW: statistics.median(new), AGAIN: statistics.median(later)}
    return parts | again | {"list interfaces": _listing(repeats)}


def until_loaded(repeats: int) -> dict[str, float]:
    """The same with kprobes up to attaching, which many a kernel refuses that loads them.

    A part that the kernel did not come to is left out.
    """
    found: dict[str, list[float]] = {}

    def note(part: str, seconds: float) -> None:
        found.setdefault(part, []).append(seconds)

    def rows_of_a_start(*options: str) -> list[tuple[str, float, float]]:
        refusal = {"BENCH_IGNORE_REFUSAL": "1", "UNIXSOCK_ATTACH": "kprobe"}
        with _timed_extcap(*options, environment=refusal) as (process, _, began, notes):
            while process.poll() is None and "attach" not in [row[0] for row in notes()]:
                if now() - began > PATIENCE:
                    raise RuntimeError("the extcap did not start")
                time.sleep(0.05)
            return notes()

    for _ in range(repeats):
        _forget_programs()
        for name, options in ((LOADED, []), (NEW_LOADED, _new_filter()), (LATER_LOADED, [])):
            rows = rows_of_a_start(*options)
            attached = next((begin for part, begin, _ in rows if part == "attach"), None)
            if attached is not None:
                note(name, attached)
            if name == LOADED:
                note("python", rows[0][1])
                note("imports, options, BTF", min(row[1] for row in rows if row[0] == "compile"))
                note("compile", _took(rows, "compile"))
                if attached is not None:
                    note("load", attached - min(row[1] for row in rows if row[0] == "load"))
    medians = {part: statistics.median(times) for part, times in found.items()}
    return medians | {"list interfaces": _listing(repeats)}
