"""Evaluate a filter on sockets and records in Python: the reference for the interpreter in C."""

from __future__ import annotations

from dataclasses import dataclass

from unixsock_bpf.filter.ast import Node, Term, evaluate
from unixsock_bpf.filter.primitives import PRIMITIVES, About
from unixsock_bpf.record import Flag, Record


@dataclass(frozen=True)
class Endpoint:
    """A socket and the process that uses it.

    None means "not known".  ``name`` is as bound: empty if unnamed, with a leading NUL if
    abstract; ``path`` is the absolute path of a name that is relative.  ``cgroup`` is as in
    /proc/PID/cgroup.
    """

    name: bytes | None = None
    path: bytes = b""
    inode: int | None = None
    netns: int | None = None
    pid: int | None = None
    uid: int | None = None
    comm: bytes | None = None
    cgroup: bytes | None = None


def endpoints(record: Record) -> tuple[Endpoint, Endpoint]:
    """Sender and receiver of ``record``."""
    src = Endpoint(
        record.src_name,
        record.src_path,
        record.src_inode or None,
        record.netns or None,
        record.src_pid or None,
        record.src_uid if record.flags & Flag.SRC_CREDS else None,
        record.src_comm or None,
        record.cgroup or None,
    )
    dst = Endpoint(
        record.dst_name,
        record.dst_path,
        record.dst_inode or None,
        None,
        record.dst_pid or None,
        record.dst_uid if record.flags & Flag.DST_CREDS else None,
        record.dst_comm or None,
    )
    return src, dst


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
