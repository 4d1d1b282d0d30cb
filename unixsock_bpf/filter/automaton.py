"""Many globs as one set of tables that the kernel steps through.

The states of all globs (see glob.py) are bits of 128-bit lanes, and one step per
byte moves all bits of a lane at once::

    lane = (lane << 1 & enter[byte]) | (lane & stay[byte])

A state is entered from the one below if the byte is one that its element takes.
It stays through bytes that a ``*`` takes, and through continuation bytes after a wide
element.  NUL counts as ``@``.  The time for a byte does not depend on what the globs
say, and there is no number of states that could explode, as there would be in a
deterministic automaton.  Bytes that no glob tells apart share a row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from .glob import CONTINUATION, Glob

LANE_BITS = 128
#: Bytes of ``struct filter_row``.
ROW_SIZE = 32
_WORD = (1 << 64) - 1


@dataclass
class Lane:
    """Globs that share 128 bits: the bits that are set at first, and (bit, atom) for each final state."""

    start: int
    finals: list[tuple[int, int]]
    globs: list[tuple[int, Glob]]  # and the bit of each one's state 0
    used: int = 0


@dataclass
class Automaton:
    """Tables for a set of globs; ``rows`` is a power of two."""

    lanes: list[Lane]
    row_of: bytes
    rows: int
    table: bytes

    @property
    def tables(self) -> bytes:
        """``u8 row_of[256]``, then ``struct filter_row rows[lanes][rows]``: u64 enter[2], stay[2]."""
        return self.row_of + self.table


def build(globs: Iterable[tuple[int, Glob]]) -> Automaton:
    """The automaton for pairs of an atom's number and a glob; an atom may have several."""
    lanes: list[Lane] = []
    for atom, glob in globs:
        bits = len(glob.elements) + 1
        lane = next((lane for lane in lanes if lane.used + bits <= LANE_BITS), None)
        if lane is None:
            lane = Lane(0, [], [])
            lanes.append(lane)
        lane.start |= 1 << lane.used
        lane.finals.append((lane.used + bits - 1, atom))
        lane.globs.append((lane.used, glob))
        lane.used += bits
    steps = list(zip(*map(_steps, lanes), strict=True)) or [()] * 256
    distinct: dict[tuple[tuple[int, int], ...], int] = {}
    row_of = bytes(distinct.setdefault(step, len(distinct)) for step in steps)
    rows = 1 << (len(distinct) - 1).bit_length()
    table = b"".join(
        b"".join(_row(*step[lane]) for step in distinct).ljust(rows * ROW_SIZE, b"\0")
        for lane in range(len(lanes))
    )
    return Automaton(lanes, row_of, rows, table)


def _steps(lane: Lane) -> list[tuple[int, int]]:
    """What ``lane`` may enter and where it may stay, for each of the 256 bytes."""
    enter = [0] * 256
    always = wide = 0
    for base, glob in lane.globs:
        for state, element in enumerate(glob.elements, 1):
            bit = 1 << (base + state)
            wide |= bit if element.wide else 0
            accepts = element.accepts
            while accepts:
                lowest = accepts & -accepts
                enter[lowest.bit_length() - 1] |= bit
                accepts ^= lowest
        for state in glob.stars:
            always |= 1 << (base + state)
    stay = [always | (wide if CONTINUATION >> byte & 1 else 0) for byte in range(256)]
    enter[0], stay[0] = enter[ord("@")], stay[ord("@")]  # see record.display_name
    return list(zip(enter, stay, strict=True))


def _row(enter: int, stay: int) -> bytes:
    return struct.pack("<4Q", enter & _WORD, enter >> 64, stay & _WORD, stay >> 64)
