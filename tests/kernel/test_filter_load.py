"""The verifier of a real kernel takes the interpreter, which then judges sockets and messages as Python does.

Runs as root in the guest.  The program under test is `wanted` of bpf/filter/verdict.h behind a driver
of ours, which BPF_PROG_TEST_RUN runs: two endpoints and a message come from maps, and so does the filter.
"""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter.ast import Term
from unixsock_bpf.linux import cgroups
from unixsock_bpf.linux.cgroups import cgroup_of
from unixsock_bpf.probe import bpf_syscall, bytecode, hook_programs, kernel, maps, program_set
from unixsock_bpf.probe.bytecode import Subprogram
from unixsock_bpf.probe.compiler import compiled, source
from unixsock_bpf.probe.filter_maps import FilterMaps
from unixsock_bpf.probe.maps import Map
from unixsock_bpf.record import Event, Flag, Record, SocketType

#: Addresses of the two socks, and BPF_PROG_TYPE_RAW_TRACEPOINT, which needs nothing to be run on.
SRC, DST = 1, 2
RAW_TRACEPOINT, TEST_RUN = 17, 10

DRIVER = """
struct asked { u32 generation, type, event, len, fds, creds, two_ends, unused; };
struct answer { u32 runs, wanted; };
BPF_ARRAY(asked, struct asked, 1);
BPF_ARRAY(answers, struct answer, 1);
int run(void *ctx)
{
	u32 zero = 0, at = 0;
	u64 src = 1, dst = 2;
	struct asked *q = asked.lookup(&zero);
	struct answer *a = answers.lookup(&zero);
	struct workspace *w = workspaces.lookup(&at);
	struct small_scratch *s = small_scratches.lookup(&zero);
	struct sides sides = {};
	if (!q || !a || !w || !s)
		return 0;
	sides.src = endpoints.lookup(&src);
	if (q->two_ends)
		sides.dst = endpoints.lookup(&dst);
	if (!sides.src)
		return 0;
	copy_user(&w->users[0], &sides.src->users[WRITER]);
	if (sides.dst)
		copy_user(&w->users[1], &sides.dst->users[READER]);
	volatile struct message *m = &s->message;
	volatile struct call *call = &s->call;
	call->sk = src;
	call->other = q->two_ends ? dst : 0;
	m->type = q->type;
	m->event = q->event;
	m->len = q->len;
	a->wanted = wanted(m, &sides, call, q->fds, q->creds, 0, w, at, q->generation);
	a->runs++;
	return 0;
}
"""


class TestRun(ctypes.Structure):
    """The part of union bpf_attr for BPF_PROG_TEST_RUN."""

    __test__ = False
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("prog_fd", "retval", "data_size_in", "data_size_out")),
        *((name, ctypes.c_uint64) for name in ("data_in", "data_out")),
        *((name, ctypes.c_uint32) for name in ("repeat", "duration", "ctx_size_in", "ctx_size_out")),
        *((name, ctypes.c_uint64) for name in ("ctx_in", "ctx_out")),
        *((name, ctypes.c_uint32) for name in ("flags", "cpu", "batch_size")),
    )


class Judge:
    """The interpreter in the kernel."""

    def __init__(self) -> None:
        here = kernel.kernel()
        text, flags = program_set.sources(here.macros, hook_programs.plan(here, "kprobe", False))[0]
        (found,) = compiled([(text + DRIVER, flags)])
        called = {
            int(value, 0): Subprogram(name, found.programs[name], kind == "GLOBAL")
            for kind, name, value in program_set._CALL.findall(source("records.bpf.c"))
            if name in found.programs
        }
        self.maps = {
            name: Map(maps.create(name, shape), shape)
            for name, shape in found.maps.items()
            if name != "endpoints"
        }
        shape = found.maps["endpoints"]
        self.maps["endpoints"] = Map(
            maps.create("endpoints", shape.__class__(**{**vars(shape), "max_entries": 8})), shape
        )
        fds = {name: one.fd for name, one in self.maps.items()}
        self.program = bytecode.load("run", RAW_TRACEPOINT, found.programs["run"].calling(called), fds)
        self._filters = FilterMaps(self.maps["filters"], self.maps["filter_lanes"])
        self.generation = 0
        self.filter = capture_filter.everything()

    def load(self, text: str) -> Judge:
        """Goes over to another filter."""
        self.filter = capture_filter.parse(text)
        self.generation += 1
        self._filters.fill(self.generation, self.filter, False)
        return self

    def wants(self, record: Record, groups: tuple[int, ...] = ()) -> bool:
        """Whether it takes a message, between sockets that it has not seen."""
        cgroup = 0
        if groups:
            cgroup = groups[-1]
            table = self.maps["cgroups"]
            line = table.Leaf(known=1)
            line.ids[: len(groups)] = groups
            table[table.Key(cgroup)] = line
        self._put(SRC, record, "src", cgroup)
        self._put(DST, record, "dst", 0)
        asked, answers = self.maps["asked"], self.maps["answers"]
        carried = (bool(record.fds_count), record.creds is not None)
        asked[asked.Key(0)] = asked.Leaf(self.generation, record.type, record.event, record.len, *carried, 1)
        before = answers[answers.Key(0)].runs
        bpf_syscall._bpf(TEST_RUN, TestRun(prog_fd=self.program))
        answer = answers[answers.Key(0)]
        assert answer.runs == before + 1
        return bool(answer.wanted)

    def _put(self, sk: int, record: Record, side: str, cgroup: int) -> None:
        table = self.maps["endpoints"]
        leaf: Any = table.Leaf()
        name, comm = getattr(record, f"{side}_name"), getattr(record, f"{side}_comm")
        leaf.inode, leaf.netns = getattr(record, f"{side}_inode"), record.netns
        leaf.named, leaf.name_len = bool(name), len(name)
        leaf.name[: len(name)] = name
        known = record.flags & (Flag.SRC_CREDS if side == "src" else Flag.DST_CREDS)
        for user in leaf.users:
            user.comm_len, user.cgroup = len(comm), cgroup
            user.comm[: len(comm)] = comm
            user.pid, user.uid = getattr(record, f"{side}_pid"), getattr(record, f"{side}_uid")
            user.owner = 2 * bool(known)
        leaf.type = record.type
        # What the generation before said of the sockets does not hold.
        table[table.Key(sk)] = leaf


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    started = time.monotonic()
    made = Judge()
    print(f"compiled and verified in {time.monotonic() - started:.2f} s")
    yield made
    os.close(made.program)
    for one in made.maps.values():
        os.close(one.fd)


def sender(
    name: bytes = b"", comm: bytes = b"prog", pid: int = 77, uid: int = 5, inode: int = 9, **fields: Any
) -> Record:
    return Record(
        src_name=name,
        src_comm=comm,
        src_pid=pid,
        src_uid=uid,
        src_inode=inode,
        flags=Flag.SRC_CREDS,
        type=SocketType.STREAM,
        **fields,
    )


def agree(judge: Judge, record: Record) -> bool:
    wants = judge.wants(record)
    assert wants == judge.filter.matches(record)
    return wants


def test_empty_filter_takes_everything(judge: Judge) -> None:
    assert judge.load("").wants(sender(b"/x"))


def test_sixty_four_paths(judge: Judge) -> None:
    """Each of 64 globs, with stars in the middle, matches its own name and no other."""
    judge.load(" or ".join(f"path '/run/user/{n:02}/'*/app-{n:02}-*.sock" for n in range(64)))
    for n in (0, 1, 31, 32, 62, 63):
        assert agree(judge, sender(b"/run/user/%02d/some/where/app-%02d-x.sock" % (n, n)))
        assert not agree(judge, sender(b"/run/user/%02d/some/where/app-%02d-x.sock" % (n, (n + 1) % 64)))
    assert not agree(judge, sender())


def test_the_longest_paths(judge: Judge) -> None:
    """64 names of 108 bytes fill all lanes."""
    names = [b"/tmp/" + (b"%02d" % n) * 51 + b"x" for n in range(64)]
    judge.load(" or ".join(f"path {name.decode()}" for name in names))
    for name in (names[0], names[20], names[63]):
        assert len(name) == 108
        assert agree(judge, sender(name))
        assert not agree(judge, sender(name[:-1]))


def test_sixty_four_owners_and_nesting(judge: Judge) -> None:
    """Terms of all kinds, sides and lengths, under many joins."""
    terms = [
        f"(src pid {n} and path @s{n}* or not (uid {n} or less {n}) and comm c{n}?)" for n in range(1, 21)
    ]
    judge.load(" or ".join(terms) + " or (event close and fds and netns 3 and not inode 4)")
    found = [
        agree(judge, sender(name, comm, pid, uid, inode, event=event, len=length, fds_count=fds, netns=3))
        for name, comm, pid, uid, inode, event, length, fds in (
            (b"\0s7\0tail", b"x", 7, 1, 1, 0, 0, 0),
            (b"\0s8\0tail", b"x", 7, 1, 1, 0, 0, 0),
            (b"", b"c9z", 70, 1, 1, 0, 10, 0),
            (b"", b"c9z", 70, 1, 1, 0, 9, 0),
            (b"", b"c9z", 70, 9, 1, 0, 10, 0),
            (b"", b"x", 70, 1, 1, 4, 0, 1),
            (b"", b"x", 70, 1, 4, 4, 0, 1),
        )
    ]
    assert found == [True, False, True, False, False, True, False]


def test_as_many_processes_as_a_filter_has_terms(judge: Judge) -> None:
    judge.load("not (" + " or ".join(f"pid {n}" for n in range(1, 513)) + ")")
    assert [agree(judge, sender(pid=pid)) for pid in (1, 64, 65, 512, 513)] == [False] * 4 + [True]


def test_as_many_steps_as_a_filter_has_terms(judge: Judge) -> None:
    """Nothing of it can be tested together, so that the program has a step for each."""
    judge.load(" or ".join(f"(src uid {n % 9} and greater {n})" for n in range(1, 257)))
    assert [agree(judge, sender(uid=uid, len=n)) for uid, n in ((8, 7), (8, 8), (4, 255), (9, 999))] == [
        False,
        True,
        True,
        False,
    ]


WORDS = (
    *("path /run/*", "path @a?b*", "path /[ab]*/?c", "path *", "path '*é?'", "inode 3", "netns 4", "pid 1"),
    *("src pid 2", "dst pid 2", "uid 0", "src uid 1", "comm a*", "dst comm *b", "type stream", "type dgram"),
    *("fds", "creds", "less 4", "greater 4", "event data", "event close", "greater 0", "less 4294967295"),
)
NAMES = (
    b"",
    b"/run/x",
    b"/run/",
    b"\0axb",
    b"\0a\0b\0",
    "/a/éc".encode(),
    b"x",
    "/é/é".encode(),
    b"/" + b"b" * 107,
)


def some_filter(chance: random.Random, depth: int = 4) -> str:
    kind = chance.choice(("term", "not", "and", "or")) if depth else "term"
    if kind == "term":
        return chance.choice(WORDS)
    if kind == "not":
        return f"not ({some_filter(chance, depth - 1)})"
    return f" {kind} ".join(f"({some_filter(chance, depth - 1)})" for _ in range(chance.randint(2, 5)))


def some_message(chance: random.Random) -> Record:
    record = Record(
        type=chance.choice(list(SocketType)),
        event=chance.choice((Event.DATA, Event.CLOSE)),
        len=chance.choice((0, 3, 4, 5, 2**32 - 1)),
        netns=chance.choice((3, 4)),
        fds_count=chance.choice((0, 2)),
        creds=chance.choice((None, (1, 2, 3))),
    )
    for side, flag in (("src", Flag.SRC_CREDS), ("dst", Flag.DST_CREDS)):
        setattr(record, f"{side}_name", chance.choice(NAMES))
        setattr(record, f"{side}_inode", chance.choice((2, 3)))
        if chance.random() < 0.8:
            record.flags |= flag
            setattr(record, f"{side}_pid", chance.randint(1, 3))
            setattr(record, f"{side}_uid", chance.randint(0, 2))
            setattr(record, f"{side}_comm", chance.choice((b"a", b"b", b"ab", b"x" * 15)))
    return record


@pytest.mark.parametrize("seed", range(10))
def test_random_filters_judge_random_messages_as_python_does(judge: Judge, seed: int) -> None:
    chance = random.Random(seed)
    taken = 0
    for _ in range(10):
        judge.load(some_filter(chance))
        for _ in range(30):
            taken += agree(judge, some_message(chance))
    assert 0 < taken < 300


def test_cgroup_takes_the_whole_subtree(judge: Judge) -> None:
    """Terms for this process' cgroup, for the root above it, and for another one."""
    mount = cgroups.mount_point()
    if mount is None:
        mount = "/sys/fs/cgroup"
        os.system(f"mount -t cgroup2 none {mount}")
    own, below, other = (Path(mount, "unixsock-test", *more) for more in ((), ("below",), ("other",)))
    below.mkdir(parents=True)
    other.mkdir()
    home = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip()
    try:
        (below / "cgroup.procs").write_text(str(os.getpid()))
        ids = cgroups.groups()[cgroup_of(os.getpid())].ids
        results = [judge.load(f"cgroup {path}").wants(sender(), ids) for path in (below, own, mount, other)]
        assert results == [True, True, True, False]
    finally:
        Path(mount, home.lstrip("/"), "cgroup.procs").write_text(str(os.getpid()))
        for path in (below, other, own):
            path.rmdir()


LARGE = {
    "longest paths and comms": " or ".join(
        f"comm {n:02}*abcdefghijk??" + (f" and not path /tmp/{f'{n:02}' * 51}x" if n < 32 else "")
        for n in range(64)
    ),
    "terms of all kinds": " or ".join(
        f"(src pid {n} and path @s{n}* or not (uid {n} or less {n} or netns {n}) and inode {n})"
        for n in range(1, 21)
    ),
}


#: In a process of its own, whose end frees all.
WHOLE = """
import sys
from unixsock_bpf import filter as capture_filter
from unixsock_bpf.options import Settings
from unixsock_bpf.probe.probe import Probe

Probe(Settings(filter=capture_filter.parse(sys.argv[1]))).close()
"""


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_the_whole_probe_takes_large_filters(text: str) -> None:
    started = time.monotonic()
    whole = [sys.executable, "-c", WHOLE, text]
    subprocess.run(whole, check=True, cwd=Path(capture_filter.__file__).parents[2])
    print(f"{len(text)} characters: compiled, loaded and attached in {time.monotonic() - started:.1f} s")


def test_sides_share_one_bit() -> None:
    """The 64 terms that are possible are different ones, whatever side they ask for."""
    text = " and ".join(f"(src pid {n} or dst pid {n} or pid {n})" for n in range(1, 65))
    assert capture_filter.parse(text)
    assert Term("pid", 1, "src") != Term("pid", 1)
