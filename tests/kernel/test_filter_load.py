"""The verifier of a real kernel takes what filters compile to, and the kernel then judges as Python does.

Runs as root in the guest.  A small program on the entry of getpgid(2) calls the
generated functions on arguments from a map, so each test drives them from here.
"""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unixsock_bpf import filter as capture_filter
from unixsock_bpf.filter.ast import Term
from unixsock_bpf.linux import cgroups
from unixsock_bpf.linux.cgroups import cgroup_of
from unixsock_bpf.probe import compiler
from unixsock_bpf.record import Record, display_name

HEADERS = Path(capture_filter.__file__).parent.parent / "probe" / "kernel"

PROGRAM = """
struct input { u8 name[128]; u8 comm[16]; u64 inode; u32 len, netns, pid, uid, type, event, size, fds;
    u64 cgroups[FILTER_CGROUP_LEVELS]; };
struct output { u64 socket, owner; u32 sockets, message, runs; };
BPF_ARRAY(inputs, struct input, 1);
BPF_ARRAY(outputs, struct output, 1);
struct memory { struct filter_work work; };
BPF_ARRAY(memories, struct memory, 1);
int run(void *ctx)
{
    u32 zero = 0;
    struct input *in = inputs.lookup(&zero);
    struct output *out = outputs.lookup(&zero);
    struct memory *memory = memories.lookup(&zero);
    if (!in || !out || !memory || bpf_get_current_pid_tgid() >> 32 != DRIVER)
        return 0;
    out->socket = filter_name_atoms(in->name, in->len, &memory->work);
    out->socket |= filter_socket_atoms(in->inode, in->netns);
    out->owner = filter_owner_atoms(in->pid, in->uid, in->comm, in->cgroups, &memory->work);
    out->sockets = filter_sockets(out->socket, 0, in->type, 1, 1);
    out->message = filter_message(out->socket, out->owner, 0, 0, in->type, in->event, in->size, in->fds, 0);
    out->runs++;
    return 0;
}
"""


class Input(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 128),
        ("comm", ctypes.c_char * 16),
        ("inode", ctypes.c_uint64),
        *(
            (field, ctypes.c_uint32)
            for field in ("len", "netns", "pid", "uid", "type", "event", "size", "fds")
        ),
        ("cgroups", ctypes.c_uint64 * 16),
    )


class Loaded:
    """A filter in the kernel."""

    def __init__(self, text):
        os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
        import bcc

        self.filter = capture_filter.parse(text)
        source = compiler.source("bcc.h") + self.filter.to_c() + PROGRAM
        flags = [f"-DDRIVER={os.getpid()}", *compiler.FLAGS]
        started = time.monotonic()
        self.bpf = bcc.BPF(text=source.encode(), cflags=flags)
        loaded = self.bpf.load_func(b"run", bcc.BPF.KPROBE)
        self.seconds = time.monotonic() - started
        if self.filter.tables:
            table = self.bpf[b"filter_tables"]
            leaf = table.Leaf()
            assert ctypes.sizeof(leaf) == len(self.filter.tables)
            ctypes.memmove(ctypes.addressof(leaf), self.filter.tables, ctypes.sizeof(leaf))
            table[ctypes.c_int(0)] = leaf
        assert loaded.fd > 0
        self.bpf.attach_kprobe(event=self.bpf.get_syscall_fnname(b"getpgid"), fn_name=b"run")

    def judge(self, record):
        """(verdict on sockets, on the message) for a message of ``record``'s sender to nobody."""
        shown = display_name(record.src_name)
        given = Input(
            shown,
            record.src_comm,
            record.src_inode,
            len(shown),
            record.netns,
            record.src_pid,
            record.src_uid,
            record.type,
            record.event,
            record.len,
            record.fds_count,
        )
        group = cgroups.groups().get(cgroup_of(os.getpid()))
        if group:
            given.cgroups[: len(group.ids)] = group.ids
        inputs, outputs = self.bpf[b"inputs"], self.bpf[b"outputs"]
        leaf = inputs.Leaf()
        ctypes.memmove(ctypes.addressof(leaf), ctypes.addressof(given), ctypes.sizeof(given))
        inputs[ctypes.c_int(0)] = leaf
        before = outputs[ctypes.c_int(0)].runs
        os.getpgid(0)
        result = outputs[ctypes.c_int(0)]
        assert result.runs == before + 1
        return result.sockets, result.message

    def close(self):
        self.bpf.cleanup()


@pytest.fixture
def load():
    loaded = []

    def loader(text):
        loaded.append(Loaded(text))
        return loaded[-1]

    yield loader
    for one in loaded:
        one.close()


def sender(name=b"", comm=b"prog", pid=77, uid=5, inode=9, **fields):
    return Record(
        src_name=name, src_comm=comm, src_pid=pid, src_uid=uid, src_inode=inode, flags=4, type=1, **fields
    )


def agree(loaded, record):
    sockets, message = loaded.judge(record)
    assert message == loaded.filter.matches(record)
    assert sockets in (2, message)
    return message


def test_empty_filter_takes_everything(load):
    assert load("").judge(sender(b"/x")) == (1, 1)


def test_sixty_four_paths(load):
    """Each of 64 globs, with stars in the middle, matches its own name and no other."""
    loaded = load(" or ".join(f"path '/run/user/{n:02}/'*/app-{n:02}-*.sock" for n in range(64)))
    print(f"64 paths: compiled and verified in {loaded.seconds:.2f} s")
    for n in (0, 1, 31, 32, 62, 63):
        assert agree(loaded, sender(b"/run/user/%02d/some/where/app-%02d-x.sock" % (n, n)))
        assert not agree(loaded, sender(b"/run/user/%02d/some/where/app-%02d-x.sock" % (n, (n + 1) % 64)))
    assert not agree(loaded, sender())


def test_the_longest_paths(load):
    """32 names of 108 bytes fill all lanes, which is the most that the verifier can meet."""
    names = [b"/tmp/" + (b"%02d" % n) * 51 + b"x" for n in range(32)]
    loaded = load(" or ".join(f"path {name.decode()}" for name in names))
    print(f"32 longest paths: compiled and verified in {loaded.seconds:.2f} s")
    for name in (names[0], names[20], names[31]):
        assert len(name) == 108
        assert agree(loaded, sender(name))
        assert not agree(loaded, sender(name[:-1]))


def test_sixty_four_owners_and_nesting(load):
    """Terms of all kinds, sides and lengths, under many joins."""
    terms = [
        f"(src pid {n} and path @s{n}* or not (uid {n} or less {n}) and comm c{n}?)" for n in range(1, 21)
    ]
    loaded = load(" or ".join(terms) + " or (event close and fds and netns 3 and not inode 4)")
    print(f"101 terms: compiled and verified in {loaded.seconds:.2f} s")
    found = [
        agree(loaded, sender(name, comm, pid, uid, inode, event=event, len=length, fds_count=fds, netns=3))
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


def test_sixty_four_processes(load):
    loaded = load("not (" + " or ".join(f"pid {n}" for n in range(1, 65)) + ")")
    assert [agree(loaded, sender(pid=pid)) for pid in (1, 32, 64, 65)] == [False, False, False, True]


def test_cgroup_takes_the_whole_subtree(load):
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
        results = [load(f"cgroup {path}").judge(sender())[1] for path in (below, own, mount, other)]
        assert results == [1, 1, 1, 0]
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

Probe(Settings(filter=capture_filter.parse(sys.argv[1]))).detach()
"""


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_the_whole_probe_takes_large_filters(text):
    """Its programs with the filter's behind them: more for the verifier than these alone."""
    started = time.monotonic()
    whole = [sys.executable, "-c", WHOLE, text]
    subprocess.run(whole, check=True, cwd=Path(capture_filter.__file__).parents[2])
    print(f"{len(text)} characters: compiled, loaded and attached in {time.monotonic() - started:.1f} s")


def test_sides_share_one_bit():
    """The 64 terms that are possible are different ones, whatever side they ask for."""
    text = " or ".join(f"src pid {n} or dst pid {n} or pid {n}" for n in range(1, 65))
    assert capture_filter.parse(text)
    assert Term("pid", 1, "src") != Term("pid", 1)
