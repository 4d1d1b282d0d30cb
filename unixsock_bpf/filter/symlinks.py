"""Other names that a path may have been bound under, because of symbolic links, or since it was renamed.

A socket keeps the name that its server passed to bind().  A user who sees
/var/run/x may look for a socket that was bound as /run/x, or the other way round.  And a
server may bind x.771.tmp and rename that to x, or link or mount it there.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from functools import cache, lru_cache

from unixsock_bpf.filter.glob import Character, literal_length
from unixsock_bpf.linux import sock_diag

#: Links in these directories are looked at for ways back, as from /run to /var/run.
_LINK_DIRECTORIES = ("/", "/var")


def aliases(characters: list[Character]) -> list[list[Character]]:
    """Return globs for other names that the same sockets may be bound to."""
    text = "".join(character for character, _ in characters)
    end = literal_length(characters)
    if not text.startswith("/"):
        return []
    if end < len(text):
        end = text.rindex("/", 0, end) + 1
    prefix, rest = text[:end], characters[end:]
    found: list[str] = []
    for known in (prefix, *_resolved(prefix), *([] if rest else names_of_file(text))):
        for name in (known, *_ways_back(known)):
            if name != prefix and name not in found:
                found.append(name)
    return [[(character, True) for character in name] + rest for name in found]


def names_of_file(path: str) -> list[str]:
    """Return the absolute names to which present sockets were bound whose file is ``path``."""
    with suppress(OSError, ValueError):
        about = os.stat(path)
        if stat.S_ISSOCK(about.st_mode):
            file = about.st_ino & 0xFFFFFFFF, about.st_dev
            names = {one.name for one in _listed() if (one.file, one.device) == file}
            return sorted(name.decode() for name in names if name.startswith(b"/"))
    return []


#: For how long a list of sockets serves the next paths of a filter.
_LIST_AGE_S = 0.05


def _listed() -> list[sock_diag.Entry]:
    """List the sockets of this network namespace.  Raises DiagError."""
    return _listed_at(int(time.monotonic() / _LIST_AGE_S))


@lru_cache(maxsize=1)
def _listed_at(_: int) -> list[sock_diag.Entry]:
    return list(sock_diag.listed())


def _resolved(path: str) -> list[str]:
    """Resolve links in ``path``'s directories, and ``path`` itself, too, if it is one."""
    directory, slash, last = path.rpartition("/")
    try:
        in_directory = os.path.join(os.path.realpath(directory or "/"), last)
        return [in_directory, os.path.realpath(path) + (slash if not last else "")]
    except (OSError, ValueError):
        return []


def _ways_back(path: str) -> list[str]:
    """Spell ``path`` through the links whose targets it lies in."""
    return [
        link + path[len(target) :]
        for link, target in _links(_LINK_DIRECTORIES)
        if target != "/" and path.startswith(target + "/")
    ]


@cache  # a filter may have many paths, and these links stay as they are
def _links(directories: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the symbolic links in ``directories``, and their targets."""
    links = []
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                links += [entry.path for entry in entries if entry.is_symlink()]
        except OSError:
            continue  # a directory that can't be read is skipped
    return [(link, os.path.realpath(link)) for link in links]
