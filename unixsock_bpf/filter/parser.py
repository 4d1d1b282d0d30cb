"""Parse the text of a capture filter into a tree; report a fault in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unixsock_bpf import dependencies
from unixsock_bpf.filter.ast import EVERYTHING, And, Node, Not, Or, Term, join
from unixsock_bpf.filter.errors import FilterError, FilterUnavailable, shorten
from unixsock_bpf.filter.glob import Character
from unixsock_bpf.filter.primitives import PRIMITIVES, term

if TYPE_CHECKING:
    from lark import Lark, Token

#: The longest filter, in characters.
MAX_LENGTH = 65_536
#: How deep parentheses and ``not`` may nest.
MAX_DEPTH = 64
#: The most terms.
MAX_TERMS = 512

#: The primitives that ``src`` and ``dst`` may stand before, others that have an operand, and those without.
_SIDED = [one.name for one in PRIMITIVES.values() if one.sided]
_PLAIN = [one.name for one in PRIMITIVES.values() if not one.sided and one.operand.syntax]
_ALONE = [one.name for one in PRIMITIVES.values() if not one.operand.syntax]

#: Words for the parser's terminals in error messages, in the order in which they are listed.
_EXPECTED = {
    "WORD": "a word",
    "SIDED": f"{', '.join(_SIDED[:-1])} or {_SIDED[-1]}",
    "_AND": "'and'",
    "_OR": "'or'",
    "RPAR": "')'",
    "$END": "the end",
}
_PRIMITIVE = "a primitive such as path, pid, comm, uid, type or event, or a name that begins with / or @"

_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)"|([^\\'"])""", re.DOTALL)
_IN_DOUBLE_QUOTES = re.compile(r"""\\([\\"$`])|(.)""", re.DOTALL)


def parse(text: str) -> Node:
    """Parse ``text`` into a tree; an empty filter takes everything.  Raises FilterError."""
    _refuse_unreadable(text)
    if not text.strip():
        return EVERYTHING
    try:
        from lark.exceptions import UnexpectedInput

        parser = _parser()
    except ImportError as error:
        raise FilterUnavailable(dependencies.sentence(error) or str(error)) from None
    except OSError as error:
        raise FilterUnavailable(f"{error.filename} cannot be read: install this package again") from None
    try:
        part: Any = parser.parse(text)  # a _Part, the start rule's result: lark says Tree
    except UnexpectedInput as error:
        raise _explain(text, error) from None
    node: Node = part.node
    return node


def _refuse_unreadable(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise FilterError(f"a filter has at most {MAX_LENGTH} characters, and this one has {len(text)}")
    for at, character in enumerate(text, 1):
        if "\udc80" <= character <= "\udcff":  # as Python reads arguments: surrogateescape
            raise FilterError(f"byte 0x{ord(character) - 0xDC00:02x} is not UTF-8", at)
        if character == "\0":
            raise FilterError("a filter cannot contain a NUL byte", at)


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    for terminal, names in (("sided", _SIDED), ("plain", _PLAIN), ("alone", _ALONE)):
        grammar = grammar.replace(f"<{terminal}>", "|".join(names))
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder())


class _Part:
    """A node under construction, with its depth and number of terms, which are limited."""

    def __init__(self, node: Node, depth: int = 0, terms: int = 1) -> None:
        self.node, self.depth, self.terms = node, depth, terms
        if depth > MAX_DEPTH:
            raise FilterError(f"the filter nests more than {MAX_DEPTH} levels of parentheses or 'not'")
        if terms > MAX_TERMS:
            raise FilterError(f"the filter has more than {MAX_TERMS} terms")


class _Builder:
    """Lark calls a method named after each rule as soon as it is complete."""

    def start(self, children: list[_Part]) -> _Part:
        return children[0]

    def disjunction(self, children: list[_Part]) -> _Part:
        return self._join(Or, children)

    def conjunction(self, children: list[_Part]) -> _Part:
        return self._join(And, children)

    def _join(self, kind: type[And] | type[Or], children: list[_Part]) -> _Part:
        return _Part(
            join(kind, [part.node for part in children]),
            max(part.depth for part in children) + 1,
            sum(part.terms for part in children),
        )

    def inversion(self, children: list[_Part]) -> _Part:
        return _Part(Not(children[0].node), children[0].depth + 1, children[0].terms)

    def primitive(self, children: list[Token]) -> _Part:
        name, word = children
        return self._term(str(name), word)

    def sided(self, children: list[Token]) -> _Part:
        side, name, word = children
        return self._term(str(name), word, str(side))

    def bare(self, children: list[Token]) -> _Part:
        return self._term("path", children[0])

    def fact(self, children: list[Token]) -> _Part:
        return _Part(Term(str(children[0])))

    def _term(self, name: str, word: Token, side: str = "") -> _Part:
        try:
            return _Part(term(name, unquote(word), side))
        except FilterError as error:
            # Lark before 1.0 (Debian 11) calls it pos_in_stream.
            at = getattr(word, "start_pos", None) or getattr(word, "pos_in_stream", None)
            raise FilterError(str(error), (at or 0) + 1) from None


def unquote(word: str) -> list[Character]:
    """Split a word into characters, each with whether quotes or a backslash made it ordinary."""
    characters: list[Character] = []
    for escaped, single, double, bare in _PIECE.findall(word):
        if bare:
            characters.append((bare, False))
            continue
        inside = "".join(a or b for a, b in _IN_DOUBLE_QUOTES.findall(double))
        characters.extend((character, True) for character in escaped or single or inside)
    return characters


def _explain(text: str, error: Any) -> FilterError:
    """Turn the parser's exception into a sentence with a position."""
    token = getattr(error, "token", None)
    expected = _alternatives(getattr(error, "accepts", None) or error.__dict__.get("allowed") or ())
    if token is not None and token.type == "$END":
        return FilterError(f"the filter ends too early; expected {expected}", len(text) + 1)
    at = error.pos_in_stream
    if text[at] in "'\"":
        return FilterError(f"the quote {text[at]} is never closed", at + 1)
    if text[at] == "\\":
        return FilterError("a backslash needs a character after it", at + 1)
    word = re.compile(r"""[()!]|&&?|\|\|?|[^\s()&|]+""").match(text, at)
    return FilterError(
        f"unexpected {shorten(word.group() if word else text[at])}; expected {expected}", at + 1
    )


def _alternatives(terminals: Iterable[str]) -> str:
    known = set(terminals)
    names = (
        [_PRIMITIVE] if "PRIMITIVE" in known else [name for key, name in _EXPECTED.items() if key in known]
    )
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "the end"
