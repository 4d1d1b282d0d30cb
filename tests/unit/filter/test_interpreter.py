"""The interpreter in C says what the Python says: compiled natively, on random names and messages."""

import ctypes
import itertools
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter import encode
from unixsock_bpf.filter.ast import evaluate
from unixsock_bpf.filter.endpoint import Endpoint
from unixsock_bpf.probe import compiler
from unixsock_bpf.record import Event, Flag, Record, SocketType

#: What the kernel's side provides around the interpreter (bpf/filter/verdict.h).
TYPES = """
#include <stdint.h>
#include <stdbool.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
"""
EXPORTS = """
static u64 filter_more_steps(const struct filter *f, u64 *words, u64 at, u64 context)
{ return filter_steps(f, words, at); }
u64 sizes(u32 which) { return which ? sizeof(struct filter_lane) : sizeof(struct filter); }
static u64 match(const struct filter *f, const struct filter_lane *lanes, u32 which, const u8 *text, u32 len)
{
    u64 atoms = 0;
    for (u32 i = 0; i < f->lanes[which]; i++)
        atoms |= filter_lane_atoms(f, lanes + f->first_lane[which] + i, which, text, len);
    return atoms;
}
u64 names(const struct filter *f, const struct filter_lane *lanes, const u8 *name, u32 len)
{ return f->atoms_of_any_name | match(f, lanes, 0, name, len); }
u64 comms(const struct filter *f, const struct filter_lane *lanes, const u8 *comm, u32 len)
{ return match(f, lanes, 1, comm, len); }
void members(const struct filter *f, const u64 *facts, u64 *atoms)
{
    for (u32 first = 0; first < f->members; first += FILTER_STRIDE)
        filter_add_members(f, first, facts, atoms);
}
u32 verdict(const struct filter *f, const struct filter_question *q)
{ u64 words[WORDS]; return filter_verdict(f, q, words, 0); }
"""

NEVER_WANTED, NOT_WANTED, WANTED, ALWAYS_WANTED = range(4)


class Question(ctypes.Structure):
    """``struct filter_question``."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("src", "src_owner", "dst", "dst_owner")),
        *(
            (name, ctypes.c_uint32)
            for name in ("two_ends", "inodes_known", "type", "event", "len", "fds", "creds", "asks_always")
        ),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("filter") / "filter.so"
    source = TYPES + encode.declarations() + compiler.source("filter/interpreter.h") + EXPORTS
    command = ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unused", "-Wno-unknown-pragmas"]
    subprocess.run([*command, "-x", "c", "-", "-o", path], input=source.encode(), check=True)
    found = ctypes.CDLL(str(path))
    for name in ("sizes", "names", "comms"):
        getattr(found, name).restype = ctypes.c_uint64
    found.members.restype = None
    return found


class Loaded:
    """A filter's data before the interpreter."""

    def __init__(self, library: ctypes.CDLL, text: str) -> None:
        self.library = library
        self.filter = capture_filter.parse(text)
        head, lanes = self.filter.head(False), self.filter.lanes
        assert len(head) == library.sizes(0)
        assert {len(lane) for lane in lanes} <= {library.sizes(1)}
        self._head = ctypes.create_string_buffer(head, len(head))
        self._lanes = ctypes.create_string_buffer(b"".join(lanes), sum(map(len, lanes)) or 1)

    def _members(self, **known: int) -> list[int]:
        facts = (ctypes.c_uint64 * 32)()
        for name, value in known.items():
            facts[encode.FIRST_FACTS[name]] = value
        atoms = (ctypes.c_uint64 * 2)()
        self.library.members(self._head, facts, atoms)
        return list(atoms)

    def socket_word(self, name: bytes, inode: int, netns: int) -> int:
        word: int = self.library.names(self._head, self._lanes, name.ljust(128, b"\xee"), len(name))
        return word | self._members(inode=inode, netns=netns)[0]

    def owner_word(self, pid: int, uid: int, comm: bytes) -> int:
        word: int = self.library.comms(self._head, self._lanes, comm.ljust(128, b"\0"), 16)
        return word | self._members(pid=pid, uid=uid)[1]

    def verdict(self, *question: int) -> int:
        return int(self.library.verdict(self._head, ctypes.byref(Question(*question))))


PATHS = [
    "*",
    "/run/a",
    "/run/a*",
    "*b",
    "@*",
    "@a?",
    "/[ab]*/?c",
    "*[!a]",
    "/run/*/*/x",
    "*é?",
    "[]x]*",
    "/run/['*']",
]
FILTERS = [
    "",
    *(f"path {path}" for path in PATHS),
    " or ".join(f"path {path}" for path in PATHS),
    "path /run/a" + "b" * 101,
    "path */run/a" + "?" * 99 + "*b",
    "path /xxxxxxxxxxxxxxxxxxx or path /run/abb*bbbb" + "b" * 40,
    "(path /run/a* or src pid 1 and not dst uid 0) and not (comm a* or type dgram)",
    "not (less 5 or greater 9) or fds and not creds or event close",
    "src comm ?b or dst comm [!a]* or comm *c*c* and inode 3 and not netns 4",
    "not not pid 2 and (pid 1 or pid 2 or src pid 1) and not type stream",
    "less 4294967295 and greater 0 and not greater 4294967295",
    "not (greater 0 and less 5) or not less 4294967295",
    "pid 1 and pid 2 or not (uid 3 or uid 4) and (fds or less 3) or not type stream and not type dgram",
    # More than a word has bits, so that terms are joined into sets; and more than one stride of each.
    " or ".join(f"pid {n}" for n in range(2, 200))
    + " and not ("
    + " or ".join(f"inode {n}" for n in range(99)[2:])
    + ")",
    "not (" + " or ".join(f"path /run/a{n}" for n in range(65)) + " or path /run/ab)",
    "type stream and (" + " or ".join(f"(src uid {n % 9} and greater {n})" for n in range(120)) + ") or fds",
]

NAMES = st.one_of(
    st.sampled_from(
        [b"", b"/run/a", b"/run/ab", b"\0a", b"\0ab", b"/a/bc", b"/run/a/b/x", "/é/é".encode(), b"]x"]
    ),
    st.text("/runabcx@*]\0é", max_size=50).map(str.encode),
    st.binary(max_size=108),
    st.sampled_from([b"/run/a", b"a", b"\0"]).map(lambda start: start.ljust(108, b"b")),
)
COMMS = st.text("abc é", max_size=7).map(str.encode).filter(bool)
ENDS = st.tuples(NAMES, st.integers(1, 4), st.integers(3, 4), st.integers(1, 3), st.integers(0, 1), COMMS)
MESSAGES = st.tuples(
    st.sampled_from(SocketType),
    st.sampled_from(Event),
    st.integers(0, 12) | st.just(2**32 - 1),
    st.booleans(),
    st.booleans(),
)


@pytest.fixture(scope="module", params=range(len(FILTERS)), ids=lambda n: FILTERS[n][:40] or "empty")
def loaded(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Loaded:
    return Loaded(library, FILTERS[request.param])


@settings(max_examples=150)
@given(src=ENDS, dst=ENDS, message=MESSAGES, owners=st.tuples(st.booleans(), st.booleans()))
def test_c_equals_python(loaded, src, dst, message, owners):
    kind, event, length, fds, creds = message
    record = Record(type=kind, event=event, len=length, fds_count=fds, creds=(1, 2, 3) if creds else None)
    words = []
    for side, (name, inode, _netns, pid, uid, comm), known in zip(
        ("src", "dst"), (src, dst), owners, strict=True
    ):
        setattr(record, f"{side}_name", name)
        setattr(record, f"{side}_inode", inode)
        if known:
            setattr(record, f"{side}_pid", pid)
            setattr(record, f"{side}_uid", uid)
            setattr(record, f"{side}_comm", comm)
            record.flags |= getattr(Flag, f"{side.upper()}_CREDS")
        words.append(loaded.socket_word(name, inode, src[2]))
        words.append(loaded.owner_word(pid, uid, comm) if known else 0)
    record.netns = src[2]
    got = loaded.verdict(*words, 1, 1, kind, event, length, fds, creds)
    assert (got == WANTED) == loaded.filter.matches(record)


@settings(max_examples=100)
@given(src=ENDS, dst=ENDS, kind=st.sampled_from(SocketType), final=st.tuples(st.booleans(), st.booleans()))
def test_verdict_on_sockets_equals_python_and_never_lies(loaded, src, dst, kind, final):
    """The three-valued verdict is Kleene's, and no message contradicts it."""
    words = [loaded.socket_word(*one[:3]) for one in (src, dst)]
    endpoints = [Endpoint(name=one[0], inode=one[1], netns=one[2]) for one in (src, dst)]
    judged = _judge(loaded.filter, endpoints, kind, all(final) or "inode" not in loaded.filter.text)
    messages = [
        (words[0], owner, words[1], 0, 1, all(final), kind, event, length, fds, 1)
        for event, length, fds in itertools.product((0, 4), (0, 7, 2**32 - 1), (0, 1))
        for owner in (0, 2**64 - 1, 0x5555555555555555)
    ]
    for message in messages:
        expected = {False: {NEVER_WANTED}, True: {WANTED}, None: {NOT_WANTED, WANTED}}[judged]
        assert loaded.verdict(*message) in expected
        # An inode that comes late leaves it open.
        always = ALWAYS_WANTED if all(final) or "inode" not in loaded.filter.text else WANTED
        expected = {False: {NEVER_WANTED}, True: {always}, None: {NOT_WANTED, WANTED}}[judged]
        assert loaded.verdict(*message, 1) in expected


def _judge(filter_, ends, kind, final):
    """What can be said from names, inodes, namespaces and the type alone."""
    about_sockets = ("path", "inode", "netns")

    def decide(term):
        if term.name == "type":
            return term.value == kind
        if term.name not in about_sockets:
            return None
        alone = capture_filter.Filter("", term)
        return alone.judge(*ends, kind) or (False if final else None)

    return evaluate(filter_.root, decide)
