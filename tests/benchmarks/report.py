"""From what was measured to docs/performance.md.  Nothing here measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import startup
from benchmarks.workloads import WORKLOADS

#: Observers in the order of the tables, with their titles.
TITLES = {
    "fentry": "this, fentry",
    "kprobe": "this, kprobe",
    "bpftrace": "bpftrace",
    "strace": "strace",
    "peer": "PEER",
    "tcpdump": "tcpdump, TCP",
}
OURS = ("fentry", "kprobe")
_KEYS = {workload.key: workload for workload in WORKLOADS}


def _of(rows: list[dict[str, Any]], observer: str, workload: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["observer"] == observer and row["workload"] == workload]


class Measured:
    """What measure.py wrote, with medians."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        present = {row["observer"] for row in data["rows"]}
        self.observers = [name for name in TITLES if name in present]
        # In the first round the guest touches most of its memory for the first time, which takes its time.
        self._settled = [row for row in data["rows"] if row["round"] > 0] or data["rows"]

    def _rows(self, observer: str, workload: str) -> list[dict[str, Any]]:
        return _of(self._settled, observer, workload)

    def _median(self, observer: str, workload: str, value: Callable[[dict[str, Any]], float]) -> float | None:
        values = [value(row) for row in self._rows(observer, workload)]
        return statistics.median(values) if values else None

    def alone(self, observers: Iterable[str], workload: str) -> float | None:
        """Microseconds a message without any capture, measured beside those observers."""
        values = [row["alone"] for name in observers for row in self._rows(name, workload)]
        return statistics.median(values) if values else None

    def added(self, observer: str, workload: str) -> float | None:
        """Microseconds that a message takes longer under ``observer``."""
        return self._median(observer, workload, lambda row: row["each"] - row["alone"])

    def slower(self, observer: str, workload: str) -> float | None:
        """By which part a message takes longer."""
        return self._median(observer, workload, lambda row: row["each"] / row["alone"] - 1)

    def cpu(self, observer: str, workload: str) -> float | None:
        """Microseconds of CPU that the capturing processes use a message."""
        return self._median(observer, workload, lambda row: row["cpu"])

    def probe(self, observer: str, workload: str) -> float | None:
        """Microseconds a message that the probe's programs run, by the kernel's count."""
        values = [row["each"] for row in _of(self.data["probe"], observer, workload)]
        return statistics.median(values) if values else None

    def lost(self, observer: str, workload: str) -> tuple[int, int, int] | None:
        """Messages sent, messages lost, bytes lost, in all rounds."""
        rows = [row for row in _of(self.data["rows"], observer, workload) if "lost" in row]
        if not rows:
            return None
        return (
            sum(row["messages"] for row in rows),
            sum(max(0, row["lost"]) for row in rows),
            sum(max(0, row["lost_bytes"]) for row in rows),
        )

    def ratio(self, ours: str, peer: str, workload: str) -> float | None:
        """What we add, as a part of what ``peer`` adds."""
        mine, other = self.added(ours, workload), self.added(peer, workload)
        if mine is None or other is None or other <= 0:
            return None
        return max(mine, 0.0) / other


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: float | None, unit: str = "") -> str:
    """Two or three digits that count; a dash for what was not measured."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}{unit}"


def costs(measured: Measured) -> str:
    """Microseconds added to each message."""
    local = [name for name in measured.observers if name != "tcpdump"]
    rows = [
        [
            workload.title,
            number(measured.alone(local, key)),
            *(number(measured.added(name, key)) for name in local),
            number(measured.alone(["tcpdump"], key)),
            number(measured.added("tcpdump", key)),
        ]
        for key, workload in _KEYS.items()
    ]
    head = [
        "added µs a message",
        "(alone)",
        *(TITLES[name] for name in local),
        "(TCP alone)",
        TITLES["tcpdump"],
    ]
    return table(head, rows)


def ratios(measured: Measured) -> str:
    """What we add as parts of what the peers add."""
    peers = [name for name in measured.observers if name not in OURS]
    pairs = [(mine, peer) for mine in OURS if mine in measured.observers for peer in peers]
    rows = [
        [workload.title, *(number(measured.ratio(mine, peer, key)) for mine, peer in pairs)]
        for key, workload in _KEYS.items()
    ]
    return table(["ours / peer", *(f"{mine} / {TITLES[peer]}" for mine, peer in pairs)], rows)


def losses(measured: Measured) -> str:
    """Messages and bytes that were said but are not in the output."""

    def cell(observer: str, key: str) -> str:
        lost = measured.lost(observer, key)
        if lost is None:
            return "-"
        sent, messages, size = lost
        if not messages and not size:
            return f"0 of {sent:,}"
        return f"{messages:,} of {sent:,}; {size:,} B"

    rows = [
        [workload.title, *(cell(name, key) for name in measured.observers)]
        for key, workload in _KEYS.items()
        if not workload.rejected
    ]
    return table(["lost", *(TITLES[name] for name in measured.observers)], rows)


def probe(measured: Measured) -> str:
    """What the probe's programs take, and which part that is of a message without a capture."""
    if not measured.data["probe"]:
        return ""
    rows = []
    for key, workload in _KEYS.items():
        row, alone = [workload.title], measured.alone(OURS, key)
        for name in OURS:
            each = measured.probe(name, key)
            row += [number(each), number(each / alone * 100 if each is not None and alone else None)]
        rows.append(row)
    heads = [word for name in OURS for word in (f"{name}, µs a message", "% of it without capture")]
    return table(["the probe's programs", *heads], rows)


def processor(measured: Measured) -> str:
    """CPU time of the capturing processes."""
    rows = [
        [workload.title, *(number(measured.cpu(name, key)) for name in measured.observers)]
        for key, workload in _KEYS.items()
    ]
    idle = measured.data["idle"]
    rows.append(
        [
            "idle, % of one CPU (this: the extcap)",
            *(number(_idle(idle[n])) if n in idle else "-" for n in measured.observers),
        ]
    )
    return table(["CPU µs a message", *(TITLES[name] for name in measured.observers)], rows)


def _idle(parts: list[float]) -> float:
    return statistics.median(parts) * 100


def rates(measured: Measured) -> str:
    """The highest rate without loss."""
    rows = []
    for name, rate in measured.data["rates"].items():
        bad = f"{rate['bad']:,.0f}" if rate["bad"] else "none: the sender could say no more"
        rows.append([TITLES[name], f"{rate['good']:,.0f}", bad])
    return table(["64 B messages a second", "nothing lost at", "something lost at"], rows) if rows else ""


def growth(measured: Measured) -> str:
    """Cost with many sockets and terms."""
    rows: dict[tuple[int, int], dict[str, list[float]]] = {}
    for row in measured.data["growth"]:
        rows.setdefault((row["opened"], row["terms"]), {}).setdefault(row["workload"], []).append(row["each"])
    if not rows:
        return ""
    return table(
        ["open sockets", "filter terms", "ping-pong, µs a message", "blast, µs a message"],
        [
            [
                f"{opened:,}",
                str(terms),
                *(number(statistics.median(found[key])) for key in ("pingpong", "blast")),
            ]
            for (opened, terms), found in rows.items()
        ],
    )


def start(guest: dict[str, float], native: dict[str, float] | None) -> str:
    """Start-up in parts."""
    columns = [guest, native or {}]
    names = list(dict.fromkeys([*guest, *(native or {})]))
    return table(
        ["seconds", "in the guest", "natively, as far as the kernel lets us"],
        [[name, *(number(column.get(name)) for column in columns)] for name in names],
    )


def targets(measured: Measured, native: dict[str, float] | None, dissector: dict[str, Any] | None) -> str:
    """The targets beside what was measured."""
    rows: list[list[str]] = []

    def add(text: str, limit: float, value: float | None, unit: str = "") -> None:
        verdict = "not measured" if value is None else "met" if value <= limit else "**missed**"
        rows.append([text, f"≤ {limit:g}{unit}", number(value, unit), verdict])

    add("blast 64 B, added: this / PEER", 0.1, measured.ratio("fentry", "peer", "blast"))
    add("the same, eight times as long", 0.1, measured.ratio("fentry", "peer", "blast_on"))
    for key in ("pingpong", "pingpong2", "pingpong1"):
        add(f"{_KEYS[key].title}, added: this / PEER", 0.2, measured.ratio("fentry", "peer", key))
    for key in ("blast", "pingpong"):
        theirs = measured.added("tcpdump", key)
        if theirs is not None:
            text = f"{_KEYS[key].title}, added; at most what tcpdump adds over TCP"
            add(text, float(number(max(theirs, 0))), measured.added("fentry", key), " µs")
    slower = measured.slower("fentry", "rejected")
    add("rejected socket's ping-pong, slower by", 3, None if slower is None else slower * 100, " %")
    own, alone = measured.probe("fentry", "rejected"), measured.alone(OURS, "rejected")
    add(
        "of it, the probe's programs by the kernel's count",
        3,
        own / alone * 100 if own and alone else None,
        " %",
    )
    found = measured.data["rates"]
    if "fentry" in found and found.get("peer", {}).get("good"):
        factor = found["fentry"]["good"] / found["peer"]["good"]
        verdict = "met" if factor >= 3 else "**missed**"
        rows.append(["highest rate without loss: this / PEER", "≥ 3", number(factor), verdict])
    if native:
        add("listing interfaces, natively", 0.1, native["list interfaces"], " s")
        add("from exec to a loaded probe, natively, the very first time", 0.5,
            native.get(startup.LOADED), " s")  # fmt: skip
        add("the same with a new filter", 0.5,
            native.get(startup.NEW_LOADED), " s")  # fmt: skip
        add("the same with a filter that was used before", 0.5, native.get(startup.LATER_LOADED), " s")
    if measured.data["idle"].get("fentry"):
        add("CPU when idle", 0, round(_idle(measured.data["idle"]["fentry"]), 2), " %")
    for workload, readings in (dissector or {}).items():
        for reading, values in readings.items():
            for title, peer in (("TCP on lo", "lo"), ("the barest TCP", "tcp")):
                add(f"tshark, {workload}, {reading}: this / {title}", 2, values["ours"] / values[peer])
    return table(["target", "limit", "measured", ""], rows)


_EMULATED = """\
The guest is **emulated**: every instruction costs ten to thirty times what it costs natively, and not all
by the same factor. Ratios between tools that ran side by side in it mean something; microseconds do not.
The same probe costs several times as much where two processes take turns on one processor, most likely
because the emulator then forgets what it knows of all memory at each turn, the kernel's too, which a
processor does not. So the ends of a ping-pong run on two processors and on one, too; where the kernel may
choose, it changes its mind.
"""

_METHOD = """\
Each round runs every workload without any capture, then with one tool, for each tool in turn; the tables
hold medians of the rounds' differences, but for the first round, where there are others: in it the guest
touches much of its memory for the first time. A negative difference is noise. This project runs as under
Wireshark: extcap, fifo, dumpcap writing a file. tcpdump sees the same bytes over TCP on `lo`. bpftrace
prints what it can of each `sendto`; strace stops at `sendto` only (`--seccomp-bpf`). All run with their
defaults. A lost message is one that the generator sent and that is not in the tool's output.
"""

_COUNTED = """\
The kernel's own count (`kernel.bpf_stats_enabled`) of the time in our programs, some of which run when a
message is read. Two looks at a clock are in each, which the emulator makes dear; what the kernel's
trampolines and kprobes cost is not. It shows what the probe costs where differences of whole runs are noise.
"""

_LIMITS = """\
What keeps the missed ones from being met:

- A blast that goes on: with no idle processor, those who talk pay for the extcap and dumpcap, too, which use
  several times what the probe costs (below: CPU µs a message). Most of it is dumpcap's, which takes seven
  system calls for a packet that comes through a pipe: natively 5.8 µs of its own, and 1.1 µs of the extcap's.
- A ping-pong between processes that take turns on one processor: the emulator, as above. How little these
  tables say of it: minutes apart, one and the same probe added 30 and 88 µs there, and 25 and 64 µs on two
  processors, while by the kernel's count its programs took 9 to 13 µs each time.
- A rejected socket's ping-pong, where it is missed: all that is done for it is one look-up in each of the
  two programs that a message passes. Runs of nearly the same probe came to -15 %, -12 %, +1 %, +3 %, +4 %,
  +8 %, +15 % and +16 %: the noise is larger than the target. The kernel's count has four looks at a clock
  in it.
- The highest rate: where "the sender could say no more", it is the sender's under that tool and not a limit
  of the tool; ours is then below the target because the sender is.
- tcpdump: a packet has its addresses in it, and the kernel's own code copies it. A record of ours has to name
  both ends, their processes and their path. In such a guest a prototype's empty fentry hook added 0.3 µs, a
  dozen kernel reads 1.6 µs, a ring record of 200 bytes 3 µs.
- All details: each of our fifty fields is added from Lua, which makes two objects for it: 799,000
  instructions for a packet of HTTP by callgrind (tshark 4.0), 370,000 on `lo`. A window shows one packet's.
- The packet list, where it is missed: 124,000 instructions for a packet of HTTP, 72,000 on `lo`. Wireshark's
  own library takes 38,000 of either. Lua takes 42,000, about half of it at the border to Wireshark (23
  arguments checked for their type, 470 each, and 7 objects made). Times vary more than instructions: one and
  the same dissector took 3.3 s and 4.4 s for HTTP within an hour.
"""

_BURSTS = """\
The ring between kernel and reader (`--buffer-size`, 64 MiB) takes a burst; a message of 64 B needs some
330 bytes in it. The reader takes 1,000 records or 1 MiB at a time, without copying, and then rests three
times as long as that took. While no processor is idle, those who talk would pay for reading and for
writing the file: then what they say stays in the ring, for a second at most, unless half of the ring is
full or reading takes next to nothing (unixsock_bpf/capture/read_scheduler.py).
So a burst costs what the probe itself costs;
what goes on for longer, with all processors busy, costs what the reader and dumpcap use, too. When the
fifo takes nothing and half of the ring is full, the reader drains it into memory, at most as much again as
the ring holds. What does not fit even there is lost, counted, and shown in the capture.
"""


def document(
    data: dict[str, Any],
    native: dict[str, float] | None,
    dissector: dict[str, Any] | None,
    peer: str,
    when: str,
) -> str:
    """The whole of docs/performance.md."""
    measured = Measured(data)
    machine = data["machine"]
    missing = ", ".join(data["missing"])
    rounds = data.get("rounds", 1)
    sections = [
        "# What a capture costs\n",
        f"Written by `make bench`; do not edit. Measured {when} on Linux {machine['kernel']}, "
        f"{machine['cpus']} CPUs ({machine['cpu']}), in one guest and one run "
        f"of {rounds} round{'' if rounds == 1 else 's'}.\n",
        _EMULATED if machine["emulated"] else "",
        _METHOD,
        f"Not measured, as not installed or not able to run here: {missing}.\n" if missing else "",
        f"PEER is `{peer}`.\n"
        if peer
        else "No PEER was given: `make bench PEER='command {path}'` adds one.\n",
        "## Targets\n",
        targets(measured, native, dissector),
        _LIMITS,
        _COUNTED_PART.read_text() if _COUNTED_PART.exists() else "",
        "## What is added to each message\n",
        costs(measured),
        "*Rejected* is a socket that the filter leaves out: what everybody else on the machine pays. "
        "tcpdump's column is against the same exchange over TCP without a capture.\n",
        ratios(measured),
        "## What the probe itself takes\n" if measured.data["probe"] else "",
        _COUNTED if measured.data["probe"] else "",
        probe(measured),
        "## What is lost\n",
        losses(measured),
        "bpftrace shows at most 200 bytes of a message. tcpdump is judged by payload bytes.\n",
        "## The highest rate without loss\n" if data["rates"] else "",
        rates(measured),
        "## What the capturing processes use\n",
        processor(measured),
        "## How a burst is absorbed\n",
        _BURSTS,
        "## Growth\n" if data["growth"] else "",
        growth(measured),
        "## Start-up\n",
        start(data["startup"], native),
        _LOADED if native else "",
        "## Dissector\n" if dissector else "",
        _dissector(dissector),
        _EXPORTS.read_text(),
    ]
    return "\n".join(section for section in sections if section)


#: Counted apart, by counted.py.
_COUNTED_PART = Path(__file__).with_name("counted.md")
#: Measured apart, by tests/exports/measure.py.
_EXPORTS = Path(__file__).parents[1] / "exports/measured.md"

_LOADED = """\
*loaded*: from exec to where the kernel has all programs, with kprobes. What is left is attaching them, which
kernels may refuse that load them: the guest's column says how little that takes beside the rest.
"""

_PLAIN_TCP = """\
TCP on lo is the same talk as `tcpdump -i lo` writes it, with Ethernet headers and TCP time stamps. The barest
that there can be is IPv4 without a link layer and TCP without options.
"""


def _dissector(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    rows = []
    for workload, readings in found.items():
        for reading, values in readings.items():
            row = [workload, reading, number(values["ours"])]
            for peer in ("tcp", "lo"):
                row += [number(values[peer]), number(values["ours"] / values[peer])]
            rows.append(row)
    heads = ["this", "plain TCP", "ratio", "TCP on lo", "ratio"]
    return _PLAIN_TCP + "\n" + table(["tshark on 200,000 packets, CPU s", "reading", *heads], rows)
