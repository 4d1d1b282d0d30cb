"""Other names that a path may have been bound under, because of symbolic links.

A socket keeps the name that its server passed to bind().  A user who sees
/var/run/x may look for a socket that was bound as /run/x, or the other way round.
"""

from __future__ import annotations

import os
from functools import cache

from unixsock_bpf.filter.glob import Character, literal_length

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
    for known in (prefix, *_resolved(prefix)):
        for name in (known, *_ways_back(known)):
            if name != prefix and name not in found:
                found.append(name)
    return [[(character, True) for character in name] + rest for name in found]


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
