"""A parsed filter as plain values, for the way to the privileged part, and back with every value checked.

A term is ``[name, side, value]``; joins are ``["and", part…]`` and ``["or", part…]``, a
negation is ``["not", part]``.  A value is a number, nothing, ``{"globs": […]}``, or
``{"cgroup": path, "id": n, "level": n or nothing}``.  A glob is a list of strings (each
character a byte that is taken as it is), ``"*"`` standing as nothing, and classes,
``{"bytes": [[first, last]…], "wide": true}``.
"""

from __future__ import annotations

from typing import Any

from unixsock_bpf.filter.ast import And, Cgroup, Node, Not, Or, Term, Value
from unixsock_bpf.filter.errors import FilterError
from unixsock_bpf.filter.glob import Element, Glob
from unixsock_bpf.filter.parser import MAX_DEPTH, MAX_TERMS
from unixsock_bpf.filter.primitives import COMM_BYTES, EVENTS, NAME_BYTES, RANGES, TYPES

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
    if not isinstance(plain, list) or not plain:
        raise FilterError("a part of the filter is neither a term nor a join")
    kind, parts = plain[0], plain[1:]
    if kind == "not" and len(parts) == 1:
        inner, count = _node(parts[0], depth + 1)
        return Not(inner), count
    if kind in ("and", "or"):
        nodes, count = [], 0
        for part in parts:
            node, terms = _node(part, depth + 1)
            nodes.append(node)
            count += terms
        return (And if kind == "and" else Or)(tuple(nodes)), count
    if len(parts) != 2 or not isinstance(kind, str):
        raise FilterError("a part of the filter is neither a term nor a join")
    side, value = parts
    if side not in (("", "src", "dst") if kind in _SIDED else ("",)):
        raise FilterError("a term has a side that it cannot have")
    return Term(kind, _value(kind, value), side), 1


def _value(name: str, value: Any) -> Value:
    if name in ("fds", "creds") and value is None:
        return None
    if name in ("path", "comm") and _has(value, "globs"):
        globs = value["globs"]
        if isinstance(globs, list) and 0 < len(globs) <= _MAX_GLOBS:
            most = NAME_BYTES if name == "path" else COMM_BYTES
            return tuple(_glob(glob, most) for glob in globs)
    elif name == "cgroup" and _has(value, "cgroup", "id", "level"):
        return _cgroup(value["cgroup"], value["id"], value["level"])
    elif name in ("type", "event") and is_number(value, 0, 63):
        if value in (TYPES if name == "type" else EVENTS).values():
            return int(value)
    elif name in RANGES and is_number(value, *RANGES[name]):
        return int(value)
    raise FilterError("a term has a value that it cannot have")


def _cgroup(path: Any, number: Any, level: Any) -> Cgroup:
    if not isinstance(path, str) or len(path) > _MAX_CGROUP_PATH:
        raise FilterError("a cgroup has no path")
    if not is_number(number, 0, (1 << 64) - 1):
        raise FilterError("a cgroup has no number")
    if not (level is None or is_number(level, 0, 255)):
        raise FilterError("a cgroup has a level that it cannot have")
    return Cgroup(path, number, level)


def _has(value: Any, *members: str) -> bool:
    """Whether ``value`` is a dictionary of just these members."""
    return isinstance(value, dict) and value.keys() == set(members)


def is_number(value: Any, low: int, high: int) -> bool:
    """Whether ``value`` is an integer (not a truth value) from ``low`` to ``high``."""
    return type(value) is int and low <= value <= high


def _glob(plain: Any, most: int) -> Glob:
    if not isinstance(plain, list) or len(plain) > 4 * most:
        raise FilterError("a glob is not one")
    elements: list[Element] = []
    stars = set()
    for part in plain:
        if part is None:
            stars.add(len(elements))
        elif isinstance(part, str) and all(ord(character) < 256 for character in part):
            elements.extend(Element(1 << ord(character)) for character in part)
        elif _has(part, "bytes", "wide") and isinstance(part["wide"], bool):
            elements.append(Element(_accepts(part["bytes"]), part["wide"]))
        else:
            raise FilterError("a glob has a part that it cannot have")
        if len(elements) > most:
            raise FilterError("a glob is too long")
    return Glob("", tuple(elements), frozenset(stars))


def _accepts(spans: Any) -> int:
    accepts = 0
    if not isinstance(spans, list) or len(spans) > 256:
        raise FilterError("a glob's class is not one, or too long")
    for span in spans:
        if not isinstance(span, list) or len(span) != 2:
            raise FilterError("a glob's class is not made of spans")
        first, last = span
        if not is_number(first, 0, 255) or not is_number(last, first, 255):
            raise FilterError("a glob's class is not made of bytes")
        accepts |= (1 << last + 1) - (1 << first)
    return accepts
