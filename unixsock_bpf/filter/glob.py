"""Globs on names: ``*`` (any characters, ``/`` too), ``?``, ``[a-z]``, ``[!x]``.

A glob is kept as the elements that stand for one character each, and the places
where a ``*`` stands between them.  That is already a small automaton: state
``n`` means "the first n elements have matched", and a ``*`` lets its state stay
as it is.  ``automaton.py`` turns it into tables for the kernel, ``regex`` into
a regular expression for Python.

Names are bytes.  A character is one byte that doesn't continue a UTF-8
sequence, and the bytes that continue it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from unixsock_bpf.filter.errors import FilterError

#: Sets of byte values are integers: bit n is byte n.
_ALL = (1 << 256) - 1
#: Bytes that continue a UTF-8 sequence.
CONTINUATION = sum(1 << byte for byte in range(0x80, 0xC0))

#: What ``?`` takes first; any CONTINUATION may follow.
_START = _ALL & ~CONTINUATION & ~1


@dataclass(frozen=True)
class Element:
    """One element: the bytes it takes, and whether continuation bytes may follow."""

    accepts: int
    wide: bool = False


@cache
def literal(byte: int) -> Element:
    """Return the element that takes one byte; the same object each time, since filters have very many."""
    return Element(1 << byte)


@dataclass(frozen=True)
class Glob:
    """A parsed glob.  ``stars``: states (0 to the number of elements) at which a ``*`` stands."""

    text: str
    elements: tuple[Element, ...]
    stars: frozenset[int]

    @cached_property
    def regex(self) -> re.Pattern[bytes]:
        """A regular expression that matches the whole names which this glob matches."""
        parts = []
        for state in range(len(self.elements) + 1):
            if state in self.stars:
                parts.append(b".*")
            if state < len(self.elements):
                parts.append(_regex(self.elements[state]))
        return re.compile(b"".join(parts), re.DOTALL)

    def matches(self, name: bytes) -> bool:
        """Return whether the whole of ``name`` matches."""
        return self.regex.fullmatch(name) is not None


def _regex(element: Element) -> bytes:
    values = [byte for byte in range(256) if element.accepts >> byte & 1]
    if not values:
        return b"(?!)"
    single = b"[" + b"".join(b"\\x%02x" % byte for byte in values) + b"]"
    return single + (b"[\\x80-\\xbf]*" if element.wide else b"")


#: A character of a word, and whether a quote or backslash makes it an ordinary one.
Character = tuple[str, bool]


def literal_length(characters: list[Character]) -> int:
    """Return how many characters come before the first wildcard."""
    for at, (character, quoted) in enumerate(characters):
        if not quoted and (character in "*?" or (character == "[" and _class_end(characters, at))):
            return at
    return len(characters)


def plain(text: str) -> list[Character]:
    """Split an option's value into characters: only backslashes quote."""
    characters: list[Character] = []
    rest = iter(text)
    for character in rest:
        if character == "\\":
            characters.append((next(rest, "\\"), True))
        else:
            characters.append((character, False))
    return characters


def parse(characters: list[Character]) -> Glob:
    """Parse a glob.  Raises FilterError for a class with characters outside of ASCII."""
    elements: list[Element] = []
    stars = set()
    at = 0
    while at < len(characters):
        character, quoted = characters[at]
        end = _class_end(characters, at) if character == "[" and not quoted else 0
        if end:
            elements.append(_class(characters[at + 1 : end]))
            at = end
        elif character == "*" and not quoted:
            stars.add(len(elements))
        elif character == "?" and not quoted:
            elements.append(Element(_START, wide=True))
        else:
            elements.extend(literal(byte) for byte in character.encode())
        at += 1
    return Glob("".join(c for c, _ in characters), tuple(elements), frozenset(stars))


def _class_end(characters: list[Character], start: int) -> int:
    """Return where the class that opens at ``start`` closes; 0: ``[`` is an ordinary character."""
    at = start + 1
    if at < len(characters) and characters[at] in (("!", False), ("^", False)):
        at += 1
    for end in range(at + 1, len(characters)):  # a "]" that comes first is a member
        if characters[end] == ("]", False):
            return end
    return 0


def _class(members: list[Character]) -> Element:
    negated = members[0] in (("!", False), ("^", False))
    accepts = 0
    for low, high in _ranges(members[1:] if negated else members):
        if max(low, high) > "\x7f":
            raise FilterError("only ASCII characters can stand between '[' and ']'")
        for byte in range(ord(low), ord(high) + 1):
            accepts |= 1 << byte
    return Element(_START & ~accepts, wide=True) if negated else Element(accepts)


def _ranges(members: list[Character]) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == ("-", False):
            yield members[at][0], members[at + 2][0]
            at += 3
        else:
            yield members[at][0], members[at][0]
            at += 1


def any_of(globs: Iterable[Glob], name: bytes) -> bool:
    """Return whether one of ``globs`` matches ``name``."""
    return any(glob.matches(name) for glob in globs)
