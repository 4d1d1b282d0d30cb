"""A parsed filter: terms joined by and, or, not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

from unixsock_bpf.filter.glob import Glob


@dataclass(frozen=True)
class Cgroup:
    """A cgroup and all below it.

    ``path`` as in /proc/PID/cgroup; ``id`` as the kernel numbers it; ``level``: how
    far below the root it lies, None where the root can't be seen from here.
    """

    path: str
    id: int
    level: int | None


@dataclass(frozen=True)
class Groups:
    """The cgroups of a unit, or of a container, that exist; ``names``: as paths have it."""

    names: tuple[str, ...]
    groups: tuple[Cgroup, ...] = ()


#: A term's value.
Value = Union[tuple[Glob, ...], int, Cgroup, Groups, None]


@dataclass(frozen=True)
class Term:
    """One primitive.

    ``value`` holds globs of which one has to match (path, comm), a number (pid, uid, inode,
    netns, less, greater, type, event), a Cgroup, Groups (unit, container), or None (fds, creds).
    ``side`` is ``src``, ``dst``, or empty for either.
    """

    name: str
    value: Value = None
    side: str = ""


@dataclass(frozen=True)
class Not:
    part: Node


@dataclass(frozen=True)
class And:
    """True if all parts are true; with no parts, always."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """True if one part is true."""

    parts: tuple[Node, ...]


Node = Union[Term, Not, And, Or]

#: The filter that takes everything.
EVERYTHING = And(())


def join(kind: type[And] | type[Or], parts: list[Node]) -> Node:
    """Join ``parts``, with nested joins of the same kind made one."""
    flat: list[Node] = []
    for part in parts:
        flat += part.parts if isinstance(part, kind) else [part]
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def terms(node: Node, negated: bool = False) -> Iterator[tuple[Term, bool]]:
    """Yield each term, and whether an odd number of ``not`` stands before it."""
    if isinstance(node, Term):
        yield node, negated
    elif isinstance(node, Not):
        yield from terms(node.part, not negated)
    else:
        for part in node.parts:
            yield from terms(part, negated)


def replaced(node: Node, by: Callable[[Term], Term]) -> Node:
    """Return ``node`` with each term replaced."""
    if isinstance(node, Term):
        return by(node)
    if isinstance(node, Not):
        return Not(replaced(node.part, by))
    return type(node)(tuple(replaced(part, by) for part in node.parts))


def evaluate(node: Node, decide: Callable[[Term], bool | None]) -> bool | None:
    """Evaluate ``node`` with the terms' values from ``decide``; None means "not known"."""
    if isinstance(node, Term):
        return decide(node)
    if isinstance(node, Not):
        value = evaluate(node.part, decide)
        return None if value is None else not value
    settling = isinstance(node, Or)  # the value of one part that settles the whole
    values = [evaluate(part, decide) for part in node.parts]
    if settling in values:
        return settling
    return None if None in values else not settling
