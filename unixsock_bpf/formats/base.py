"""What an output format is: a writer that turns a capture's blocks into pieces of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unixsock_bpf import record
from unixsock_bpf.formats.pcapng import Block, Host, is_packet, packet_of


@dataclass(frozen=True)
class Options:
    """What a writer depends on: ``coloured`` is for text, the rest for a file's header.

    ``hosts``: the other hosts that the capture is of, in the order of their interfaces; none: this one.
    """

    coloured: bool = False
    snaplen: int = 0
    capture_filter: str = ""
    hosts: tuple[Host, ...] = ()


class Writer(Protocol):
    """Turn blocks into pieces, which are written whole and in order.  Does no I/O."""

    def header(self) -> list[Block]:
        """Return what comes before the first record."""

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        """Return ``blocks`` in this format."""

    def trailer(self, time_ns: int, captured: int, lost: int, comment: str = "") -> list[Block]:
        """Return what comes after the last record; ``comment``: what was left out."""


@dataclass(frozen=True)
class Format:
    """An output format by its name; ``binary``: not for a terminal."""

    name: str
    writer: Callable[[Options], Writer]
    binary: bool = False


class RecordWriter:
    """Writes each record by itself, as ``encode`` has it; a file of such has neither header nor trailer."""

    def __init__(self, encode: Callable[[int, record.Record], bytes]) -> None:
        self._encode = encode

    def header(self) -> list[Block]:
        return []

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        return [self.piece(block) for block in blocks if is_packet(block)]

    def piece(self, block: Block) -> bytes:
        """Return one record."""
        packet = packet_of(block)
        return self._encode(packet.time_ns, record.decode(packet.data))

    def trailer(self, time_ns: int, captured: int, lost: int, comment: str = "") -> list[Block]:
        return []
