"""From what was measured to docs/performance.md.  Nothing here measures anything.

The page is edited by hand, but for its parts between ``<!-- made: NAME -->`` and ``<!-- end -->``: a run
replaces those that it has measured, and leaves the others as they are.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import startup
from benchmarks.workloads import WORKLOADS

PAGE = Path(__file__).parents[2] / "docs/performance.md"

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


def targets(measured: Measured, native: dict[str, float] | None) -> str:
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
        add("the same with a new filter, where what all filters share was compiled before", 0.5,
            native.get(startup.NEW_LOADED), " s")  # fmt: skip
        add("the same with a filter that was used before", 0.5, native.get(startup.LATER_LOADED), " s")
    if measured.data["idle"].get("fentry"):
        add("CPU when idle", 0, round(_idle(measured.data["idle"]["fentry"]), 2), " %")
    return table(["target", "limit", "measured", ""], rows)


def put_into(page: str, parts: dict[str, str]) -> str:
    """Return ``page`` with these parts, by name, in place of its own.  Raises ValueError without a place."""
    for name, text in parts.items():
        marks = re.compile(rf"(<!-- made: {re.escape(name)} -->\n).*?(<!-- end -->\n)", re.DOTALL)
        if len(marks.findall(page)) != 1:
            raise ValueError(f"docs/performance.md has no single part <!-- made: {name} -->")
        body = f"\n{text.strip()}\n\n" if text.strip() else ""
        page = marks.sub(lambda found, body=body: found[1] + body + found[2], page)
    return page


def write(made: dict[str, str]) -> None:
    """Put these parts into docs/performance.md."""
    PAGE.write_text(put_into(PAGE.read_text(), made))
    print(f"Written to {PAGE}: {', '.join(made)}")


def parts(
    data: dict[str, Any],
    native: dict[str, float] | None,
    dissector_seconds: dict[str, Any] | None,
    peer: str,
    when: str,
) -> dict[str, str]:
    """Return the parts of docs/performance.md that a run of the bench makes, by name."""
    measured = Measured(data)
    machine = data["machine"]
    missing = ", ".join(data["missing"])
    rounds = data.get("rounds", 1)
    run = [
        f"Measured {when} on Linux {machine['kernel']}, {machine['cpus']} CPUs ({machine['cpu']}"
        f"{', emulated' if machine['emulated'] else ''}), in one guest and one run of {rounds} "
        f"round{'' if rounds == 1 else 's'}.\n",
        f"Not measured, as not installed or not able to run here: {missing}.\n" if missing else "",
        f"PEER is `{peer}`.\n"
        if peer
        else "No PEER was given: `make bench PEER='command {path}'` adds one.\n",
    ]
    made = {
        "run": "\n".join(filter(None, run)),
        "targets": targets(measured, native),
        "costs": costs(measured),
        "ratios": ratios(measured),
        "probe": probe(measured),
        "losses": losses(measured),
        "rates": rates(measured),
        "processor": processor(measured),
        "growth": growth(measured),
        "start": start(data["startup"], native),
    }
    return made | (dissector(dissector_seconds, when) if dissector_seconds else {})


#: Limits of what tshark takes, as multiples of what it takes for TCP on lo, and for the barest TCP.
_LIMITS = {"packet list": (2.0, None), "display filter": (2.0, None), "all details": (2.2, None)}
_HTTP_LIMITS = {"packet list": (2.0, 2.0), "display filter": (2.0, 2.0), "all details": (2.2, None)}


def dissector(found: dict[str, Any], when: str, packets: int = 200_000) -> dict[str, str]:
    """Return the part on tshark's time, from ``benchmarks.dissector.measure()``."""
    rows = []
    for workload, readings in found.items():
        limits = _HTTP_LIMITS if workload.startswith("HTTP") else _LIMITS
        for reading, values in readings.items():
            row = [workload, reading, number(values["ours"])]
            for peer, limit in zip(("lo", "tcp"), limits[reading]):
                ratio = values["ours"] / values[peer]
                verdict = (
                    "" if limit is None else f", ≤ {limit:g}: " + ("met" if ratio <= limit else "**missed**")
                )
                row += [number(values[peer]), number(ratio) + verdict]
            rows.append(row)
    heads = [
        f"tshark on {packets:,} packets, CPU s",
        "reading",
        "this",
        "TCP on lo",
        "ratio",
        "plain TCP",
        "ratio",
    ]
    return {"dissector": f"Measured {when}.\n\n" + table(heads, rows)}
