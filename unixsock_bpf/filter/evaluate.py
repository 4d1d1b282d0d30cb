"""Evaluate a filter on sockets and records in Python: the reference for the interpreter in C."""

from __future__ import annotations

from unixsock_bpf.filter.ast import Node, Term, evaluate
from unixsock_bpf.filter.endpoint import Endpoint, endpoints
from unixsock_bpf.filter.primitives import PRIMITIVES, About
from unixsock_bpf.record import Record


def matches(root: Node, record: Record) -> bool:
    """Return whether the filter takes ``record``; what the record lacks doesn't match."""
    src, dst = endpoints(record)

    def decide(term: Term) -> bool:
        primitive = PRIMITIVES[term.name]
        if primitive.about is About.MESSAGE:
            return bool(primitive.matches(term.value, record))
        return bool(_endpoints_match(term, src, dst))

    return bool(evaluate(root, decide))


def judge(root: Node, one: Endpoint, other: Endpoint, kind: int) -> bool | None:
    """Return whether the filter takes messages between two sockets of type ``kind``.

    None: that depends on the message, or on something that isn't known.
    """

    def decide(term: Term) -> bool | None:
        if term.name == "type":
            return term.value == kind
        if PRIMITIVES[term.name].about is About.MESSAGE:
            return None
        forth = _endpoints_match(term, one, other)
        if term.side:
            # Messages go both ways, so each endpoint is sender once.
            back = _endpoints_match(term, other, one)
            return forth if forth == back else None
        return forth

    return evaluate(root, decide)


def _endpoints_match(term: Term, src: Endpoint, dst: Endpoint) -> bool | None:
    """Return whether a term about sockets or processes holds; None if not known."""
    asked = {"src": (src,), "dst": (dst,)}.get(term.side, (src, dst))
    values = [PRIMITIVES[term.name].matches(term.value, endpoint) for endpoint in asked]
    return True if True in values else None if None in values else False
