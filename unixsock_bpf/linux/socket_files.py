"""The files of bound sockets: whether the bound name still leads to a socket's file, and what else does.

A server may rename its socket's file, another one may have bound the same name since, and a file may be
removed.  Paths are those of the owner's mount namespace where that is this one; others stay unknown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from unixsock_bpf.linux.sockets import Socket

#: A file system may never answer, as FUSE's and NFS's.
_TIMEOUT_S = 1
#: Names that are looked at in a socket's directory.
_MOST_NAMES = 10_000


@dataclass(frozen=True)
class Place:
    """Where a socket's file is.

    ``path``: where that is not the bound name; empty if it is, or is not known.  ``stale``: neither the
    bound name nor another one in its directory leads to the file.
    """

    path: bytes = b""
    stale: bool = False


_UNKNOWN = Place()
_Key = tuple[bytes, int, int, int]


class Places:
    """The places of ``present``'s files; what is not found out within a second is unknown."""

    def __init__(self, present: Iterable[Socket]) -> None:
        self._found: dict[_Key, Place] = {}
        self._here = _mounts("self")
        wanted = [one for one in present if one.file and one.name.startswith(b"/")]
        worker = threading.Thread(target=self._find, args=(wanted,), daemon=True)
        worker.start()
        worker.join(_TIMEOUT_S)

    def of(self, one: Socket) -> Place:
        """Return where the file of ``one`` is."""
        return self._found.get(_key(one), _UNKNOWN)

    def _find(self, wanted: list[Socket]) -> None:
        namespaces: dict[int, int] = {}
        for one in wanted:
            key = _key(one)
            if key in self._found or not one.owners:
                continue
            pid = one.owners[0].tgid
            if pid not in namespaces:
                namespaces[pid] = _mounts(str(pid))
            if self._here and namespaces[pid] == self._here:
                self._found[key] = _place(one)


def _key(one: Socket) -> _Key:
    return one.name, one.file, one.device, one.netns


def _mounts(pid: str) -> int:
    """Return the mount namespace of a process; 0 if it can't be read."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    return 0


def _place(one: Socket) -> Place:
    try:
        about = os.stat(one.name)
        # Some file systems give stat(2) another device than the kernel has.
        if about.st_ino & 0xFFFFFFFF == one.file or about.st_dev != one.device:
            return _UNKNOWN
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return _UNKNOWN
    return _elsewhere(one)


def _elsewhere(one: Socket) -> Place:
    """Look for the file in the directory of the bound name, which leads to it no more."""
    try:
        with os.scandir(os.path.dirname(one.name)) as names:
            for count, name in enumerate(names):
                if count == _MOST_NAMES:
                    return _UNKNOWN
                if name.inode() & 0xFFFFFFFF == one.file and name.stat().st_dev == one.device:
                    return Place(path=name.path)
    except FileNotFoundError:
        pass
    except OSError:
        return _UNKNOWN
    return Place(stale=True)
