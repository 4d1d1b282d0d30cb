"""Terms from words: what each primitive's argument may be.

The capture filter and the interface options (``--pid``, ``--comm``, …) both come here.
"""

from __future__ import annotations

from collections.abc import Callable

from unixsock_bpf.filter import cgroups, glob
from unixsock_bpf.filter.ast import Term, Value
from unixsock_bpf.filter.errors import FilterError, shorten
from unixsock_bpf.filter.glob import Character, Glob
from unixsock_bpf.filter.symlinks import aliases
from unixsock_bpf.record import Event, SocketType

#: sockaddr_un.sun_path
NAME_BYTES = 108
#: TASK_COMM_LEN without its terminating NUL
COMM_BYTES = 15

#: The lowest and highest numbers that numeric primitives take.
RANGES = {
    "pid": (1, 1 << 22),  # PID_MAX_LIMIT
    "uid": (0, (1 << 32) - 2),  # (uid_t) -1 is nobody's
    "inode": (1, (1 << 64) - 1),
    "netns": (1, (1 << 32) - 1),
    "less": (0, (1 << 32) - 1),
    "greater": (0, (1 << 32) - 1),
}

TYPES = {kind.name.lower(): int(kind) for kind in SocketType}
EVENTS = {event.name.lower(): int(event) for event in Event}


def term(name: str, characters: list[Character], side: str = "") -> Term:
    """The term for primitive ``name`` with an argument.  Raises FilterError without a position."""
    return Term(name, _VALUES[name](name, characters), side)


def _text(characters: list[Character]) -> str:
    return "".join(character for character, _ in characters)


def _number(name: str, characters: list[Character]) -> int:
    word, (low, high) = _text(characters), RANGES[name]
    if word.isascii() and word.isdigit() and len(word) <= 20 and low <= int(word) <= high:
        return int(word)
    raise FilterError(f"{name} needs a number from {low} to {high}, not {shorten(word)}")


def _uid(name: str, characters: list[Character]) -> int:
    word = _text(characters)
    if word[:1].isdigit():
        return _number(name, characters)
    import pwd

    try:
        return pwd.getpwnam(word).pw_uid
    except (KeyError, ValueError):
        raise FilterError(
            f"uid needs a number or the name of a user, and there is no user {shorten(word)}"
        ) from None


def _one_of(names: dict[str, int]) -> Callable[[str, list[Character]], int]:
    def value(name: str, characters: list[Character]) -> int:
        word = _text(characters)
        if word not in names:
            raise FilterError(f"{name} needs one of {', '.join(names)}, not {shorten(word)}")
        return names[word]

    return value


def _path(name: str, characters: list[Character]) -> tuple[Glob, ...]:
    own = _glob(name, characters, NAME_BYTES, "the name of a socket")
    others = (glob.parse(other) for other in aliases(characters))
    return (own, *(other for other in others if len(other.elements) <= NAME_BYTES))


def _comm(name: str, characters: list[Character]) -> tuple[Glob, ...]:
    return (_glob(name, characters, COMM_BYTES, "the name of a process, cut by the kernel,"),)


def _glob(name: str, characters: list[Character], most: int, what: str) -> Glob:
    if not characters:
        raise FilterError(f"{name} needs a name or a glob, not ''")
    parsed = glob.parse(characters)
    if len(parsed.elements) > most:
        raise FilterError(f"{shorten(parsed.text)} can never match: {what} has at most {most} bytes")
    return parsed


_VALUES: dict[str, Callable[[str, list[Character]], Value]] = {
    "path": _path,
    "comm": _comm,
    "pid": _number,
    "uid": _uid,
    "type": _one_of(TYPES),
    "event": _one_of(EVENTS),
    "inode": _number,
    "netns": _number,
    "cgroup": lambda name, characters: cgroups.find(_text(characters)),
    "less": _number,
    "greater": _number,
}
