"""Who: the processes at both ends, their namespaces and cgroups, however they came by their sockets."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from actors import Actor
from live import Live

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, Flag, Record

pytestmark = pytest.mark.thorough

CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Story:
    """What was captured, and who did it."""

    records: list[Record] = field(default_factory=list)
    actors: dict[str, Actor] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    blocks: list[tuple[int, bytes]] = field(default_factory=list)

    def said(self, payload: bytes) -> Record:
        (found,) = [r for r in self.records if r.event == Event.DATA and r.payload == payload]
        return found

    def check(self, payload: bytes, src: str, dst: str) -> Record:
        """Asserts who said ``payload`` to whom."""
        r, one, other = self.said(payload), self.actors[src], self.actors[dst]
        assert (r.src_pid, r.src_comm) == (one.pid, one.comm)
        assert (r.dst_pid, r.dst_comm) == (other.pid, other.comm)
        return r


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """One capture of them all."""
    told = Story()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.callback(_remove_cgroups)

        def actor(name: str, *prefix: str, fds: tuple[int, ...] = ()) -> Actor:
            told.actors[name] = stack.enter_context(Actor(name, *prefix, pass_fds=fds))
            return told.actors[name]

        (CGROUPS / "unixsock-before").mkdir(exist_ok=True)
        already = _conversation_that_goes_on(actor, folder)
        live = stack.enter_context(Live())
        already()
        _workers(actor, folder)
        _passed_connection(actor, folder)
        _activation(actor, folder)
        _exec(actor, folder)
        _threads(told, actor)
        _heirs(actor)
        _containers(told, actor, folder)
        _cgroup(actor)
        live.stop()
        assert (live.status, live.messages) == (0, "")
        told.records, told.blocks = live.records, live.blocks
        yield told


def _remove_cgroups() -> None:
    for group in ("unixsock-test/inner", "unixsock-test", "unixsock-before"):
        with contextlib.suppress(OSError):
            (CGROUPS / group).rmdir()


LISTEN = "s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen()"
CONNECT = "s = socket.socket(socket.AF_UNIX); s.connect({path!r})"


def _conversation_that_goes_on(actor, folder):  # type: ignore[no-untyped-def]
    """Both ends are open, and used, before the capture begins."""
    server, client = actor("old-server"), actor("old-client")
    path = str(folder / "old")
    server.do(LISTEN.format(path=path))
    client.do(CONNECT.format(path=path))
    server.do("c, _ = s.accept()")
    server.do(f"open('{CGROUPS}/unixsock-before/cgroup.procs', 'w').write(str(os.getpid()))")

    def go_on() -> None:
        server.do("c.send(b'in the middle')")
        client.do("s.recv(100); s.send(b'goes on')")

    return go_on


def _workers(actor, folder) -> None:  # type: ignore[no-untyped-def]
    """A master listens; its workers accept.  One client talks before anybody has accepted."""
    master, client = actor("master"), actor("client")
    path = str(folder / "prefork")
    master.do(LISTEN.format(path=path))
    client.do(CONNECT.format(path=path) + "; s.send(b'before accept')")
    # The worker is a child: it shares the listener, and lives as long as it has work.
    master.do(
        "import os\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    open('/proc/self/comm', 'w').write('worker')\n"
        "    c, _ = s.accept()\n"
        "    c.recv(100); c.send(b'from the worker'); c.recv(100); c.recv(100)\n"
        "    os._exit(0)\n"
        "answer = pid"
    )
    client.do("s.recv(100); s.send(b'to the worker'); s.send(b'and again'); s.close()")
    master.do("os.wait()")


def _passed_connection(actor, folder) -> None:  # type: ignore[no-untyped-def]
    """An accepted connection goes to another process, which goes on with it."""
    front, back, client = actor("front"), actor("back"), actor("front-client")
    path, handover = str(folder / "front"), str(folder / "handover")
    front.do(LISTEN.format(path=path))
    back.do(LISTEN.format(path=handover))
    client.do(CONNECT.format(path=path))
    front.do("c, _ = s.accept()")
    client.do("s.send(b'to the front')")
    front.do("c.recv(100)")
    front.do(f"h = socket.socket(socket.AF_UNIX); h.connect({handover!r})")
    front.do("socket.send_fds(h, [b'take it'], [c.fileno()]); c.close()")
    back.do("h, _ = s.accept(); fds = socket.recv_fds(h, 100, 1)[1]; c = socket.socket(fileno=fds[0])")
    back.do("c.send(b'from the back')")
    client.do("s.recv(100); s.send(b'to the back')")


def _activation(actor, folder) -> None:  # type: ignore[no-untyped-def]
    """A manager listens, and starts the service with the listener as descriptor 3."""
    manager, client = actor("manager"), actor("activator")
    path = str(folder / "activated")
    manager.do(LISTEN.format(path=path))
    client.do(CONNECT.format(path=path) + "; s.send(b'wake up')")
    service = (
        "import os, socket; open('/proc/self/comm', 'w').write('service');"
        "s = socket.socket(fileno=3); c, _ = s.accept(); c.recv(100);"
        "c.send(b'here I am %d' % os.getpid()); c.recv(100); c.recv(100)"
    )
    manager.do(
        "import subprocess, sys\n"
        "os.dup2(s.fileno(), 3, inheritable=True)\n"
        f"service = subprocess.Popen([sys.executable, '-c', {service!r}], pass_fds=[3],"
        " env=os.environ | {'LISTEN_FDS': '1'})"
    )
    client.do("s.recv(100); s.send(b'well done'); s.close()")
    manager.do("service.wait()")


def _exec(actor, folder) -> None:  # type: ignore[no-untyped-def]
    changing, server = actor("changing"), actor("unchanging")
    server.do(LISTEN.format(path=str(folder / "exec")))
    changing.do(CONNECT.format(path=str(folder / "exec")) + "; s.send(b'before exec')")
    changing.do("os.dup2(s.fileno(), 5, inheritable=True)")
    changing.become("os.execv('/bin/sh', ['sh', '-c', 'printf %s after-exec >&5'])")


def _threads(told: Story, actor) -> None:  # type: ignore[no-untyped-def]
    threaded = actor("threaded")
    threaded.do("a, b = socket.socketpair()")
    told.facts["tid"] = int(
        threaded.do(
            "def talk():\n"
            "    global answer\n"
            "    open(f'/proc/self/task/{threading.get_native_id()}/comm', 'w').write('a thread')\n"
            "    a.send(b'by a thread'); answer = threading.get_native_id()\n"
            "t = threading.Thread(target=talk); t.start(); t.join()"
        )
    )


#: How a descriptor is read.
READS = {
    "recv": "socket.socket(fileno={fd}).recv(100)",
    "recvmsg": "socket.socket(fileno={fd}).recvmsg(100)",
    "read": "os.read({fd}, 100)",
    "readv": "os.readv({fd}, [bytearray(100)])",
}
#: By the type of the socket; only streams can be spliced from.
TYPES = {
    "stream": READS
    | {"splice": "import ctypes; r, w = os.pipe(); ctypes.CDLL(None).splice({fd}, None, w, None, 100, 0)"},
    "dgram": READS,
    "seqpacket": READS,
}


def _heirs(actor) -> None:  # type: ignore[no-untyped-def]
    """Each gets an end of a pair, and does nothing with it but to read once."""
    for kind, reads in TYPES.items():
        for name, read in reads.items():
            ours, theirs = socket.socketpair(socket.AF_UNIX, getattr(socket, f"SOCK_{kind.upper()}"))
            with ours, theirs:
                heir = actor(f"{kind[:7]}-{name}", fds=(theirs.fileno(),))
                ours.send(b"before " + heir.comm)
                heir.do(read.format(fd=theirs.fileno()))
                ours.send(b"after " + heir.comm)


def _containers(told: Story, actor, folder) -> None:  # type: ignore[no-untyped-def]
    """The same path, twice: each in a container of its own, with its own processes and network."""
    for number in ("1", "2"):
        container = actor(f"container{number}", "unshare", "--mount", "--net", "--pid", "--fork")
        told.facts[f"netns{number}"] = int(container.do("answer = os.stat('/proc/self/ns/net').st_ino"))
        told.facts[f"pid{number}"] = int(container.do("answer = os.getpid()"))
        container.do(
            f"import ctypes; ctypes.CDLL(None).mount(b'x', {str(folder).encode()!r}, b'tmpfs', 0, 0)"
        )
        container.do(LISTEN.format(path=str(folder / "same")) + "; l = s")
        container.do(CONNECT.format(path=str(folder / "same")) + "; c, _ = l.accept()")
        container.do(f"s.send(b'in container {number}'); c.recv(100)")


def _cgroup(actor) -> None:  # type: ignore[no-untyped-def]
    """A cgroup that is made while the capture runs; the process moves while it talks."""
    mover = actor("mover")
    mover.do("a, b = socket.socketpair(); a.send(b'before the move'); b.recv(100)")
    (CGROUPS / "unixsock-test" / "inner").mkdir(parents=True)
    mover.do(f"open('{CGROUPS}/unixsock-test/inner/cgroup.procs', 'w').write(str(os.getpid()))")
    mover.do("a.send(b'after the move'); b.recv(100)")


def test_a_conversation_from_before_names_both_ends_at_once(story: Story) -> None:
    story.check(b"in the middle", "old-server", "old-client")
    story.check(b"goes on", "old-client", "old-server")


def test_before_accept_it_is_who_listened_and_marked_as_a_guess(story: Story) -> None:
    assert story.check(b"before accept", "client", "master").flags & Flag.DST_GUESSED


def test_a_worker_rather_than_its_master(story: Story) -> None:
    r = story.said(b"from the worker")
    assert r.src_comm == b"worker"
    assert r.src_pid not in (story.actors["master"].pid, 0)
    for payload in (b"to the worker", b"and again"):
        answer = story.said(payload)
        assert (answer.dst_pid, answer.dst_comm) == (r.src_pid, b"worker")
        assert not answer.flags & Flag.DST_GUESSED


def test_a_process_that_got_a_connection_passed_has_it(story: Story) -> None:
    story.check(b"to the front", "front-client", "front")
    story.check(b"from the back", "back", "front-client")
    story.check(b"to the back", "front-client", "back")


def test_an_activated_service_rather_than_its_manager(story: Story) -> None:
    story.check(b"wake up", "activator", "manager")
    (r,) = [r for r in story.records if r.payload.startswith(b"here I am ")]
    assert r.payload == b"here I am %d" % r.src_pid
    assert r.src_comm == b"service"
    answer = story.said(b"well done")
    assert (answer.dst_pid, answer.dst_comm) == (r.src_pid, b"service")


def test_exec_changes_the_command_and_keeps_the_process(story: Story) -> None:
    assert story.said(b"before exec").src_comm == b"changing"
    r = story.said(b"after-exec")
    assert (r.src_pid, r.src_comm) == (story.actors["changing"].pid, b"sh")


def test_a_thread_counts_as_its_process(story: Story) -> None:
    r = story.said(b"by a thread")
    assert (r.src_pid, r.src_tid) == (story.actors["threaded"].pid, story.facts["tid"])
    assert r.src_comm == b"threaded"


@pytest.mark.parametrize("name", [f"{kind[:7]}-{name}" for kind, reads in TYPES.items() for name in reads])
def test_a_reader_has_it_however_it_reads(story: Story, name: str) -> None:
    heir = story.actors[name]
    assert story.said(b"before " + heir.comm).dst_pid != heir.pid
    r = story.said(b"after " + heir.comm)
    assert (r.dst_pid, r.dst_comm) == (heir.pid, heir.comm)


def test_containers_have_host_pids_and_stay_apart(story: Story) -> None:
    first, second = story.said(b"in container 1"), story.said(b"in container 2")
    for number, r in (("1", first), ("2", second)):
        container = story.actors[f"container{number}"]
        assert story.facts[f"pid{number}"] == 1
        assert (r.src_pid, r.dst_pid) == (container.pid, container.pid)
        assert r.netns == story.facts[f"netns{number}"]
    assert first.name == second.name
    assert first.netns != second.netns
    assert len({first.src_sock, first.dst_sock, second.src_sock, second.dst_sock}) == 4


def test_each_packet_has_its_sender_as_an_option(story: Story) -> None:
    """epb_processid_threadid, whatever kind of record; none where the sender is not known."""
    packets = [body for kind, body in story.blocks if kind == pcapng.EPB]
    assert len(packets) == len(story.records)
    for body, one in zip(packets, story.records):
        (caplen,) = struct.unpack_from("<I", body, 12)
        ids = struct.pack("<HHIII", pcapng.PROCESS_OPTION, 8, one.src_pid, one.src_tid, 0)
        assert body[20 + caplen + -caplen % 4 :] == (ids if one.src_pid else b"")


def test_the_cgroup_is_recorded(story: Story) -> None:
    own = Path("/proc/self/cgroup").read_bytes().split(b"0::")[1].split(b"\n")[0]
    assert story.said(b"in the middle").cgroup == b"/unixsock-before"
    assert story.said(b"before the move").cgroup == own
    assert story.said(b"after the move").cgroup == b"/unixsock-test/inner"


WIRESHARK = """
import signal, socket, subprocess, sys, threading, time
extcap = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: extcap.terminate())
display, there = socket.socketpair()
while extcap.poll() is None:
    display.send(b"draw a window")
    there.recv(100)
    time.sleep(0.05)
sys.exit(extcap.returncode)
"""


@pytest.mark.parametrize("option", [[], ["--include-capture-processes"]])
def test_what_wireshark_says_itself_is_left_out(option: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        wireshark = Path(folder) / "wireshark"
        wireshark.symlink_to(sys.executable)
        through = [str(wireshark), "-c", WIRESHARK]
        with Live(*option, through=through) as live, Actor("somebody") as somebody:
            somebody.do("a, b = socket.socketpair(); a.send(b'else'); b.recv(100)")
    assert live.status == 0
    said = {r.payload for r in live.records}
    assert b"else" in said
    assert (b"draw a window" in said) == bool(option)
