"""Many globs as one set of tables that the kernel steps through.

The states of all globs (see glob.py) are bits of 128-bit lanes, and one step per
byte moves all bits of a lane at once::

    lane = (lane << 1 & enter[byte]) | (lane & stay[byte])

A state is entered from the one below if the byte is one that its element takes.
It stays through bytes that a ``*`` takes, and through continuation bytes after a wide
element.  NUL counts as ``@`` in names of sockets, and ends those of processes.  The
time for a byte does not depend on what the globs say, and there is no number of states
that could explode, as there would be in a deterministic automaton.  Bytes that no glob
tells apart share a row.  bpf/filter/interpreter.h is the C that runs them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from unixsock_bpf.filter.glob import CONTINUATION, Glob

LANE_BITS = 128
_ALL = (1 << LANE_BITS) - 1
#: ``struct filter_lane`` has this many rows, of two numbers of 128 bits each.
_ROWS, _ROW_SIZE = 256, 32


@dataclass
class Lane:
    """Globs that share 128 bits: the bits that are set at first, and (bit, atom) for each final state."""

    start: int
    finals: list[tuple[int, int]]
    globs: list[tuple[int, Glob]]  # and the bit of each one's state 0
    used: int = 0


@dataclass
class Automaton:
    """``row_of``: each byte's row.  ``tables``: for each lane a ``struct filter_lane``."""

    lanes: list[Lane]
    row_of: bytes
    tables: list[bytes]


def share(globs: Iterable[tuple[int, Glob]]) -> list[Lane]:
    """Lay out globs in lanes.  ``globs``: pairs of an atom's number and a glob; an atom may have several."""
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
    return lanes


def build(lanes: list[Lane], nul_ends: bool = False) -> Automaton:
    """Build the tables for ``lanes``.

    ``nul_ends``: a NUL ends the name, rather than being another way to write ``@``.
    """
    steps = list(zip(*map(_steps, lanes))) or [()] * 256
    if nul_ends:
        steps[0] = tuple((0, _ALL) for _ in lanes)
    distinct: dict[tuple[tuple[int, int], ...], int] = {}
    row_of = bytes(distinct.setdefault(step, len(distinct)) for step in steps)
    tables = [_table(lane, [step[number] for step in distinct]) for number, lane in enumerate(lanes)]
    return Automaton(lanes, row_of, tables)


def _table(lane: Lane, rows: list[tuple[int, int]]) -> bytes:
    finals = b"".join(bytes(final) for final in lane.finals).ljust(2 * LANE_BITS, b"\0")
    head = _number(lane.start) + struct.pack("<II", len(lane.finals), 0) + finals
    return (head + b"".join(_number(enter) + _number(stay) for enter, stay in rows)).ljust(
        len(head) + _ROWS * _ROW_SIZE, b"\0"
    )


def _steps(lane: Lane) -> list[tuple[int, int]]:
    """Return the states that ``lane`` may enter, and those it may stay in, for each of the 256 bytes."""
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


def _number(bits: int) -> bytes:
    """Encode a number of 128 bits."""
    return bits.to_bytes(LANE_BITS // 8, "little")
