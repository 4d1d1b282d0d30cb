"""The table of capture-filter primitives.

From it come the grammar's terminals, the checks of operands, the meaning of terms on sockets and records, and
the encodings for the kernel (encode.py) and for the privileged helper (serialize.py).
tests/unit/filter/test_primitives.py compares docs/filter.md, the manual page and the completions with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from unixsock_bpf.filter import cgroups, glob
from unixsock_bpf.filter.ast import Cgroup, Groups, Term, Value
from unixsock_bpf.filter.endpoint import Endpoint
from unixsock_bpf.filter.errors import FilterError, shorten
from unixsock_bpf.filter.glob import Character, Element, Glob
from unixsock_bpf.filter.symlinks import aliases
from unixsock_bpf.record import Event, Record, SocketType, containers_of, display_name

#: sockaddr_un.sun_path
NAME_BYTES = 108
#: TASK_COMM_LEN without its terminating NUL
COMM_BYTES = 15
#: NAME_MAX: what a directory's name has at most, and so that of a cgroup
NAME_MAX = 255
#: Globs that one term may have: a path, and what symbolic links make of it.
_MAX_GLOBS = 64
_MAX_CGROUP_PATH = 4096
#: Names that a unit or container may have, and cgroups of it.
_MAX_GROUP_NAMES = 64

TYPES = {kind.name.lower(): int(kind) for kind in SocketType}
EVENTS = {event.name.lower(): int(event) for event in Event}


class Operand:
    """The operand after a primitive's name.  ``syntax``: as in the documentation."""

    syntax = ""
    #: Further words for the completion.
    words: tuple[str, ...] = ()

    def read(self, name: str, characters: list[Character]) -> Value:
        """Parse a word into a value.  Raises FilterError without a position."""
        raise NotImplementedError

    def dump(self, value: Any) -> Any:
        """Turn ``value`` into what JSON can hold."""
        return value

    def load(self, plain: Any) -> Value:
        """Turn what ``dump`` made back into a value.  Raises FilterError for anything else."""
        raise NotImplementedError

    def matches(self, value: Any, fact: Any) -> bool:
        """Return whether ``fact``, which is known, matches ``value``."""
        return bool(fact == value)


class Nothing(Operand):
    """No operand: the primitive stands alone."""

    def load(self, plain: Any) -> Value:
        if plain is not None:
            raise FilterError("a term has a value that it cannot have")
        return None

    def matches(self, value: Any, fact: Any) -> bool:
        return bool(fact)


@dataclass(frozen=True)
class Number(Operand):
    """A number from ``low`` to ``high``."""

    low: int
    high: int
    syntax: str = "N"

    def read(self, name: str, characters: list[Character]) -> int:
        word = _text(characters)
        if word.isascii() and word.isdigit() and len(word) <= 20 and self.low <= int(word) <= self.high:
            return int(word)
        raise FilterError(f"{name} needs a number from {self.low} to {self.high}, not {shorten(word)}")

    def load(self, plain: Any) -> int:
        if not is_number(plain, self.low, self.high):
            raise FilterError("a term has a value that it cannot have")
        return int(plain)


class AtMost(Number):
    """A limit that a fact must not exceed."""

    def matches(self, value: Any, fact: Any) -> bool:
        return bool(fact <= value)


class AtLeast(Number):
    """A limit that a fact must reach."""

    def matches(self, value: Any, fact: Any) -> bool:
        return bool(fact >= value)


@dataclass(frozen=True)
class User(Number):
    """A user's number, or the name that the system has for it."""

    syntax: str = "NAME|N"

    def read(self, name: str, characters: list[Character]) -> int:
        word = _text(characters)
        if word[:1].isdigit():
            return super().read(name, characters)
        import pwd

        try:
            return pwd.getpwnam(word).pw_uid
        except (KeyError, ValueError):
            raise FilterError(
                f"{name} needs a number or the name of a user, and there is no user {shorten(word)}"
            ) from None


class OneOf(Operand):
    """One of a few names, which stand for numbers."""

    def __init__(self, syntax: str, names: dict[str, int]) -> None:
        self.syntax, self.names, self.words = syntax, names, tuple(names)

    def read(self, name: str, characters: list[Character]) -> int:
        word = _text(characters)
        if word not in self.names:
            raise FilterError(f"{name} needs one of {', '.join(self.names)}, not {shorten(word)}")
        return self.names[word]

    def load(self, plain: Any) -> int:
        if type(plain) is not int or plain not in self.names.values():
            raise FilterError("a term has a value that it cannot have")
        return plain


@dataclass(frozen=True)
class GlobOf(Operand):
    """A glob for names of at most ``most`` bytes; ``what`` says whose, in error messages.

    ``linked``: the name is a path, which symbolic links may lead to.
    """

    most: int
    what: str
    linked: bool = False
    syntax: str = "GLOB"

    def read(self, name: str, characters: list[Character]) -> tuple[Glob, ...]:
        if not characters:
            raise FilterError(f"{name} needs a name or a glob, not ''")
        own = glob.parse(characters)
        if len(own.elements) > self.most:
            raise FilterError(
                f"{shorten(own.text)} can never match: {self.what} has at most {self.most} bytes"
            )
        others = (glob.parse(other) for other in (aliases(characters) if self.linked else ()))
        return (own, *(other for other in others if len(other.elements) <= self.most))

    def dump(self, value: Any) -> Any:
        return {"globs": [_plain_glob(one) for one in value]}

    def load(self, plain: Any) -> tuple[Glob, ...]:
        globs = plain["globs"] if _has(plain, "globs") else None
        if not isinstance(globs, list) or not 0 < len(globs) <= _MAX_GLOBS:
            raise FilterError("a term has a value that it cannot have")
        return tuple(_load_glob(one, self.most) for one in globs)

    def matches(self, value: Any, fact: Any) -> bool:
        return glob.any_of(value, fact)


class CgroupPath(Operand):
    """The path of an existing cgroup."""

    syntax = "PATH"

    def read(self, name: str, characters: list[Character]) -> Cgroup:
        return cgroups.find(_text(characters))

    def dump(self, value: Any) -> Any:
        return _plain_cgroup(value)

    def load(self, plain: Any) -> Cgroup:
        return _load_cgroup(plain)

    def matches(self, value: Any, fact: Any) -> bool:
        return bytes(fact + b"/").startswith(value.path.rstrip("/").encode() + b"/")


@dataclass(frozen=True)
class GroupName(Operand):
    """The name of a unit or a container, whether or not it runs.

    ``find`` gets its names and cgroups; ``names`` those that the path of a process' cgroup has.
    """

    find: Callable[[str], Groups]
    names: Callable[[bytes], list[bytes]]
    syntax: str = "NAME"

    def read(self, name: str, characters: list[Character]) -> Groups:
        if not characters:
            raise FilterError(f"{name} needs a name, not ''")
        word = _text(characters)
        if len(word) > NAME_MAX or "/" in word:
            raise FilterError(f"{shorten(word)} is not the name of a {name}")
        return self.find(word)

    def dump(self, value: Any) -> Any:
        return {"names": list(value.names), "groups": [_plain_cgroup(one) for one in value.groups]}

    def load(self, plain: Any) -> Groups:
        if not _has(plain, "names", "groups"):
            raise FilterError("a term has a value that it cannot have")
        names, groups = plain["names"], plain["groups"]
        if not isinstance(names, list) or not 0 < len(names) <= _MAX_GROUP_NAMES:
            raise FilterError("a term has a value that it cannot have")
        if not all(isinstance(one, str) and len(one) <= NAME_MAX for one in names):
            raise FilterError("a unit or container has a name that it cannot have")
        if not isinstance(groups, list) or len(groups) > cgroups.MAX_GROUPS:
            raise FilterError("a term has a value that it cannot have")
        return Groups(tuple(names), tuple(map(_load_cgroup, groups)))

    def matches(self, value: Any, fact: Any) -> bool:
        return not {os.fsencode(one) for one in value.names}.isdisjoint(self.names(fact))


class About(Enum):
    """The owner of a primitive's facts."""

    SOCKET = "sockets"
    OWNER = "processes"
    MESSAGE = "messages"


@dataclass(frozen=True)
class Names:
    """In the kernel: globs for names of sockets (automaton 0) or of processes (1)."""

    automaton: int


@dataclass(frozen=True)
class Member:
    """In the kernel: a number in a set, compared with FILTER_FACT_<name>; bpf/filter/verdict.h fills that.

    ``facts``: how many there are, from that one on; a Cgroup is compared with the one of its level.
    ``of``: the primitive whose facts these are, where it is another one.
    """

    facts: int = 1
    of: str = ""


@dataclass(frozen=True)
class Bit:
    """In the kernel: a bit of the message's word, counted from ``first`` by the value."""

    first: int


@dataclass(frozen=True)
class Length:
    """In the kernel: the message's length, compared with the value."""

    at_least: bool


@dataclass(frozen=True)
class Primitive:
    """A primitive.

    ``facts``: get from an Endpoint or a Record what the operand is compared with: one has to match;
    None: not known.  ``kernel``: where the kernel has these facts.  ``takes``: the messages that a term
    takes, in docs/filter.md's words.  ``sided``: ``src`` and ``dst`` may stand before it.
    """

    name: str
    about: About
    operand: Operand
    facts: Callable[[Any], Iterable[Any] | None]
    kernel: Names | Member | Bit | Length
    takes: str
    sided: bool = False

    @property
    def syntax(self) -> str:
        """The primitive with its operand, as in the documentation."""
        side = "[src|dst] " if self.sided else ""
        return f"{side}{self.name} {self.operand.syntax}".strip()

    def matches(self, value: Any, of: Endpoint | Record) -> bool | None:
        """Return whether a term with ``value`` holds for an Endpoint or a Record; None: unknown."""
        facts = self.facts(of)
        if facts is None:
            return None
        return any(self.operand.matches(value, fact) for fact in facts)


def _known(name: str) -> Callable[[Any], Iterable[Any] | None]:
    """Get the member ``name``; None where it is not known."""

    def facts(of: Any) -> Iterable[Any] | None:
        value = getattr(of, name)
        return None if value is None else (value,)

    return facts


def _names(endpoint: Endpoint) -> Iterable[bytes] | None:
    """Get a socket's bound name, and the path of a relative one."""
    if endpoint.name is None:
        return None
    return (display_name(endpoint.name), *([endpoint.path] if endpoint.path else []))


#: In the message's word of bpf/filter/interpreter.h: the type's bits from 0 on, the event's from here on.
EVENT_BIT, FDS_BIT, CREDS_BIT = 16, 32, 33
TYPE_BITS = (1 << EVENT_BIT) - 1
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1

_ALL = (
    Primitive(
        "path",
        About.SOCKET,
        GlobOf(NAME_BYTES, "the name of a socket", linked=True),
        _names,
        Names(0),
        "of which either socket is bound to a name that matches",
    ),
    Primitive(
        "pid",
        About.OWNER,
        Number(1, 1 << 22),  # PID_MAX_LIMIT
        _known("pid"),
        Member(),
        "sent or received by process N; `src`: sent, `dst`: received",
        sided=True,
    ),
    Primitive(
        "comm",
        About.OWNER,
        GlobOf(COMM_BYTES, "the name of a process, cut by the kernel,"),
        _known("comm"),
        Names(1),
        "of a process whose name (its first 15 bytes) matches",
        sided=True,
    ),
    Primitive(
        "uid",
        About.OWNER,
        User(0, _U32 - 1),  # (uid_t) -1 is no user
        _known("uid"),
        Member(),
        "of a process of that user",
        sided=True,
    ),
    Primitive(
        "type",
        About.MESSAGE,
        OneOf("T", TYPES),
        lambda record: (record.type,),
        Bit(0),
        "on `stream`, `dgram` or `seqpacket` sockets",
    ),
    Primitive(
        "inode",
        About.SOCKET,
        Number(1, _U64),
        _known("inode"),
        Member(),
        "of which either socket has this inode, as shown by `ss -x`",
    ),
    Primitive(
        "netns",
        About.SOCKET,
        Number(1, _U32),
        _known("netns"),
        Member(),
        "of which either socket is in this network namespace, as in `net:[N]`",
    ),
    Primitive(
        "cgroup",
        About.OWNER,
        CgroupPath(),
        _known("cgroup"),
        Member(facts=cgroups.LEVELS),
        "of a process in this cgroup (version 2) or below it",
    ),
    Primitive(
        "unit",
        About.OWNER,
        GroupName(cgroups.unit, lambda path: path.split(b"/")),
        _known("cgroup"),
        Member(of="cgroup"),
        "of a process in this systemd unit; without an ending, it is a `.service`",
    ),
    Primitive(
        "container",
        About.OWNER,
        GroupName(cgroups.container, containers_of, "ID|NAME"),
        _known("cgroup"),
        Member(of="cgroup"),
        "of a process in this container, by 12 to 64 digits of its id, or by its name or its pod's",
    ),
    Primitive(
        "fds",
        About.MESSAGE,
        Nothing(),
        lambda record: (record.fds_count or record.fds,),
        Bit(FDS_BIT),
        "that pass file descriptors",
    ),
    Primitive(
        "creds",
        About.MESSAGE,
        Nothing(),
        lambda record: (record.creds is not None,),
        Bit(CREDS_BIT),
        "that carry credentials (SCM_CREDENTIALS)",
    ),
    Primitive(
        "less",
        About.MESSAGE,
        AtMost(0, _U32),
        lambda record: (record.len,),
        Length(at_least=False),
        "of at most N bytes",
    ),
    Primitive(
        "greater",
        About.MESSAGE,
        AtLeast(0, _U32),
        lambda record: (record.len,),
        Length(at_least=True),
        "of at least N bytes",
    ),
    Primitive(
        "event",
        About.MESSAGE,
        OneOf("E", EVENTS),
        lambda record: (record.event,),
        Bit(EVENT_BIT),
        "records of this kind: " + ", ".join(f"`{name}`" for name in EVENTS),
    ),
)

PRIMITIVES = {primitive.name: primitive for primitive in _ALL}


def term(name: str, characters: list[Character], side: str = "") -> Term:
    """Make a term of primitive ``name`` and its operand.  Raises FilterError without a position."""
    return Term(name, PRIMITIVES[name].operand.read(name, characters), side)


def _plain_cgroup(one: Cgroup) -> dict[str, Any]:
    return {"cgroup": one.path, "id": one.id, "level": one.level}


def _load_cgroup(plain: Any) -> Cgroup:
    if not _has(plain, "cgroup", "id", "level"):
        raise FilterError("a term has a value that it cannot have")
    path, number, level = plain["cgroup"], plain["id"], plain["level"]
    if not isinstance(path, str) or len(path) > _MAX_CGROUP_PATH:
        raise FilterError("a cgroup has no path")
    if not is_number(number, 0, (1 << 64) - 1):
        raise FilterError("a cgroup has no number")
    if not (level is None or is_number(level, 0, cgroups.LEVELS - 1)):
        raise FilterError("a cgroup has a level that it cannot have")
    return Cgroup(path, number, level)


def is_number(value: Any, low: int, high: int) -> bool:
    """Return whether ``value`` is an integer (not a truth value) from ``low`` to ``high``."""
    return type(value) is int and low <= value <= high


def _text(characters: list[Character]) -> str:
    return "".join(character for character, _ in characters)


def _has(value: Any, *members: str) -> bool:
    """Return whether ``value`` is a dictionary of just these members."""
    return isinstance(value, dict) and value.keys() == set(members)


def _plain_glob(one: Glob) -> list[Any]:
    parts: list[Any] = []
    for state in range(len(one.elements) + 1):
        if state in one.stars:
            parts.append(None)
        if state == len(one.elements):
            break
        element = one.elements[state]
        taken = [byte for byte in range(256) if element.accepts >> byte & 1]
        if len(taken) != 1 or element.wide:
            parts.append({"bytes": _spans(taken), "wide": element.wide})
        elif parts and isinstance(parts[-1], str):
            parts[-1] += chr(taken[0])
        else:
            parts.append(chr(taken[0]))
    return parts


def _spans(numbers: list[int]) -> list[list[int]]:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return spans


def _load_glob(plain: Any, most: int) -> Glob:
    if not isinstance(plain, list) or len(plain) > 4 * most:
        raise FilterError("a glob is not one")
    elements: list[Element] = []
    stars = set()
    for part in plain:
        if part is None:
            stars.add(len(elements))
        elif isinstance(part, str) and all(ord(character) < 256 for character in part):
            elements.extend(glob.literal(ord(character)) for character in part)
        elif _has(part, "bytes", "wide") and isinstance(part["wide"], bool):
            elements.append(Element(_accepts(part["bytes"]), part["wide"]))
        else:
            raise FilterError("a glob has a part that it cannot have")
        if len(elements) > most:
            raise FilterError("a glob is too long")
    return Glob("", tuple(elements), frozenset(stars))


def _accepts(spans: Any) -> int:
    accepts = 0
    if not isinstance(spans, list) or len(spans) > 256:
        raise FilterError("a glob's class is not one, or too long")
    for span in spans:
        if not isinstance(span, list) or len(span) != 2:
            raise FilterError("a glob's class is not made of spans")
        first, last = span
        if not is_number(first, 0, 255) or not is_number(last, first, 255):
            raise FilterError("a glob's class is not made of bytes")
        accepts |= (1 << last + 1) - (1 << first)
    return accepts
