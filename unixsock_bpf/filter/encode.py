"""Encode a filter as data for the kernel, which bpf/filter/interpreter.h evaluates.

Everything that compares a socket or a process with the filter does so once, and
leaves bits: "atoms", one for each distinct term.  What is left for each message is a
program over bits: each step tests some bits of one word, and says which step comes
next if one of them is set and if none is, as in the classic BPF of tcpdump.  ``and``
and ``or`` are only in the order of the steps, ``not`` is in which word they look at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Union

from unixsock_bpf.filter import automaton
from unixsock_bpf.filter.ast import And, Cgroup, Groups, Node, Not, Term
from unixsock_bpf.filter.cgroups import LEVELS
from unixsock_bpf.filter.errors import FilterError
from unixsock_bpf.filter.glob import Glob
from unixsock_bpf.filter.primitives import (
    CREDS_BIT,
    EVENT_BIT,
    FDS_BIT,
    NAME_BYTES,
    PRIMITIVES,
    TYPE_BITS,
    About,
    Bit,
    Length,
    Member,
    Names,
    Primitive,
)
from unixsock_bpf.record import Event

#: Different terms about sockets, and about processes.
MAX_ATOMS = 64
#: Lanes of 128 bits that all globs of a filter may fill.
MAX_LANES = 64
#: Numbers that the terms of a filter may compare with, and steps.  Powers of two.
MAX_MEMBERS = 1024
MAX_STEPS = 1024
#: Steps, or numbers, that the kernel's verifier sees at a time.
_STRIDE = 64
#: Where steps lead to in the end.
_ACCEPT, _REJECT = 0xFFFF, 0xFFFE

#: Words of bpf/filter/interpreter.h; the one after each is for negated terms.
_SOCKETS, _OWNERS, _SRC, _DST, _MESSAGE, _LEN = range(0, 12, 2)
_OWNERS_OF = {"": _OWNERS, "src": _SRC, "dst": _DST}
_U64 = (1 << 64) - 1
_SIGN = 1 << 63
#: EVENTS_CLOSE in bpf/filter/layout.h.
_EVENTS_CLOSE = 2

_STEP = struct.Struct("<3Q3H2x")
_MEMBER = struct.Struct("<Q3B5x")
_HEAD = struct.Struct("<Q8I")


def _first_facts() -> dict[str, int]:
    """Assign numbers to facts; return the first one of each primitive that has any."""
    first, found = 0, {}
    for primitive in PRIMITIVES.values():
        if isinstance(primitive.kernel, Member) and not primitive.kernel.of:
            found[primitive.name] = first
            first += primitive.kernel.facts
    return found


FIRST_FACTS = _first_facts()
#: A power of two that leaves room for all facts.
_FACTS = 32


def declarations() -> str:
    """Return the limits and the primitives' numbers as C macros."""
    numbers = {
        "STEPS": MAX_STEPS,
        "MEMBERS": MAX_MEMBERS,
        "LANES": MAX_LANES,
        "STRIDE": _STRIDE,
        "FACTS": _FACTS,
        "ACCEPT": _ACCEPT,
        "NAME_BYTES": NAME_BYTES,
        "CGROUP_LEVELS": LEVELS,
        "TYPE_BITS": TYPE_BITS,
        "EVENT_BIT": EVENT_BIT,
        "FDS_BIT": FDS_BIT,
        "CREDS_BIT": CREDS_BIT,
        **{f"FACT_{name}": number for name, number in FIRST_FACTS.items()},
    }
    return "".join(f"#define FILTER_{name} {value}\n" for name, value in numbers.items())


@dataclass(frozen=True)
class _Literal:
    """A term, or its negation."""

    term: Term
    negated: bool


@dataclass(frozen=True)
class _Join:
    """Literals and joins of the other kind: all have to hold (``every``), or one."""

    every: bool
    parts: tuple[_Literal | _Join, ...]


_Normal = Union[_Literal, _Join]


@dataclass(frozen=True)
class _Set:
    """An atom's meaning: a primitive, and values of which one has to match."""

    name: str
    values: tuple[object, ...]


@dataclass(frozen=True)
class _AnyOf:
    """Several values in place of a term's one."""

    values: tuple[object, ...]


@dataclass(frozen=True)
class _Test:
    """((word + add) & mask) ^ flip is not 0: with ``inverted``, the test fails then."""

    word: int
    add: int
    mask: int
    flip: int = 0
    inverted: bool = False


class Encoded:
    """``root`` as data.  Raises FilterError if it is too large."""

    def __init__(self, root: Node) -> None:
        normal = _normal(root, False)
        atoms = _numbered(normal)
        if any(len(found) > MAX_ATOMS for found in atoms.values()):
            normal = _merged(normal)
            atoms = _numbered(normal)
        for about, found in atoms.items():
            if len(found) > MAX_ATOMS:
                raise FilterError(_too_many(about, len(found)))
        self._atoms = atoms
        close = Term("event", int(Event.CLOSE))
        self._asks_close = any(one.term == close and not one.negated for one in _literals(normal))
        paths = self._lanes_of(0)
        comms = self._lanes_of(1)
        if len(paths) + len(comms) > MAX_LANES:
            raise FilterError(
                "the names in the filter, with the links that lead to them, are too long altogether:"
                f" they need {len(paths) + len(comms)} places for 128 characters, and there are {MAX_LANES}"
            )
        self._automata = [automaton.build(paths), automaton.build(comms, nul_ends=True)]
        self._members = list(self._all_members())
        if len(self._members) > MAX_MEMBERS:
            raise FilterError(
                f"the filter has {len(self._members)} numbers to compare with (a cgroup in a container has"
                f" {LEVELS}); at most {MAX_MEMBERS} are possible"
            )
        self._steps: list[tuple[_Test, int, int]] = []
        self._entry = self._compile(normal, _ACCEPT, _REJECT)
        if len(self._steps) > MAX_STEPS:
            raise FilterError(f"the filter takes {len(self._steps)} steps; at most {MAX_STEPS} are possible")

    def head(self, events: bool) -> bytes:
        """Build a ``struct filter``; ``events``: whether records other than data and close are wanted."""
        paths, comms = self._automata
        known = self._atoms[About.SOCKET].items()
        head = _HEAD.pack(
            sum(1 << bit for one, bit in known if any(glob.matches(b"") for glob in _globs(one))),
            self._position(self._entry),
            len(self._members),
            int(events) | (_EVENTS_CLOSE if self._asks_close else 0),
            int(any(one.name == "inode" for one, _ in known)),
            *(0, len(paths.lanes), len(paths.lanes), len(comms.lanes)),
        )
        members = b"".join(_MEMBER.pack(*one) for one in self._members)
        steps = b"".join(
            _STEP.pack(test.add, test.mask, test.flip, test.word, self._position(no), self._position(yes))
            for test, yes, no in reversed(self._steps)
        )
        return b"".join(
            (
                head,
                paths.row_of,
                comms.row_of,
                members.ljust(_MEMBER.size * MAX_MEMBERS, b"\0"),
                steps.ljust(_STEP.size * MAX_STEPS, b"\0"),
            )
        )

    @cached_property
    def lanes(self) -> list[bytes]:
        """The automata's lanes, each a ``struct filter_lane``."""
        return [lane for one in self._automata for lane in one.tables]

    def _lanes_of(self, number: int) -> list[automaton.Lane]:
        return automaton.share(
            (bit, glob)
            for found in self._atoms.values()
            for one, bit in found.items()
            if PRIMITIVES[one.name].kernel == Names(number)
            for glob in _globs(one)
        )

    def _all_members(self) -> Iterable[tuple[int, int, int, int]]:
        """Yield value, fact, whether it is an owner's, and atom, for each number in a term."""
        for about, found in self._atoms.items():
            for one, bit in found.items():
                kernel = PRIMITIVES[one.name].kernel
                if not isinstance(kernel, Member):
                    continue
                first = FIRST_FACTS[kernel.of or one.name]
                for value in one.values:
                    if isinstance(value, (Cgroup, Groups)):
                        for group in value.groups if isinstance(value, Groups) else [value]:
                            for level in range(LEVELS) if group.level is None else [group.level]:
                                yield group.id, first + level, int(about is About.OWNER), bit
                    elif isinstance(value, int):
                        yield value, first, int(about is About.OWNER), bit

    def _compile(self, node: _Normal, yes: int, no: int) -> int:
        """Add the steps for ``node``, the last first; return the place of its first step in the list."""
        if isinstance(node, _Literal):
            return self._step(self._test(node), yes, no)
        tests, joins = self._tests(node), [part for part in node.parts if isinstance(part, _Join)]
        at = yes if node.every else no
        for join in reversed(joins):
            at = self._compile(join, *((at, no) if node.every else (yes, at)))
        for test in reversed(tests):
            at = self._step(test, *((at, no) if node.every else (yes, at)))
        return at

    def _step(self, test: _Test, yes: int, no: int) -> int:
        self._steps.append((test, no, yes) if test.inverted else (test, yes, no))
        return len(self._steps) - 1

    def _position(self, at: int) -> int:
        """Return a step's position in the finished program, which has the list's last step first."""
        return at if at in (_ACCEPT, _REJECT) else len(self._steps) - 1 - at

    def _tests(self, join: _Join) -> list[_Test]:
        """Return tests for the literals of ``join``; bits of the same word are tested together."""
        masks: dict[int, int] = {}
        others = []
        for part in join.parts:
            if isinstance(part, _Literal):
                test = self._test(part)
                if test.word >= _LEN:
                    others.append(test)
                else:
                    masks[test.word] = masks.get(test.word, 0) | test.mask
        if join.every:  # no bit is missing
            return [_Test(word, 0, mask, mask, True) for word, mask in masks.items()] + others
        return [_Test(word, 0, mask) for word, mask in masks.items()] + others

    def _test(self, literal: _Literal) -> _Test:
        term, negated = literal.term, literal.negated
        primitive = PRIMITIVES[term.name]
        if isinstance(primitive.kernel, Length):
            limit = term.value if isinstance(term.value, int) else 0
            at_least = primitive.kernel.at_least
            # At least N is not less than N, at most N is less than N + 1.
            below = limit if at_least else limit + 1
            wants_below = at_least == negated
            return _Test(_LEN if wants_below else _LEN + 1, -below & _U64, _SIGN, 0, inverted=not wants_below)
        if isinstance(primitive.kernel, Bit):
            first = primitive.kernel.first
            bit = first + (term.value if isinstance(term.value, int) else 0)
            return _Test(_MESSAGE + negated, 0, 1 << bit)
        word = _SOCKETS if primitive.about is About.SOCKET else _OWNERS_OF[term.side]
        return _Test(word + negated, 0, 1 << self._atoms[primitive.about][_set(term)])


def _normal(node: Node, negated: bool) -> _Normal:
    """Move ``not`` down to the terms, and flatten joins within joins of the same kind."""
    if isinstance(node, Term):
        return _Literal(node, negated)
    if isinstance(node, Not):
        return _normal(node.part, not negated)
    every = isinstance(node, And) != negated
    parts: list[_Normal] = []
    for part in (_normal(part, negated) for part in node.parts):
        if isinstance(part, _Join) and (part.every == every or len(part.parts) == 1):
            parts += part.parts
        else:
            parts.append(part)
    return _Join(every, tuple(parts))


def _set(term: Term) -> _Set:
    value: object = term.value
    return _Set(term.name, value.values if isinstance(value, _AnyOf) else (value,))


def _globs(one: _Set) -> list[Glob]:
    return [glob for value in one.values if isinstance(value, tuple) for glob in value]


def _literals(node: _Normal) -> Iterable[_Literal]:
    if isinstance(node, _Literal):
        yield node
    else:
        for part in node.parts:
            yield from _literals(part)


def _has_atom(primitive: Primitive) -> bool:
    return primitive.about is not About.MESSAGE


def _numbered(normal: _Normal) -> dict[About, dict[_Set, int]]:
    """Assign bits to the distinct terms about sockets, and about processes; sides don't count."""
    atoms: dict[About, dict[_Set, int]] = {About.SOCKET: {}, About.OWNER: {}}
    for literal in _literals(normal):
        primitive = PRIMITIVES[literal.term.name]
        if _has_atom(primitive):
            found = atoms[primitive.about]
            found.setdefault(_set(literal.term), len(found))
    return atoms


def _merged(node: _Normal) -> _Normal:
    """Merge terms of one primitive that ``or`` joins into one with a set of values.

    Negated terms that ``and`` joins are merged, too.
    """
    if isinstance(node, _Literal):
        return node
    sets: dict[tuple[str, str], list[object]] = {}
    parts: list[_Normal] = []
    for part in node.parts:
        if isinstance(part, _Join):
            parts.append(_merged(part))
        elif part.negated == node.every and _has_atom(PRIMITIVES[part.term.name]):
            sets.setdefault((part.term.name, part.term.side), []).append(part.term.value)
        else:
            parts.append(part)
    for (name, side), values in sets.items():
        different = tuple(dict.fromkeys(values))
        value = _AnyOf(different) if len(different) > 1 else different[0]
        parts.append(_Literal(Term(name, value, side), node.every))  # type: ignore[arg-type]
    return _Join(node.every, tuple(parts))


def _too_many(about: About, count: int) -> str:
    names = ", ".join(one.name for one in PRIMITIVES.values() if one.about is about)
    return (
        f"the filter has {count} different terms about {about.value} ({names}), where those of one kind"
        f" that 'or' joins are one; at most {MAX_ATOMS} are possible"
    )
