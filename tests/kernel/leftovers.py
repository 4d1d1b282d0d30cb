"""What a capture may leave behind: programs and hooks in the kernel, pinned objects, processes."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from pathlib import Path

from patience import soon

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng, reader
from unixsock_bpf.probe.libbpf import library

#: Seconds in which probes must be gone.  In the guest the kernel takes an eighth of one for each function
#: that has an fentry program; an emulated processor that has other work needs longer.
SOON = 10


def _count(next_id: str) -> int:
    """How many there are of what libbpf's function ``next_id`` lists."""
    at, count = ctypes.c_uint32(0), 0
    while getattr(library(), next_id)(at, ctypes.byref(at)) == 0:
        count += 1
    return count


#: What the kernel has of its own.
BEFORE = _count("bpf_prog_get_next_id"), _count("bpf_link_get_next_id")


def programs() -> int:
    """BPF programs that the kernel holds, whoever refers to them."""
    return _count("bpf_prog_get_next_id") - BEFORE[0]


def hooks() -> int:
    """Places where fentry programs are attached."""
    return _count("bpf_link_get_next_id") - BEFORE[1]


def gone(count: int = 0) -> float:
    """Seconds until at most ``count`` of them are left.  The kernel frees them late where it is busy."""
    begin = time.monotonic()
    while (left := programs()) > count:
        took = time.monotonic() - begin
        assert took < SOON or took < soon(SOON), (
            f"{left} BPF programs are left, of {count}; of our processes {ours()}"
        )
        time.sleep(0.02)
    return time.monotonic() - begin


def pinned() -> list[str]:
    """What is pinned in BPF's file system."""
    return [
        str(path) for path in Path("/sys/fs/bpf").rglob("*") if path.name not in ("progs.debug", "maps.debug")
    ]


def alive(pid: int) -> bool:
    """Whether a process still runs: not reaped yet does not count."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return False


def ended(pids: list[int]) -> float:
    """Seconds until none of these processes runs."""
    begin = time.monotonic()
    while any(map(alive, pids)):
        assert time.monotonic() - begin < soon(SOON), f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.02)
    return time.monotonic() - begin


def family(pid: int) -> dict[int, str]:
    """A process and those below it, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                found[int(entry.name)] = (
                    parent,
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"),
                )
    below = {pid}
    while more := {one for one, (parent, _) in found.items() if parent in below} - below:
        below |= more
    return {one: found[one][1] for one in below if one in found}


def ours() -> dict[int, str]:
    """Our processes that run, with their command lines, but for the tests themselves."""
    return {pid: line for pid, line in family(1).items() if "unixsock" in line and "pytest" not in line}


def only(processes: dict[int, str], word: str) -> int:
    """The process whose command line holds ``word``; of a process and its forks, the first."""
    return min(pid for pid, line in processes.items() if word in line)


def readable(path: Path) -> list[record.Record]:
    """The whole records of a file whose writer may have been killed."""
    found = []
    with suppress(pcapng.PcapngError, reader.SavedError):
        for one in reader.read(str(path)):
            found.append(one.record)
    return found
