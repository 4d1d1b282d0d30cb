"""Serialize a parsed filter for the privileged helper, and read it back with every value checked.

A term is ``[name, side, value]``; joins are ``["and", part…]`` and ``["or", part…]``, a
negation is ``["not", part]``.  A value is what the primitive's operand makes of it (primitives.py): a number,
nothing, ``{"globs": […]}``, ``{"cgroup": path, "id": n, "level": n or nothing}``, or
``{"names": […], "groups": [cgroup…]}``.  A glob is a list of
strings (each character a byte that is taken as it is), ``"*"`` standing as nothing, and classes,
``{"bytes": [[first, last]…], "wide": true}``.
"""

from __future__ import annotations

from typing import Any

from unixsock_bpf.filter.ast import And, Node, Not, Or, Term
from unixsock_bpf.filter.errors import FilterError
from unixsock_bpf.filter.parser import MAX_DEPTH, MAX_TERMS
from unixsock_bpf.filter.primitives import PRIMITIVES

#: Terms: the parser's, and what the options add.
_MAX_TERMS = MAX_TERMS + MAX_DEPTH
#: Nodes and globs.  A join has two parts, and no ``not`` stands before another, so that there are at most two
#: nodes for each term and for each join.
_MAX_NODES = 4 * _MAX_TERMS


def to_plain(node: Node) -> list[Any]:
    """Turn ``node`` into lists, dictionaries, strings and numbers."""
    if isinstance(node, Term):
        return [node.name, node.side, PRIMITIVES[node.name].operand.dump(node.value)]
    if isinstance(node, Not):
        if isinstance(node.part, Not):
            return to_plain(node.part.part)
        return ["not", to_plain(node.part)]
    return ["and" if isinstance(node, And) else "or", *map(to_plain, node.parts)]


def from_plain(plain: Any) -> Node:
    """Turn what ``to_plain`` made back into a tree.  Raises FilterError for anything else."""
    return _Reader().node(plain, 0)


class _Reader:
    """Read a tree within limits on nodes and terms."""

    def __init__(self) -> None:
        self._terms = self._nodes = 0

    def node(self, plain: Any, depth: int) -> Node:
        self._count_nodes(1)
        # The text's limit counts what the parser sees; joining with the options adds a level or two.
        if depth > MAX_DEPTH + 8:
            raise FilterError("the filter nests too deep")
        if not isinstance(plain, list) or not plain:
            raise FilterError("a part of the filter is neither a term nor a join")
        kind, parts = plain[0], plain[1:]
        if kind == "not" and len(parts) == 1:
            return Not(self.node(parts[0], depth + 1))
        if kind in ("and", "or"):
            return (And if kind == "and" else Or)(tuple(self.node(part, depth + 1) for part in parts))
        if len(parts) != 2 or not isinstance(kind, str) or kind not in PRIMITIVES:
            raise FilterError("a part of the filter is neither a term nor a join")
        return self._term(kind, *parts)

    def _term(self, name: str, side: Any, value: Any) -> Term:
        self._terms += 1
        if self._terms > _MAX_TERMS:
            raise FilterError(f"the filter has more than {_MAX_TERMS} terms")
        primitive = PRIMITIVES[name]
        if side not in (("", "src", "dst") if primitive.sided else ("",)):
            raise FilterError("a term has a side that it cannot have")
        read = primitive.operand.load(value)
        if isinstance(read, tuple):
            self._count_nodes(len(read))
        return Term(name, read, side)

    def _count_nodes(self, more: int) -> None:
        self._nodes += more
        if self._nodes > _MAX_NODES:
            raise FilterError(f"the filter has more than {_MAX_NODES} parts")
