"""The filter on sockets and records that Python holds: the reference for the C."""

from __future__ import annotations

from dataclasses import dataclass

from unixsock_bpf.filter.ast import Cgroup, Node, Term, evaluate
from unixsock_bpf.filter.glob import any_of
from unixsock_bpf.record import Flag, Record, display_name


@dataclass(frozen=True)
class End:
    """One end of a conversation: a socket and the process that uses it.

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


def ends(record: Record) -> tuple[End, End]:
    """Sender and receiver of ``record``."""
    src = End(
        record.src_name,
        record.src_path,
        record.src_inode or None,
        record.netns or None,
        record.src_pid or None,
        record.src_uid if record.flags & Flag.SRC_CREDS else None,
        record.src_comm or None,
        record.cgroup or None,
    )
    dst = End(
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
    """Whether the filter takes ``record``; what the record doesn't tell doesn't match."""
    src, dst = ends(record)

    def decide(term: Term) -> bool:
        known = _about_ends(term, src, dst)
        if known is not _NOT_ABOUT_ENDS:
            return bool(known)
        if term.name in ("less", "greater"):
            limit = term.value if isinstance(term.value, int) else 0
            return record.len <= limit if term.name == "less" else record.len >= limit
        if term.name == "fds":
            return bool(record.fds_count or record.fds)
        if term.name == "creds":
            return record.creds is not None
        return bool(getattr(record, term.name) == term.value)  # type, event

    return bool(evaluate(root, decide))


def judge(root: Node, one: End, other: End, kind: int) -> bool | None:
    """Whether the filter takes messages between two sockets of type ``kind``.

    None: that depends on the message, or on something that isn't known.
    """

    def decide(term: Term) -> bool | None:
        if term.name == "type":
            return term.value == kind
        if term.side:
            # Messages go both ways, so each end is sender once.
            forth, back = _about_ends(term, one, other), _about_ends(term, other, one)
            return bool(forth) if forth == back and isinstance(forth, bool) else None
        known = _about_ends(term, one, other)
        return known if isinstance(known, bool) else None

    return evaluate(root, decide)


_NOT_ABOUT_ENDS = object()


def _about_ends(term: Term, src: End, dst: End) -> bool | object | None:
    """The truth of a term about sockets or processes, None if not known."""
    if term.name not in ("path", "inode", "netns", "pid", "uid", "comm", "cgroup"):
        return _NOT_ABOUT_ENDS
    asked = {"src": (src,), "dst": (dst,)}.get(term.side, (src, dst))
    values = [_about_end(term, end) for end in asked]
    return True if True in values else None if None in values else False


def _about_end(term: Term, end: End) -> bool | None:
    value = getattr(end, "name" if term.name == "path" else term.name)
    if value is None:
        return None
    if isinstance(term.value, Cgroup):
        return bytes(value + b"/").startswith(term.value.path.rstrip("/").encode() + b"/")
    if isinstance(term.value, tuple):
        if term.name == "comm":
            return any_of(term.value, value)
        return any_of(term.value, display_name(value)) or bool(end.path and any_of(term.value, end.path))
    return bool(value == term.value)
