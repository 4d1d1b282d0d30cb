"""Existing sockets that a capture filter matches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from unixsock_bpf.filter.endpoint import Endpoint
from unixsock_bpf.linux.cgroups import cgroup_of
from unixsock_bpf.linux.sockets import Peers, Socket

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter


def select(present: list[Socket], wanted: Filter) -> list[tuple[Socket, bool]]:
    """Return the sockets that ``wanted`` takes, each with whether it takes all that they carry.

    A socket with several holders is taken if it is with any of them; an endpoint that does not
    exist matches nothing.
    """
    if wanted.takes_everything:
        return [(one, True) for one in present]
    with_cgroup = wanted.asks_for_cgroups
    peers, endpoints = Peers(present), {}

    def of(one: Socket) -> list[Endpoint]:
        key = one.inode, one.peer
        if key not in endpoints:
            endpoints[key] = _endpoints(one, with_cgroup)
        return endpoints[key]

    found = []
    for one in present:
        peer = peers.of(one)
        others = of(peer) if peer else [_UNKNOWN_PEER]
        verdicts = {wanted.judge(near, far, one.type) for near in of(one) for far in others}
        if verdicts != {False}:
            found.append((one, True in verdicts))
    return found


def _endpoints(one: Socket, with_cgroup: bool) -> list[Endpoint]:
    """Return the socket as the filter sees it, once for each process that holds it."""
    known: dict[str, Any] = {"name": one.name, "inode": one.inode or None, "netns": one.netns}
    if not one.owners:
        return [Endpoint(**known, pid=0, uid=-1, comm=b"", cgroup=b"")]  # no holder that is visible
    return [
        Endpoint(
            **known,
            path=_absolute(one.name, owner.tgid),
            pid=owner.tgid,
            uid=owner.uid,
            comm=owner.comm,
            cgroup=cgroup_of(owner.tgid) if with_cgroup else b"",
        )
        for owner in one.owners
    ]


_UNKNOWN_PEER = Endpoint(name=b"", inode=0, netns=0, pid=0, uid=-1, comm=b"", cgroup=b"")


def _absolute(name: bytes, pid: int) -> bytes:
    """Return a relative name's most likely path: in its owner's present directory."""
    if not name or name.startswith((b"/", b"\0")):
        return b""
    try:
        return os.path.normpath(os.path.join(os.readlink(f"/proc/{pid}/cwd".encode()), name))
    except OSError:
        return b""
