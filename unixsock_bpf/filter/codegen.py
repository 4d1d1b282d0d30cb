"""The filter as C for the probe.

Everything that compares a socket or a process with the filter does so once, and
leaves bits: "atoms", one for each distinct term.  What is left for each message
is arithmetic on those bits, without branches, so that the verifier has one path
to follow however long the filter is.

Truth has three values where a socket is judged before all is known: ``_certain``
gives C for "this is known to be so", and what is neither certainly true nor
certainly false depends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from unixsock_bpf.filter.ast import And, Cgroup, Node, Not, Term, terms
from unixsock_bpf.filter.automaton import Automaton, build
from unixsock_bpf.filter.errors import FilterError
from unixsock_bpf.filter.glob import Glob

_BPF = Path(__file__).parents[1] / "bpf/filter"

#: Distinct terms about sockets (path, inode, netns) and about processes (pid, uid, comm, cgroup).
MAX_ATOMS = 64
#: Lanes of 128 bits that all paths of a filter may fill; 64 comms need 8.  The verifier follows each lane
#: through each byte of four names, on Linux 7.2 of up to twelve, for a million instructions at most.
#: A power of two.
MAX_LANES = 32
#: How deep a cgroup may lie below the root.
CGROUP_LEVELS = 16

_SOCKET_TERMS = ("path", "inode", "netns")
_OWNER_TERMS = ("pid", "uid", "comm", "cgroup")


@dataclass(frozen=True)
class Bit:
    """A truth value: bit ``number`` of the C expression ``word``."""

    word: str
    number: int


#: C for a truth value: a bit, or an expression that is 0 or 1.
_Truth = Union[Bit, str]
#: C for "the term is certainly true" or "certainly false".
_Decide = Callable[[Term, bool], _Truth]


class Program:
    """C for a tree; ``tables`` are what its map ``filter_tables`` has to hold."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.sockets = _numbered(root, _SOCKET_TERMS, "sockets")
        self.owners = _numbered(root, _OWNER_TERMS, "processes")
        self.paths = _automaton(self.sockets, "path")
        self.comms = _automaton(self.owners, "comm")
        self.tables = self.paths.tables + self.comms.tables if self.paths.lanes or self.comms.lanes else b""

    def c(self) -> str:
        """The C functions; unixsock_bpf/filter/__init__.py tells what each has to do."""
        return "\n".join(
            [
                (_BPF / "branchless.h").read_text(),
                self._declare_tables(),
                self._name_atoms(),
                self._socket_atoms(),
                self._owner_atoms(),
                self._sockets(),
                self._message(),
            ]
        )

    def _declare_tables(self) -> str:
        defines = [f"#define FILTER_MAX_LANES {MAX_LANES}", f"#define FILTER_CGROUP_LEVELS {CGROUP_LEVELS}"]
        if any(term.name == "inode" for term in self.sockets):
            defines.append("#define FILTER_ASKS_INODES")
        if self.tables:
            # One plain array: bcc gets the size of nested ones wrong.
            defines += [
                f"struct filter_tables {{ u8 bytes[{len(self.tables)}]; }};",
                "BPF_ARRAY(filter_tables, struct filter_tables, 1);",
            ]
        return "\n".join([*defines, (_BPF / "glob_match.h").read_text()])

    def _name_atoms(self) -> str:
        return _function(
            "u64 filter_name_atoms(const u8 *name, u32 len, struct filter_work *work)",
            [
                "u64 atoms = 0;",
                *_match(self.paths, 0, "name", 108, "len"),
                "return atoms;",
            ],
        )

    def _socket_atoms(self) -> str:
        given = {"inode": "inode", "netns": "netns"}
        return _function(
            "u64 filter_socket_atoms(u64 inode, u32 netns)",
            [f"u64 atoms = {self._any_name()}ull;", *_equal(self.sockets, given), "return atoms;"],
        )

    def _any_name(self) -> int:
        """Bits of path terms that take every name, and so unnamed sockets, too."""
        paths = _distinct(self.sockets, "path").items()
        return sum(1 << bit for bit, term in paths if any(glob.matches(b"") for glob in _globs(term)))

    def _owner_atoms(self) -> str:
        given = {"pid": "tgid", "uid": "uid"}
        return _function(
            "u64 filter_owner_atoms(u32 tgid, u32 uid, const u8 *comm, const u64 *cgroups,"
            " struct filter_work *work)",
            [
                "u64 atoms = 0;",
                *_equal(self.owners, given),
                *(line for term, bit in self.owners.items() for line in _in_cgroup(term, bit)),
                *_match(self.comms, len(self.paths.tables), "comm", 16, "16"),
                "return atoms;",
            ],
        )

    def _sockets(self) -> str:
        def decide(term: Term, value: bool) -> _Truth:
            if term.name in _SOCKET_TERMS:
                return Bit("present" if value else "absent", self.sockets[term])
            if term.name == "type":
                return Bit("kind" if value else "~kind", _number(term))
            return "0"

        return _function(
            "u32 filter_sockets(u64 src, u64 dst, u32 type, u32 src_named_final, u32 dst_named_final)",
            [
                "u64 present = src | dst;",
                "u64 absent = ~present & (0 - (filter_any(src_named_final) & filter_any(dst_named_final)));",
                "u64 kind = 1ull << (type & 63);",
                f"u32 never = {_c(_certain(self.root, False, decide))};",
                f"u32 always = {_c(_certain(self.root, True, decide))};",
                "return (2 - always) * (1 - never);",
            ],
        )

    def _message(self) -> str:
        def decide(term: Term, value: bool) -> _Truth:
            sign = "" if value else "~"
            if term.name in _SOCKET_TERMS:
                return Bit(sign + "sockets", self.sockets[term])
            if term.name in _OWNER_TERMS:
                return Bit(sign + (f"{term.side}_owner" if term.side else "owners"), self.owners[term])
            if term.name == "type":
                return Bit(sign + "kind", _number(term))
            if term.name == "event":
                return Bit(sign + "what", _number(term))
            if term.name in ("fds", "creds"):
                return Bit(sign + "carries", ("fds", "creds").index(term.name))
            compare = {"less": "filter_most", "greater": "filter_least"}[term.name]
            return f"{compare}(len, {_number(term)}u)" + ("" if value else " ^ 1")

        return _function(
            "u32 filter_message(u64 src, u64 src_owner, u64 dst, u64 dst_owner, u32 type, u32 event, u32 len,"
            " u32 fds, u32 creds)",
            [
                "u64 sockets = src | dst, owners = src_owner | dst_owner;",
                "u64 kind = 1ull << (type & 63), what = 1ull << (event & 63);",
                "u64 carries = filter_any(fds) | filter_any(creds) << 1;",
                f"return {_c(_certain(self.root, True, decide))};",
            ],
        )


def _function(signature: str, lines: Iterable[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"static __always_inline {signature}\n{{\n{body}}}\n"


def _number(term: Term) -> int:
    if not isinstance(term.value, int):
        raise TypeError(f"{term.name} has no number")
    return term.value


def _globs(term: Term) -> tuple[Glob, ...]:
    return term.value if isinstance(term.value, tuple) else ()


def _numbered(root: Node, names: tuple[str, ...], what: str) -> dict[Term, int]:
    """A bit for each distinct term whose name is in ``names``; the side doesn't make a difference."""
    bits: dict[Term, int] = {}
    numbers: dict[tuple[object, ...], int] = {}
    for term, _ in terms(root):
        if term.name in names:
            bits[term] = numbers.setdefault((term.name, term.value), len(numbers))
    if len(numbers) > MAX_ATOMS:
        raise FilterError(
            f"the filter has {len(numbers)} different terms about {what} ({', '.join(names)});"
            f" at most {MAX_ATOMS} are possible"
        )
    return bits


def _distinct(bits: dict[Term, int], name: str) -> dict[int, Term]:
    return {bit: term for term, bit in bits.items() if term.name == name}


def _automaton(bits: dict[Term, int], name: str) -> Automaton:
    globs = [(bit, glob) for bit, term in _distinct(bits, name).items() for glob in _globs(term)]
    automaton = build(globs, nul_ends=name == "comm")
    if len(automaton.lanes) > MAX_LANES:
        raise FilterError(
            f"the {name}s in the filter, with the links that lead to them, are too long altogether: they need"
            f" {len(automaton.lanes)} places for 128 characters, and there are {MAX_LANES}"
        )
    return automaton


def _equal(bits: dict[Term, int], given: dict[str, str]) -> list[str]:
    """Statements that set the bits of terms that are equal to a given number."""
    return [
        f"filter_then(atoms, {word}); atoms |= (filter_any((u64){word} ^ {_number(term)}ull) ^ 1) << {bit};"
        for name, word in given.items()
        for bit, term in _distinct(bits, name).items()
    ]


def _in_cgroup(term: Term, bit: int) -> list[str]:
    """Statements that set ``bit`` if the owner is in the term's cgroup or below it."""
    if not isinstance(term.value, Cgroup):
        return []
    level = term.value.level
    return [
        "filter_then(atoms, cgroups); "
        f"atoms |= (filter_any(cgroups[{at}] ^ {term.value.id}ull) ^ 1) << {bit};"
        for at in ([level] if level is not None else range(CGROUP_LEVELS))
    ]


def _match(automaton: Automaton, start: int, text: str, size: int, length: str) -> list[str]:
    """Statements that set the atoms of the globs which match ``text``.

    ``start`` is where the automaton's tables begin in the map; filter/glob_match.h tells of the rest.
    """
    if not automaton.lanes:
        return []
    shape = f"{len(automaton.lanes)}, {automaton.rows}, {len(automaton.finals)}"
    return [
        "u32 zero = 0;",
        "struct filter_tables *tables = filter_tables.lookup(&zero);",
        "if (tables)",
        f"    atoms |= filter_match(work, tables->bytes + {start}, {shape}, {text}, {size}, {length});",
    ]


def _certain(node: Node, value: bool, decide: _Decide) -> _Truth:
    """C for "``node`` is certainly ``value``"."""
    if isinstance(node, Term):
        return decide(node, value)
    if isinstance(node, Not):
        return _certain(node.part, not value, decide)
    every = isinstance(node, And) == value  # all parts have to be so, or one
    return _join([_certain(part, value, decide) for part in node.parts], every)


def _join(parts: list[_Truth], every: bool) -> _Truth:
    """All of ``parts``, or one of them; bits of the same word are tested together."""
    settling, neutral = ("0", "1") if every else ("1", "0")
    if settling in parts:
        return settling
    parts = [part for part in parts if part != neutral]
    if len(parts) == 1:
        return parts[0]
    masks: dict[str, int] = {}
    rest = []
    for part in parts:
        if isinstance(part, Bit):
            masks[part.word] = masks.get(part.word, 0) | 1 << part.number
        else:
            rest.append(f"({part})")
    for word, mask in masks.items():
        tested = f"~({word})" if every else f"({word})"
        rest.append(f"(filter_any({tested} & {mask}ull){' ^ 1' if every else ''})")
    return _together(rest, "&" if every else "|") or neutral


#: So many values at once are fine for the compiler.
_FEW = 8
#: The variables that truth values are made of.
_VARIABLE = re.compile(r"\b(present|absent|sockets|owners|src_owner|dst_owner|kind|what|carries|len)\b")


def _together(parts: list[str], operator: str) -> str:
    """C that joins ``parts``, one after the other where there are many: the compiler would have all of them
    at once on a stack that has no room for them."""
    if len(parts) <= _FEW:
        return f" {operator} ".join(parts)
    steps = "".join(
        "".join(f" filter_then(joined, {word});" for word in sorted(set(_VARIABLE.findall(part))))
        + f" joined {operator}= {part};"
        for part in parts[1:]
    )
    return f"({{ u64 joined = {parts[0]};{steps} joined; }})"


def _c(truth: _Truth) -> str:
    return f"({truth.word}) >> {truth.number} & 1" if isinstance(truth, Bit) else truth
