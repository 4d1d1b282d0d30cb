"""Formats ``mermaid`` and ``plantuml``: a sequence diagram.

Lifelines are processes, and arrows say what Wireshark's packet list says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.formats.text import process_text
from unixsock_bpf.record import Event, Record
from unixsock_bpf.wireshark.tshark import frame_infos

#: Characters of an arrow's text.
_LONGEST = 120
#: Characters that neither language gives a meaning anywhere in a text.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,/()?")


@dataclass(frozen=True)
class _Language:
    """A diagram's language: what stands around it, its statements, and how it writes any character."""

    head: str
    participant: str
    arrow: str
    tail: str
    character: Callable[[int], str]

    def text(self, text: str) -> str:
        """Return one line of text in which nothing has a meaning."""
        short = " ".join(text.split())
        if len(short) > _LONGEST:
            short = short[: _LONGEST - 1] + "…"
        return "".join(c if c in _PLAIN else self.character(ord(c)) for c in short) or "?"


_MERMAID = _Language(
    "sequenceDiagram\n",
    "    participant {alias} as {text}\n",
    "    {src}->>{dst}: {text}\n",
    "",
    "#{};".format,
)
_PLANTUML = _Language(
    "@startuml\n",
    'participant "{text}" as {alias}\n',
    "{src} -> {dst} : {text}\n",
    "@enduml\n",
    "<U+{:04X}>".format,
)


def _lifelines(record: Record) -> tuple[str, str]:
    """Return what the sending and the receiving process are called; an unknown one by its socket."""

    def name(comm: bytes, pid: int, sock: int) -> str:
        return process_text(comm, pid) if comm or pid else f"socket {sock:x}"

    return (
        name(record.src_comm, record.src_pid, record.src_sock),
        name(record.dst_comm, record.dst_pid, record.dst_sock),
    )


def _format(name: str, language: _Language) -> ExportFormat:
    def pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
        yield language.head.encode()
        aliases: dict[str, str] = {}
        with frame_infos(options.path, options.display_filter) as infos:
            info_number, info = 0, ""
            for one in capture:
                while info_number < one.number:
                    info_number, info = next(infos, (1 << 63, ""))
                if info_number != one.number or one.record.event not in (
                    Event.DATA,
                    Event.LOST,
                    Event.SEND_ERROR,
                    Event.REFUSED,
                ):
                    continue
                if one.record.event == Event.DATA and one.record.offset:
                    continue  # a message has one arrow
                ends = _lifelines(one.record)
                for end in ends:
                    if end not in aliases:
                        aliases[end] = f"p{len(aliases)}"
                        yield language.participant.format(
                            alias=aliases[end], text=language.text(end)
                        ).encode()
                src, dst = (aliases[end] for end in ends)
                yield language.arrow.format(src=src, dst=dst, text=language.text(info)).encode()
        yield language.tail.encode()

    return ExportFormat(name, pieces)


FORMATS = (_format("mermaid", _MERMAID), _format("plantuml", _PLANTUML))
