"""A socket and its process, as terms of a filter look at them."""

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
