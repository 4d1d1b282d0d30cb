"""A parsed filter as plain values, for the way to the privileged part, and back with every value checked.

A term is ``[name, side, value]``; joins are ``["and", part…]`` and ``["or", part…]``, a
negation is ``["not", part]``.  A value is a number, nothing, ``{"globs": […]}``, or
``{"cgroup": path, "id": n, "level": n or nothing}``.  A glob is a list of strings (each
character a byte that is taken as it is), ``"*"`` standing as nothing, and classes,
``{"bytes": [[first, last]…], "wide": true}``.
"""

from __future__ import annotations

from typing import Any

from .errors import FilterError
from .glob import Element, Glob
from .parse import MAX_DEPTH, MAX_TERMS
from .terms import COMM_BYTES, EVENTS, NAME_BYTES, RANGES, TYPES
from .tree import And, Cgroup, Node, Not, Or, Term, Value

#: Globs that one term may have: a path, and what symbolic links make of it.
_MAX_GLOBS = 64
_MAX_CGROUP_PATH = 4096
_SIDED = ("pid", "uid", "comm")


def to_plain(node: Node) -> list[Any]:
    """``node`` as lists, dictionaries, strings and numbers."""
    if isinstance(node, Term):
        return [node.name, node.side, _plain_value(node.value)]
    if isinstance(node, Not):
        return ["not", to_plain(node.part)]
    return ["and" if isinstance(node, And) else "or", *map(to_plain, node.parts)]


def _plain_value(value: Value) -> Any:
    if isinstance(value, tuple):
        return {"globs": [_plain_glob(glob) for glob in value]}
    if isinstance(value, Cgroup):
        return {"cgroup": value.path, "id": value.id, "level": value.level}
    return value


def _plain_glob(glob: Glob) -> list[Any]:
    parts: list[Any] = []
    for state in range(len(glob.elements) + 1):
        if state in glob.stars:
            parts.append(None)
        if state == len(glob.elements):
            break
        element = glob.elements[state]
        taken = [byte for byte in range(256) if element.accepts >> byte & 1]
        if len(taken) != 1 or element.wide:
            parts.append({"bytes": _spans(taken), "wide": element.wide})
        elif parts and isinstance(parts[-1], str):
            parts[-1] += chr(taken[0])
        else:
            parts.append(chr(taken[0]))
    return parts


def _spans(numbers: list[int]) -> list[list[int]]:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return spans


def from_plain(plain: Any) -> Node:
    """The tree that ``to_plain`` made ``plain`` of.  Raises FilterError for anything else."""
    node, count = _node(plain, 0)
    if count > MAX_TERMS + MAX_DEPTH:  # what the options add
        raise FilterError(f"the filter has {count} terms")
    return node


def _node(plain: Any, depth: int) -> tuple[Node, int]:
    """A node and the number of its terms."""
    # The text's limit counts what the parser sees; joining with the options adds a level or two.
    if depth > MAX_DEPTH + 8:
        raise FilterError("the filter nests too deep")
    match plain:
        case ["not", part]:
            inner, count = _node(part, depth + 1)
            return Not(inner), count
        case ["and" | "or" as kind, *parts]:
            nodes, count = [], 0
            for part in parts:
                node, terms = _node(part, depth + 1)
                nodes.append(node)
                count += terms
            return (And if kind == "and" else Or)(tuple(nodes)), count
        case [str(name), str(side), value]:
            if side not in (("", "src", "dst") if name in _SIDED else ("",)):
                raise FilterError("a term has a side that it cannot have")
            return Term(name, _value(name, value), side), 1
    raise FilterError("a part of the filter is neither a term nor a join")


def _value(name: str, value: Any) -> Value:
    match name, value:
        case (("fds" | "creds"), None):
            return None
        case (("path" | "comm"), {"globs": [_, *_] as globs, **rest}) if (
            not rest and len(globs) <= _MAX_GLOBS
        ):
            most = NAME_BYTES if name == "path" else COMM_BYTES
            return tuple(_glob(glob, most) for glob in globs)
        case "cgroup", {"cgroup": str(path), "id": number, "level": level, **rest} if not rest:
            if len(path) > _MAX_CGROUP_PATH or not (level is None or is_number(level, 0, 255)):
                raise FilterError("a cgroup is not one")
            if not is_number(number, 0, (1 << 64) - 1):
                raise FilterError("a cgroup has no number")
            return Cgroup(path, number, level)
        case (("type" | "event"), _) if is_number(value, 0, 63):
            if value in (TYPES if name == "type" else EVENTS).values():
                return int(value)
        case _ if name in RANGES and is_number(value, *RANGES[name]):
            return int(value)
    raise FilterError("a term has a value that it cannot have")


def is_number(value: Any, low: int, high: int) -> bool:
    """Whether ``value`` is an integer (not a truth value) from ``low`` to ``high``."""
    return type(value) is int and low <= value <= high


def _glob(plain: Any, most: int) -> Glob:
    if not isinstance(plain, list) or len(plain) > 4 * most:
        raise FilterError("a glob is not one")
    elements: list[Element] = []
    stars = set()
    for part in plain:
        match part:
            case None:
                stars.add(len(elements))
            case str() if part.isascii() or all(ord(character) < 256 for character in part):
                elements.extend(Element(1 << ord(character)) for character in part)
            case {"bytes": list(spans), "wide": bool(wide), **rest} if not rest:
                elements.append(Element(_accepts(spans), wide))
            case _:
                raise FilterError("a glob has a part that it cannot have")
        if len(elements) > most:
            raise FilterError("a glob is too long")
    return Glob("", tuple(elements), frozenset(stars))


def _accepts(spans: list[Any]) -> int:
    accepts = 0
    if len(spans) > 256:
        raise FilterError("a glob's class is too long")
    for span in spans:
        match span:
            case [first, last] if is_number(first, 0, 255) and is_number(last, first, 255):
                accepts |= (1 << last + 1) - (1 << first)
            case _:
                raise FilterError("a glob's class is not made of bytes")
    return accepts
