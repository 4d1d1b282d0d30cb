"""Why a filter is refused, with the place in its text."""

from __future__ import annotations


class FilterError(ValueError):
    """A filter that is refused, in one sentence.

    ``position`` counts characters from 1; it is None where no single word is to blame.
    """

    def __init__(self, problem: str, position: int | None = None) -> None:
        self.position = position
        super().__init__(f"At position {position}: {problem}" if position else problem)


class FilterUnavailable(FilterError):
    """Filters can't be read here: says what is missing."""


def shorten(word: str) -> str:
    """``word`` as it can stand in a sentence: quoted, printable, at most 40 characters."""
    text = word if len(word) <= 40 else word[:37] + "..."
    return "'" + "".join(c if c.isprintable() else "?" for c in text) + "'"
