"""What sudo starts runs from where only root can write, through pipes, and not otherwise.  Needs root."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf.linux import sandbox
from unixsock_bpf.privilege import protocol

ROOT = Path(__file__).resolve().parents[3]
SOMEBODY = 4711


@pytest.fixture
def library() -> Iterator[Path]:
    """An installation of the privileged helper, below folders that only root can write."""
    with tempfile.TemporaryDirectory(prefix="unixsock-test-", dir="/var/lib") as name:
        folder = Path(name)
        for part in ("unixsock_bpf", "libexec"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() or path.parent.name == "libexec" else 0o644)
        yield folder


def start(library: Path, *arguments: str, **more: object) -> tuple[int, str]:
    """Exit status, and what it says before it is asked for anything."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | more
    running = subprocess.Popen(  # type: ignore[call-overload]
        [library / "libexec/unixsock-capture", *arguments], stderr=subprocess.PIPE, text=True, **pipes
    )
    _, said = running.communicate("", timeout=30)
    return running.returncode, said


HELLO = protocol.encode_report("hello", "").decode()[:10]


def test_it_runs_where_only_root_can_write(library: Path) -> None:
    status, said = start(library)
    hello, error = said.splitlines()
    assert hello.startswith(HELLO)
    assert error == protocol.encode_report("error", "The request was cut short.").decode().strip()
    assert status == 1


def _give_away(path: Path) -> None:
    os.chown(path, SOMEBODY, 0, follow_symlinks=False)


def _share(path: Path) -> None:
    os.chown(path, 0, SOMEBODY)
    path.chmod(path.stat().st_mode | 0o020)


def _open(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _share_with_roots_group(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def _add_to_acl(path: Path) -> None:
    """As setfacl -m u:4711:rwx: the mask, which the mode shows in place of the group's bits, has w."""
    user, group, other, mask, named = 0x01, 0x04, 0x20, 0x10, 0x02
    entries = [(user, 7, -1), (named, 7, SOMEBODY), (group, 5, -1), (mask, 7, -1), (other, 5, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)


@pytest.mark.parametrize("damage", [_give_away, _share, _open, _share_with_roots_group, _add_to_acl])
@pytest.mark.parametrize(
    "path",
    [
        ".",
        "libexec",
        "libexec/unixsock-capture",
        "unixsock_bpf",
        "unixsock_bpf/capture/session.py",
        "unixsock_bpf/probe",
        "unixsock_bpf/bpf/hooks.bpf.c",
    ],
)
def test_whatever_others_could_write_is_not_run(
    path: str, damage: Callable[[Path], None], library: Path
) -> None:
    damage(library / path)
    status, said = start(library)
    assert status == 1
    assert said == (
        "The privileged helper of unixsock does not run, because others than root can write "
        f"{library / path}: run 'sudo unixsock install --system' for a safe copy.\n"
    )


@pytest.mark.parametrize("path", ["unixsock_bpf/bpf/hooks.bpf.c", "unixsock_bpf/filter", "unixsock_bpf"])
def test_a_link_of_roots_to_a_place_of_others_is_not_followed(path: str, library: Path) -> None:
    """Such a place is a checkout to which root linked, to try something out."""
    elsewhere = library / "elsewhere"
    elsewhere.mkdir()
    (library / path).rename(elsewhere / "it")
    (library / path).symlink_to(elsewhere / "it")
    assert HELLO in start(library)[1]
    _open(elsewhere / "it" if (elsewhere / "it").is_file() else next((elsewhere / "it").glob("*.py")))
    status, said = start(library)
    assert (status, HELLO in said) == (1, False)
    assert "others than root can write" in said


def test_it_takes_no_arguments_and_speaks_through_pipes_only(library: Path, tmp_path: Path) -> None:
    assert start(library, "--help") == (1, "The privileged helper of unixsock takes no arguments.\n")
    through_pipes = (
        "The privileged helper of unixsock works through pipes only: capture with unixsock dump.\n"
    )
    with (tmp_path / "file").open("w") as file:
        assert start(library, stdout=file) == (1, through_pipes)
    assert start(library, stdin=subprocess.DEVNULL) == (1, through_pipes)


def test_what_is_no_pipe_is_not_written_to(library: Path, tmp_path: Path) -> None:
    for pipes in ({}, {"stdin": subprocess.DEVNULL}):
        with (tmp_path / "file").open("w") as file:
            command = [library / "libexec/unixsock-capture", "argument"]
            running = subprocess.run(command, stderr=file, timeout=30, check=False, **pipes)
        assert running.returncode == 1
        assert (tmp_path / "file").read_text() == ""


def test_it_starts_from_what_is_known_whatever_the_caller_left(library: Path) -> None:
    """Limits, signals, umask and descriptors: a caller that ignores SIGALRM, say, would wait for ever."""
    limits = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    capabilities = re.search(r"CapEff:\s(\w+)", Path("/proc/self/status").read_text())
    assert capabilities is not None
    may_raise = int(capabilities[1], 16) >> sandbox.CAP_SYS_RESOURCE & 1
    enough = {  # for Python to start
        resource.RLIMIT_AS: 1 << 30,
        resource.RLIMIT_DATA: 1 << 30,
        resource.RLIMIT_STACK: 1 << 20,
        resource.RLIMIT_NOFILE: 20,
        resource.RLIMIT_CPU: 30,
    }

    def leave() -> None:
        for number in signal.valid_signals():
            with suppress(OSError):  # SIGKILL, SIGSTOP
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        signal.setitimer(signal.ITIMER_REAL, 600)
        signal.setitimer(signal.ITIMER_PROF, 600)
        os.umask(0)
        for limit in limits:
            low = enough.get(limit, 0)
            resource.setrlimit(limit, (low, low if may_raise else resource.getrlimit(limit)[1]))

    file = os.open("/etc/passwd", os.O_RDONLY)
    running = subprocess.Popen(
        [library / "libexec/unixsock-capture"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=leave,  # noqa: PLW1509 - no other thread runs here
        pass_fds=[file],
    )
    os.close(file)
    assert running.stderr is not None
    assert running.stderr.readline().startswith(HELLO.encode())
    proc = Path(f"/proc/{running.pid}")
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    told = {limit: resource.prlimit(running.pid, limit) for limit in limits}
    descriptors = sorted(int(fd.name) for fd in (proc / "fd").iterdir())
    running.communicate(timeout=30)
    # Python itself ignores two; a terminal's keys are for the caller.
    ignored = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP}
    masks = {name: int(status[name], 16) for name in ("SigIgn", "SigBlk", "SigCgt")}
    assert {n for n in signal.valid_signals() if masks["SigIgn"] >> n - 1 & 1} == ignored
    assert masks["SigBlk"] == 0
    assert status["Umask"].strip() == "0077"
    assert descriptors == [0, 1, 2]
    infinite = resource.RLIM_INFINITY
    wanted = {limit: (infinite, infinite) for limit in limits} | {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NICE: (0, 0),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_STACK: (8 << 20, infinite),
        resource.RLIMIT_NOFILE: (4096, 4096),
    }
    for limit in limits if not may_raise else ():
        hard = resource.getrlimit(limit)[1]
        if hard != infinite and (wanted[limit][1] == infinite or wanted[limit][1] > hard):
            wanted[limit] = (hard, hard)
    assert told == wanted


def test_a_caller_that_does_not_listen_is_not_waited_for(library: Path) -> None:
    """The pipe of its reports is full from the start."""
    helper = library / "unixsock_bpf/privilege/helper.py"
    limit = "REQUEST_TIMEOUT_S = 60"
    assert limit in helper.read_text()
    helper.write_text(helper.read_text().replace(limit, "REQUEST_TIMEOUT_S = 1"))
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    command = [library / "libexec/unixsock-capture"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=full) as running:
        assert running.wait(soon(60)) == -signal.SIGALRM
    os.close(unread)
    os.close(full)


def test_it_writes_no_bytecode(library: Path) -> None:
    """With a caller's limit to the size of files it would be cut, and broken for everybody from then on."""
    before = sorted(library.rglob("*"))
    assert HELLO in start(library)[1]
    assert sorted(library.rglob("*")) == before


def test_python_reads_nothing_of_the_callers(library: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')\n")
    (tmp_path / "json.py").write_text("print('mine')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    running = subprocess.Popen(
        [library / "libexec/unixsock-capture"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
    )
    out, said = running.communicate(b"", timeout=30)
    assert out == b""
    assert said.startswith(HELLO.encode())
