"""Many globs as one set of tables that the kernel steps through.

The states of all globs (see glob.py) are bits of 128-bit lanes, and one step per
byte moves all bits of a lane at once::

    lane = (lane << 1 & enter[byte]) | (lane & stay[byte])

A state is entered from the one below if the byte is one that its element takes.
It stays through bytes that a ``*`` takes, and through continuation bytes after a wide
element.  NUL counts as ``@`` in names of sockets, and ends those of processes.  The
time for a byte does not depend on what the globs say, and there is no number of states
that could explode, as there would be in a deterministic automaton.  Bytes that no glob
tells apart share a row; the last row, in which nothing moves, is for what comes after the
end.  filter/glob_match.h is the C that runs them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from unixsock_bpf.filter.glob import CONTINUATION, Glob

LANE_BITS = 128
#: Bytes of ``struct filter_row``.
ROW_SIZE = 32
_ALL = (1 << LANE_BITS) - 1


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
    def finals(self) -> list[tuple[int, int, int]]:
        """(64-bit word of all lanes, bit, atom) for each final state."""
        return [
            (2 * number + bit // 64, bit % 64, atom)
            for number, lane in enumerate(self.lanes)
            for bit, atom in lane.finals
        ]

    @property
    def tables(self) -> bytes:
        """What filter/glob_match.h reads, in a multiple of 8 bytes; nothing where there are no globs."""
        if not self.lanes:
            return b""
        tables = self.row_of + self.table + b"".join(struct.pack("<3Bx", *final) for final in self.finals)
        return tables + bytes(-len(tables) % 8)


def build(globs: Iterable[tuple[int, Glob]], nul_ends: bool = False) -> Automaton:
    """The automaton for pairs of an atom's number and a glob; an atom may have several.

    ``nul_ends``: a NUL is the end of what is matched, rather than another way to write ``@``.
    """
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
    steps = list(zip(*map(_steps, lanes))) or [()] * 256
    if nul_ends:
        steps[0] = tuple((0, _ALL) for _ in lanes)
    distinct: dict[tuple[tuple[int, int], ...], int] = {}
    row_of = bytes(distinct.setdefault(step, len(distinct)) for step in steps)
    rows = 1 << len(distinct).bit_length()  # at least one more than there are
    table = b"".join(
        _row(lane.start)
        + b"".join(_row(*step[number]) for step in distinct).ljust((rows - 1) * ROW_SIZE, b"\0")
        + _row(0, _ALL)
        for number, lane in enumerate(lanes)
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
    return list(zip(enter, stay))


def _row(*numbers: int) -> bytes:
    """Each number in 128 bits."""
    return b"".join(number.to_bytes(LANE_BITS // 8, "little") for number in numbers)
