"""The C of a filter says what the Python says: compiled natively, compared on random names and messages."""

import ctypes
import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter.ast import evaluate
from unixsock_bpf.filter.evaluate import End
from unixsock_bpf.record import Event, Flag, Record, SocketType

#: What bcc provides to a probe, as far as a filter needs it.
STUBS = """
#include <stdint.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
#define BPF_ARRAY(name, type, size) \\
    static type name##_element __attribute__((aligned(8))); \\
    static type *name##_lookup(u32 *key) { return &name##_element; } \\
    static struct { type *(*lookup)(u32 *); } name = { name##_lookup }; \\
    void *tables_address(void) { return &name##_element; } \\
    u64 tables_size(void) { return sizeof(name##_element); }
"""

EXPORTS = """
static struct filter_work work;
static u64 no_cgroups[FILTER_CGROUP_LEVELS];
u64 name_atoms(const u8 *n, u32 l) { return filter_name_atoms(n, l, &work); }
u64 socket_atoms(u64 i, u32 n) { return filter_socket_atoms(i, n); }
u64 owner_atoms(u32 t, u32 u, const u8 *c) { return filter_owner_atoms(t, u, c, no_cgroups, &work); }
u32 sockets(u64 s, u64 d, u32 t, u32 sf, u32 df) { return filter_sockets(s, d, t, sf, df); }
u32 message(u64 s, u64 so, u64 d, u64 d_o, u32 t, u32 e, u32 l, u32 f, u32 c)
{ return filter_message(s, so, d, d_o, t, e, l, f, c); }
"""

RESULTS = {"name_atoms": 64, "socket_atoms": 64, "owner_atoms": 64, "sockets": 32, "message": 32}
ARGUMENTS = {
    "name_atoms": "pi",
    "socket_atoms": "qi",
    "owner_atoms": "iip",
    "sockets": "qqiii",
    "message": "qqqqiiiii",
}
C_TYPES = {"p": ctypes.c_char_p, "i": ctypes.c_uint32, "q": ctypes.c_uint64}


class Compiled:
    """A filter's C as a shared library."""

    def __init__(self, text: str, directory: Path) -> None:
        self.filter = capture_filter.parse(text)
        library = directory / "filter.so"
        source = STUBS + self.filter.to_c() + EXPORTS
        command = [
            "gcc",
            "-O1",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-Wno-unused",
            "-Wno-unknown-pragmas",
        ]
        subprocess.run([*command, "-x", "c", "-", "-o", library], input=source.encode(), check=True)
        self.library = ctypes.CDLL(str(library))
        for name, bits in RESULTS.items():
            function = getattr(self.library, name)
            function.restype = ctypes.c_uint64 if bits == 64 else ctypes.c_uint32
            function.argtypes = [C_TYPES[kind] for kind in ARGUMENTS[name]]
        if self.filter.tables:
            address, size = self.library.tables_address, self.library.tables_size
            address.restype, size.restype = ctypes.c_void_p, ctypes.c_uint64
            assert size() == len(self.filter.tables)
            ctypes.memmove(address(), self.filter.tables, len(self.filter.tables))

    def socket_word(self, name: bytes, inode: int, netns: int) -> int:
        word: int = self.library.name_atoms(name.ljust(128, b"\xee"), len(name))
        return word | int(self.library.socket_atoms(inode, netns))

    def owner_word(self, pid: int, uid: int, comm: bytes) -> int:
        return int(self.library.owner_atoms(pid, uid, comm.ljust(16, b"\0")))


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
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(FILTERS[request.param], tmp_path_factory.mktemp("filter"))


@settings(max_examples=150)
@given(src=ENDS, dst=ENDS, message=MESSAGES, owners=st.tuples(st.booleans(), st.booleans()))
def test_c_equals_python(compiled, src, dst, message, owners):
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
        words.append(compiled.socket_word(name, inode, src[2]))
        words.append(compiled.owner_word(pid, uid, comm) if known else 0)
    record.netns = src[2]
    got = compiled.library.message(*words, kind, event, length, fds, creds)
    assert got == compiled.filter.matches(record)


@settings(max_examples=100)
@given(src=ENDS, dst=ENDS, kind=st.sampled_from(SocketType), final=st.tuples(st.booleans(), st.booleans()))
def test_verdict_on_sockets_equals_python_and_never_lies(compiled, src, dst, kind, final):
    """The three-valued verdict is Kleene's, and no message contradicts it."""
    words = [compiled.socket_word(*end[:3]) for end in (src, dst)]
    verdict = compiled.library.sockets(*words, kind, *final)
    ends = [End(name=end[0], inode=end[1], netns=end[2]) for end in (src, dst)]
    judged = _judge(compiled.filter, ends, kind, all(final))
    assert verdict == {False: 0, True: 1, None: 2}[judged]
    if verdict != 2:
        for event, length, fds in itertools.product((0, 4), (0, 7, 2**32 - 1), (0, 1)):
            for owner in (0, 2**64 - 1, 0x5555555555555555):
                got = compiled.library.message(words[0], owner, words[1], 0, kind, event, length, fds, 1)
                assert got == verdict


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
