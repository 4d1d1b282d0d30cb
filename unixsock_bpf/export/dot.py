"""Format ``dot``: a map of who talks to whom, for Graphviz, with messages, bytes and response times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.turns import pieces
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.formats.text import name_text, process_text
from unixsock_bpf.record import Event

#: Response times are counted in classes, eight for each doubling: a quantile is right within 9 %.
_CLASSES = 8


def _quoted(*lines: str) -> str:
    """Return lines as a string of the DOT language, whatever they hold."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


@dataclass
class ResponseTimes:
    """Times from a request's last byte to its answer's first."""

    count: int = 0
    classes: dict[int, int] = field(default_factory=dict)

    def add(self, time_ns: int) -> None:
        """Count one."""
        self.count += 1
        key = round(math.log2(max(1, time_ns)) * _CLASSES)
        self.classes[key] = self.classes.get(key, 0) + 1

    def quantile(self, part: float) -> float:
        """Return the time in seconds that ``part`` of all do not exceed."""
        left = part * self.count
        for key in sorted(self.classes):
            left -= self.classes[key]
            if left <= 0:
                break
        return float(2 ** (key / _CLASSES) / 1e9)


@dataclass
class _Edge:
    messages: list[int] = field(default_factory=lambda: [0, 0])  # to the client, to the server
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    missing: int = 0
    times: ResponseTimes = field(default_factory=ResponseTimes)


def _seconds(value: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"


def graph(edges: Iterable[tuple[str, str, list[str]]]) -> Iterator[str]:
    """Yield a graph of edges: client, server, and the lines of a label."""
    yield f"digraph {_quoted('Unix sockets')} {{\n    rankdir=LR;\n    node [shape=box, fontname=sans];\n"
    yield "    edge [fontname=sans, fontsize=10];\n"
    for client, server, label in edges:
        yield f"    {_quoted(client)} -> {_quoted(server)} [label={_quoted(*label)}];\n"
    yield "}\n"


def _pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
    edges: dict[tuple[str, str, str], _Edge] = {}
    asked: dict[int, int] = {}  # when the last request of a conversation was sent
    for piece in pieces(capture):
        conversation = piece.conversation
        if piece.event == Event.CLOSE:
            asked.pop(conversation.number, None)
        if piece.event != Event.DATA:
            continue
        key = (
            process_text(*conversation.client_process),
            process_text(*conversation.server_process),
            name_text(conversation.name),
        )
        edge = edges.setdefault(key, _Edge())
        edge.messages[piece.to_server] += not piece.more
        edge.bytes[piece.to_server] += len(piece.payload)
        edge.missing += piece.missing
        if piece.to_server:
            asked[conversation.number] = piece.time_ns
        elif (since := asked.pop(conversation.number, None)) is not None:
            edge.times.add(max(0, piece.time_ns - since))
    yield from (text.encode() for text in graph(_labelled(edges)))


def _labelled(edges: dict[tuple[str, str, str], _Edge]) -> Iterator[tuple[str, str, list[str]]]:
    for (client, server, name), edge in edges.items():
        lines = [name or "(unnamed)"]
        lines.append(
            f"→ {edge.messages[1]}, {_size(edge.bytes[1])}   ← {edge.messages[0]}, {_size(edge.bytes[0])}"
        )
        if edge.missing:
            lines.append(f"{_size(edge.missing)} not captured")
        if edge.times.count:
            half, most = edge.times.quantile(0.5), edge.times.quantile(0.95)
            lines.append(f"answers: p50 {_seconds(half)}, p95 {_seconds(most)}")
        yield client, server, lines


FORMAT = ExportFormat("dot", _pieces)
