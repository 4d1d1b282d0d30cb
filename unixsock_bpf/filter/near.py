"""Why a capture may stay empty: what is near a path that no present socket has, and units that do not run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from unixsock_bpf.filter import glob
from unixsock_bpf.filter.ast import Groups, terms
from unixsock_bpf.filter.glob import Glob
from unixsock_bpf.record import display_name

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter

#: Names that a sentence has at most.
_SOME = 3

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Named(Protocol):
    """A socket's name, as bound, and its file: ``sock_diag.Entry`` and ``sockets.Socket``."""

    @property
    def name(self) -> bytes: ...
    @property
    def file(self) -> int: ...
    @property
    def device(self) -> int: ...


def near(wanted: Filter, present: Iterable[Named]) -> list[str]:
    """Return a sentence for each path of ``wanted`` that is no present socket's: what is there instead.

    And one for each unit or container that does not run.
    """
    sockets = list(present)
    names = sorted({display_name(one.name) for one in sockets if one.name})
    files = {(one.file, one.device) for one in sockets if one.file}
    sentences = []
    for globs in _paths(wanted):
        if any(glob.any_of(globs, name) for name in names):
            continue
        sentence = _why(globs, names, files)
        if sentence:
            sentences.append(sentence)
    return sentences + _not_running(wanted)


def _not_running(wanted: Filter) -> list[str]:
    return [
        f"{term.name} {_shown(term.value.names[0])} has no processes now; they are taken once it starts"
        for term, negated in terms(wanted.root)
        if not negated and isinstance(term.value, Groups) and not term.value.groups
    ]


def _paths(wanted: Filter) -> Iterator[tuple[Glob, ...]]:
    """Yield the globs of each path that a filter asks for; that of its text comes first."""
    for term, negated in terms(wanted.root):
        if not negated and term.name == "path" and isinstance(term.value, tuple):
            yield term.value


def nearby(wanted: Filter) -> list[str]:
    """Return all that a user of ``wanted`` may want to know of its terms when a capture begins."""
    if not any(term.name == "path" for term, _ in terms(wanted.root)):
        return _not_running(wanted)
    from unixsock_bpf.linux import sock_diag

    try:
        return [*bound_otherwise(wanted), *near(wanted, sock_diag.listed())]
    except sock_diag.DiagError:
        return _not_running(wanted)


def bound_otherwise(wanted: Filter) -> list[str]:
    """Return a sentence for each path of ``wanted`` whose socket was bound to another name."""
    from unixsock_bpf.filter.symlinks import names_of_file

    sentences = []
    for own, *_ in _paths(wanted):
        path = _literal(own)
        names = [name for name in names_of_file(path) if name != path] if path.startswith("/") else []
        if names and path not in names_of_file(path):
            sentences.append(f"{_shown(path)} is the file of the socket bound as {_joined(names)}")
    return sentences


def _literal(one: Glob) -> str:
    """Return the only name that a glob matches; empty if it has wildcards."""
    plain = all(not part.wide and part.accepts & (part.accepts - 1) == 0 for part in one.elements)
    return one.text if plain and not one.stars else ""


def _why(globs: tuple[Glob, ...], names: list[bytes], files: set[tuple[int, int]]) -> str:
    own = globs[0]
    path = _literal(own)
    if not path:
        return "" if glob.any_of(globs, b"") else f"no present socket has a name like {_shown(own.text)}"
    like = _like(path, names)
    if any(character in path for character in "*?"):
        return (
            f"{_shown(path)}: within quotes or behind a \\, * and ? are ordinary characters;"
            f" write wildcards outside of quotes{like}"
        )
    if path.startswith("/"):
        about = _about_file(path, files)
        return f"{about}{like}" if about else ""
    what = "abstract name" if path.startswith("@") else "name"
    return f"no present socket has the {what} {_shown(path)}{like}"


def _about_file(path: str, files: set[tuple[int, int]]) -> str:
    shown = _shown(path)
    try:
        about = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no file {shown}"
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        return f"{shown} cannot be looked at: {reason}"
    if stat.S_ISSOCK(about.st_mode):
        if (about.st_ino & 0xFFFFFFFF, about.st_dev) in files:
            return ""  # of a socket with a relative name
        return (
            f"no socket of this network namespace has the file {shown}: its server ended and left it behind,"
            " or runs in a container"
        )
    kind = next((text for check, text in _KINDS if check(about.st_mode)), "no socket")
    return f"{shown} is {kind}, not a socket"


def _like(path: str, names: list[bytes]) -> str:
    """Return the names that begin or end like ``path``."""
    begin, end = (
        path.encode(errors="surrogateescape"),
        path.rpartition("/")[2].encode(errors="surrogateescape"),
    )
    bare = end.lstrip(b"@")
    found = [
        name
        for name in names
        if name.startswith(begin) or (bare and name.endswith((b"/" + bare, b"@" + bare)))
    ]
    return f"; near: {_joined(name.decode(errors='replace') for name in found)}" if found else ""


def _joined(names: Iterable[str]) -> str:
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:_SOME]) + (f" and {len(shown) - _SOME} more" if len(shown) > _SOME else "")


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
