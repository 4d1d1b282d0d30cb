"""A socket and its process: what terms of a filter are compared with."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Return sender and receiver of ``record``."""
    src = Endpoint(
        name=record.src_name,
        path=record.src_path,
        inode=record.src_inode or None,
        netns=record.netns or None,
        pid=record.src_pid or None,
        uid=record.src_uid if record.flags & Flag.SRC_CREDS else None,
        comm=record.src_comm or None,
        cgroup=record.cgroup or None,
    )
    dst = Endpoint(
        name=record.dst_name,
        path=record.dst_path,
        inode=record.dst_inode or None,
        pid=record.dst_pid or None,
        uid=record.dst_uid if record.flags & Flag.DST_CREDS else None,
        comm=record.dst_comm or None,
    )
    return src, dst
