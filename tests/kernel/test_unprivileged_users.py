"""Unprivileged users capture through the privileged helper, and get no more from it than a capture."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import system
from leftovers import SOON, programs
from live import EXTCAP, READY_TIMEOUT, Live
from patience import soon
from system import MEMBER, STRANGER, as_user, run

from unixsock_bpf.formats import pcapng
from unixsock_bpf.linux import sandbox
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege import policy
from unixsock_bpf.privilege.launch import GROUP, HELPER, LIBRARY
from unixsock_bpf.privilege.protocol import MAX_REQUEST, Request, encode_request
from unixsock_bpf.probe import cache
from unixsock_bpf.probe.hook_table import HOOKS, Purpose
from unixsock_bpf.probe.kernel import kernel
from unixsock_bpf.record import Event

pytestmark = pytest.mark.thorough

SUDO = ["sudo", "-n", "--", str(HELPER)]


@pytest.fixture(scope="module", autouse=True)
def _system() -> Iterator[None]:
    with system.installed():
        yield


class LiveAs(Live):
    """The extcap run by an unprivileged user."""

    def __init__(self, user: str, *options: str, **more: object) -> None:
        super().__init__(*options, **more)
        self._command = [*as_user(user), *self._command]
        self._folder.chmod(0o755)

    def __enter__(self) -> LiveAs:
        before = os.umask(0)
        try:
            super().__enter__()
        finally:
            os.umask(before)
        return self


def privileged() -> list[int]:
    """The processes of the privileged helper, sudo's not among them."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(HELPER).encode() in words and b"python" in words[0]:
                found.append(int(process.name))
    return found


def status(pid: int | str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def wait_until(true: object, seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone() -> bool:
    return not privileged() and programs() == 0


def test_all_arrives_once_in_order_and_root_is_given_up() -> None:
    uid = int(run("id", "-u", MEMBER).stdout)
    left, right = socket.socketpair()
    with left, right, LiveAs(MEMBER) as live:
        (pid,) = privileged()
        left_to_it = status(pid)
        opened = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        infos = [info.read_text() for info in Path(f"/proc/{pid}/fdinfo").iterdir()]
        threads = [one for one in os.listdir(f"/proc/{pid}/task") if int(one) != pid]
        left_to_threads = [status(f"{pid}/task/{one}") for one in threads]
        kept_by_threads = [
            [os.readlink(fd) for fd in Path(f"/proc/{pid}/task/{one}/fd").iterdir()] for one in threads
        ]
        inode = os.fstat(left.fileno()).st_ino
        for n in range(5000):
            left.send(n.to_bytes(4, "little"))
            right.recv(4)
        live.stop(signal.SIGTERM)
    assert (live.status, live.messages) == (0, "")
    ours = [r.payload for r in live.records if r.src_inode == inode and r.event == Event.DATA]
    assert ours == [n.to_bytes(4, "little") for n in range(5000)]
    assert live.blocks[-1][0] == pcapng.ISB
    assert gone()
    kept = {"CapInh": 0, "CapAmb": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0}
    if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (5, 19):
        kept |= {"CapPrm": 1 << sandbox.CAP_BPF, "CapEff": 1 << sandbox.CAP_BPF}
    assert {name: int(left_to_it[name], 16) for name in kept} == kept
    assert left_to_it["Uid"] == f"{uid} {uid} {uid} {uid}"
    assert left_to_it["Groups"] == ""
    assert (left_to_it["NoNewPrivs"], left_to_it["Seccomp"]) == ("1", "2")
    for one in left_to_threads:
        assert {name: int(one[name], 16) for name in kept} == dict.fromkeys(kept, 0)
        assert {name: one[name] for name in ("Uid", "Groups", "NoNewPrivs", "Seccomp")} == {
            "Uid": left_to_it["Uid"], "Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
        }  # fmt: skip
    assert len(threads) > 5
    for kept_by_one in kept_by_threads:  # its hook, which newer kernels have by a link
        assert len(kept_by_one) == 1
        assert "[perf_event]" in kept_by_one[0] or "bpf_link" in kept_by_one[0]
    # The map of the addresses that the probe reads from is read-only for programs, and for everybody.
    (addresses,) = (info for info in infos if "map_flags:\t0x80\n" in info)
    assert "frozen:\t1\n" in addresses
    opened.discard("/proc/uptime")
    assert not [target for target in opened if target.startswith("/proc") or "btf" in target]
    # Of programs, it has those that the kernel may skip, entry and return, to ask how often it did.
    held = sum("prog_jited:" in info for info in infos)
    assert held <= 2 * sum(hook.purpose is Purpose.MESSAGE for hook in HOOKS)
    assert held == 0 or kernel().preemptible or kernel().has_sessions


@pytest.mark.parametrize("command", [["tshark", "-i", "unixsock", "-T", "json"], ["unixsock", "dump"]])
def test_from_a_fresh_system_installation(command: list[str], tmp_path: Path) -> None:
    """tshark's columns come from the installed dissector, the bytes from the installed interface."""
    marker = f"marker {os.urandom(8).hex()}"
    output = tmp_path / "output"
    options = ["-c", "1", *(["-f", "comm python*"] if command[0] == "tshark" else ["comm", "python*"])]
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, output.open("wb") as file:
        capture = subprocess.Popen([*as_user(MEMBER), *command, *options], stdout=file, stderr=file)
        deadline = time.monotonic() + READY_TIMEOUT
        while capture.poll() is None and time.monotonic() < deadline:
            here.send(marker.encode())
            there.recv(100)
            time.sleep(0.2)
        capture.kill()
    said = output.read_text(errors="replace")
    assert marker.encode().hex(":") in said or marker in said, said
    wait_until(gone)


def test_a_capture_compiles_its_filter_alone() -> None:
    """What all filters share was compiled by the installation; a member's capture keeps nothing."""
    kept = sorted(cache.FOLDER.iterdir())
    for file in kept:
        os.utime(file, (0, file.stat().st_mtime))
    with LiveAs(MEMBER, "--extcap-capture-filter", "uid 0 or not uid 0") as live:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with here, there:
            here.send(b"by a filter of its own")
    assert b"by a filter of its own" in [one.payload for one in live.records]
    assert sorted(cache.FOLDER.iterdir()) == kept
    assert sum(file.stat().st_atime > 0 for file in kept) == 2


def _library() -> dict[str, tuple[int, int]]:
    """Each file of the privileged helper, with its size and the time of its last change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in LIBRARY.rglob("*")}


def _start_with_low_limits() -> tuple[str, int]:
    """Have a member with low limits start the helper; return the helper's, and the signals it ignores."""
    low = "ulimit -f 4; ulimit -n 64; ulimit -t 100; trap '' ALRM IO TERM"
    with subprocess.Popen(
        [*as_user(MEMBER), "sh", "-c", f"{low}; exec {' '.join(SUDO)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asking:
        assert asking.stderr
        assert b"hello" in asking.stderr.readline()
        (pid,) = privileged()
        limits = Path(f"/proc/{pid}/limits").read_text()
        ignored = int(status(pid)["SigIgn"], 16)
        # The caller goes away at once, so that it attaches and ends, or ends before.
        asking.communicate(framed(body(buffer_mib=1)), timeout=READY_TIMEOUT)
    wait_until(lambda: not privileged())
    return limits, ignored


def test_root_writes_nothing_for_a_member() -> None:
    """What a member's limit cuts would be cut for all."""
    before = _library()
    assert len([name for name in before if "/__pycache__/" in name]) > 50
    _, ignored = _start_with_low_limits()
    assert not any(ignored >> number - 1 & 1 for number in (signal.SIGALRM, signal.SIGIO, signal.SIGTERM))
    assert _library() == before


def test_a_members_limits_do_not_reach_root() -> None:
    limits, _ = _start_with_low_limits()
    assert re.search(r"Max file size +unlimited +unlimited", limits)
    assert re.search(r"Max cpu time +unlimited +unlimited", limits)
    assert re.search(r"Max open files +4096 +4096", limits)


def test_a_killed_extcap_leaves_nothing() -> None:
    left, right = socket.socketpair()
    with left, right, LiveAs(MEMBER) as live:
        assert len(privileged()) == 1
        for _ in range(1000):
            left.send(b"burst")
            right.recv(9)
        live.process.send_signal(signal.SIGKILL)
        wait_until(gone)
    assert live.records


def test_a_killed_privileged_helper_is_told_of() -> None:
    left, right = socket.socketpair()
    ending = threading.Event()

    def burst() -> None:
        while not ending.is_set():
            left.send(b"burst")
            right.recv(9)

    talker = threading.Thread(target=burst)
    with left, right, LiveAs(MEMBER) as live:
        talker.start()
        try:
            time.sleep(1)
            begin = time.monotonic()
            os.kill(privileged()[0], signal.SIGKILL)
            wait_until(gone)
            seconds = time.monotonic() - begin
            print(f"kill -9 of the privileged helper in a burst: all is gone after {seconds:.2f} s")
            live.process.wait(soon(SOON))
        finally:
            ending.set()
            talker.join()
    assert live.messages.count("\n") == 1
    assert "Traceback" not in live.messages
    assert gone()


def test_a_stranger_is_refused_with_the_remedy() -> None:
    remedy = f"sudo usermod -aG unixsock {STRANGER}"
    dumped = run(*as_user(STRANGER), "unixsock", "dump")
    assert (dumped.returncode, dumped.stdout) == (1, "")
    assert remedy in dumped.stderr
    assert dumped.stderr.count("\n") == 1
    shown = run(*as_user(STRANGER), "tshark", "-i", "unixsock", "-c", "1")
    assert remedy in shown.stderr
    assert remedy not in run(*as_user(MEMBER), "unixsock", "dump", "--privilege", "none").stderr


def test_without_the_setup_it_tells_how(tmp_path: Path) -> None:
    hidden = HELPER.with_name("hidden")
    HELPER.rename(hidden)
    try:
        said = run(*as_user(MEMBER), str(EXTCAP.parent.parent / "extcap/unixsock"), "--version")
        assert said.returncode == 0
        said = run(*as_user(MEMBER), "unixsock", "dump")
    finally:
        hidden.rename(HELPER)
    assert "sudo unixsock install --system --group unixsock" in said.stderr
    assert said.stderr.count("\n") == 1


def ask(message: bytes, *, words: list[str] = SUDO, env: dict[str, str] | None = None) -> list[str]:
    """What the privileged helper says to ``message`` and the end of it."""
    done = subprocess.run(
        [*as_user(MEMBER), *(f"{name}={value}" for name, value in (env or {}).items()), *words],
        input=message,
        capture_output=True,
        timeout=READY_TIMEOUT,
        check=False,
    )
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    return done.stderr.decode().splitlines()


def body(**changes: object) -> bytes:
    asked = json.loads(encode_request(Request(Settings()))[4:]) | changes
    return json.dumps(asked).encode()


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff" + bytes(100),
        (MAX_REQUEST + 1).to_bytes(4, "big") + b" " * (MAX_REQUEST + 1),
        framed(b"not JSON"),
        framed(body())[:-1],
        framed(b"[" * 100_000),
        framed(body(filter=["comm", "", '"; } int x; {'])),
        framed(body(filter=["uid", "", "0ull) | 1; //"])),
        framed(body(buffer_mib=1 << 40)),
        framed(body(path="/etc/shadow")),
    ],
    ids=lambda message: f"{message[:12]!r}"[:20],
)
def test_requests_that_are_none_are_refused_before_anything_is_loaded(message: bytes) -> None:
    hello, *rest = ask(message)
    assert "hello" in json.loads(hello)
    (refusal,) = rest
    assert "request" in json.loads(refusal)["error"]
    assert gone()


def test_a_caller_that_is_hostile_gets_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "unixsock_bpf.py").write_text("import os; os.write(2, b'trapped')")
    (trap / "sitecustomize.py").write_text("import os; os.write(2, b'trapped')")
    hostile = {
        "PYTHONPATH": str(trap),
        "PYTHONHOME": str(trap),
        "PYTHONSTARTUP": str(trap / "sitecustomize.py"),
        "PYTHONINSPECT": "1",
        "LD_PRELOAD": "/nowhere/evil.so",
        "LD_LIBRARY_PATH": str(trap),
        "BCC_KERNEL_SOURCE": str(trap),
        "UNIXSOCK_DEBUG": "7",
        "UNIXSOCK_ATTACH": "nothing",
        "TMPDIR": str(trap),
        "SUDO_UID": "0",
    }
    # The caller goes away at once, so it attaches and ends, or ends before: neither is an error.
    said = "".join(ask(framed(body(buffer_mib=1)), env=hostile))
    assert "trapped" not in said
    assert "error" not in said
    # sudo takes neither arguments nor another environment for it.
    assert "hello" not in "".join(ask(b"", words=[*SUDO, "-c", "print()"]))
    assert "hello" not in "".join(ask(b"", words=["sudo", "-n", "PYTHONPATH=/tmp", str(HELPER)]))
    assert "hello" not in "".join(ask(b"", words=["sudo", "-n", "-E", "--", "/usr/bin/python3", str(HELPER)]))
    assert gone()


def test_it_speaks_through_pipes_only(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.touch()
    output.chmod(0o666)
    tmp_path.chmod(0o755)
    done = run(*as_user(MEMBER), "sh", "-c", f"exec {' '.join(SUDO)} <&- >{output}")
    assert done.returncode != 0
    assert output.read_bytes() == b""


@pytest.mark.parametrize("place", ["unixsock_bpf/record.py", "unixsock_bpf", "libexec/unixsock-capture", "."])
def test_it_does_not_run_what_others_can_write(place: str) -> None:
    path = LIBRARY / place
    mode = path.stat().st_mode
    path.chmod(mode | 0o002)
    try:
        (said,) = ask(b"")
    finally:
        path.chmod(mode)
    assert "others than root can write" in said
    assert "sudo unixsock install --system" in said


@contextmanager
def polkit() -> Iterator[None]:
    """A system bus and polkit's daemon."""
    Path("/run/dbus").mkdir(exist_ok=True)
    bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"])
    daemon = None
    try:
        wait_until(Path("/run/dbus/system_bus_socket").exists, READY_TIMEOUT)
        daemon = subprocess.Popen(["/usr/lib/polkit-1/polkitd", "--no-debug"])
        wait_until(lambda: policy.ACTION_ID in run("pkaction").stdout, READY_TIMEOUT)
        yield
    finally:
        for process in (daemon, bus):
            if process:
                process.terminate()
                process.wait(soon(SOON))


def test_pkexec_lets_members_in_and_nobody_else() -> None:
    with polkit():
        with LiveAs(MEMBER, "--privilege", "pkexec") as live:
            assert len(privileged()) == 1
        assert (live.status, live.messages) == (0, "")
        assert gone()
        refused = run(*as_user(STRANGER), "unixsock", "dump", "--privilege", "pkexec")
        assert refused.returncode == 1
        assert f"usermod -aG unixsock {STRANGER}" in refused.stderr


def test_uninstall_removes_what_install_put_there_and_no_more() -> None:
    other = Path("/etc/sudoers.d/other")
    other.write_text("# another's\n")
    assert policy.SUDOERS.stat().st_mode & 0o777 == 0o440
    assert GROUP.read_text() == "unixsock\n"
    assert "parsed OK" in run("visudo", "-c").stdout
    tshark = Path(shutil.which("tshark") or "/nonexistent")
    hidden = tshark.with_name("hidden")
    tshark.rename(hidden)
    try:
        done = system.unixsock("uninstall", "--system")
    finally:
        hidden.rename(tshark)
    try:
        assert done.returncode == 0, done.stderr
        left = {path for path in system.written() if "unixsock" in path.lower() or "Unix sockets" in path}
        assert left == set()
        assert not LIBRARY.exists()
        assert other.read_text() == "# another's\n"
    finally:
        other.unlink()
        asked = system.unixsock("install", "--system", "--group", "unixsock")
        assert (asked.returncode, f"already has members: {MEMBER}" in asked.stdout) == (1, True)
        assert system.unixsock("install", "--system", "--group", "unixsock", "--yes").returncode == 0
