"""Compiled programs, so that the compiler is waited for once.

They lie in a folder that only root can look into, under a hash of all that they were compiled
from.  What can't be kept or found there is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

FOLDER = Path("/var/cache/unixsock")
#: Files that are kept, of 100 kB and less: two for a kernel and a way of attaching.
MOST = 16
#: Whether ``keep`` keeps anything: the privileged helper writes nowhere but to its caller.
writable = True


def key(*parts: str) -> str:
    """Return the cache key of what is compiled from ``parts``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def get(name: str) -> dict[str, Any] | None:
    """Return the programs kept under ``name``, if any."""
    with contextlib.suppress(OSError, ValueError):
        if _ours(FOLDER):
            kept = json.loads((FOLDER / name).read_bytes())
            if writable:
                os.utime(FOLDER / name)  # what is used often is not among the oldest
            return kept if isinstance(kept, dict) else None
    return None


def keep(name: str, programs: dict[str, Any]) -> None:
    """Keep ``programs``, made of what JSON has, under ``name``, if this process may write."""
    if not writable:
        return
    text = json.dumps(programs)
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            FOLDER.mkdir(mode=0o700)
        if not _ours(FOLDER):
            return
        unfinished = FOLDER / f"{name}.{os.getpid()}"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "w") as file:
            file.write(text)
        unfinished.rename(FOLDER / name)
        oldest_first = sorted(FOLDER.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in oldest_first[:-MOST]:
            old.unlink()


def clear() -> None:
    """Remove everything."""
    with contextlib.suppress(OSError):
        if _ours(FOLDER):
            shutil.rmtree(FOLDER)


def _ours(folder: Path) -> bool:
    """Return whether only this user can change what is in there."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
