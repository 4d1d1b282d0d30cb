"""What the privileged helper gave up is gone, even for a process that tries to get it back.  Needs root."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
from collections.abc import Callable

from unixsock_bpf.linux import sandbox
from unixsock_bpf.probe import bpf_syscall


def test_what_is_forbidden_after_the_probe_is_attached_fails() -> None:
    """The same confinement, in a process that then tries what an attacker would."""
    results, report = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open("/etc/hostname", os.O_RDONLY)
        sandbox.enter(65534, {results}, {report})
        said = {name: _error(attempt) for name, attempt in _ATTEMPTS.items()}
        said["read of another descriptor"] = _error(lambda: os.read(fd, 1))
        os.write(report, json.dumps(said).encode())
        os._exit(0)
    os.close(report)
    with os.fdopen(results, "rb") as pipe:
        said = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    assert said == dict.fromkeys([*_ATTEMPTS, "read of another descriptor"], errno.EPERM)


def _error(attempt: Callable[[], object]) -> int:
    """errno of what was tried; 0: it worked."""
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def _system_call(number: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


_BPF, _PTRACE, _IO_URING_SETUP, _PERF_EVENT_OPEN = 321, 101, 425, 298  # x86-64
_ATTEMPTS = {
    "open": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "create": lambda: os.open("/dev/shm/created", os.O_CREAT | os.O_WRONLY),
    "execve": lambda: os.execve("/bin/true", ["true"], {}),
    "fork": os.fork,
    "kill": lambda: os.kill(1, 0),
    "socket": lambda: socket.socket(socket.AF_UNIX),
    "setuid": lambda: os.setuid(0),
    "unshare": lambda: _system_call(272, 0x10000000),
    "load a BPF program": lambda: _system_call(_BPF, 5, 0, 0),
    "make a BPF map": lambda: _system_call(_BPF, 0, 0, 0),
    "write a BPF map": lambda: _system_call(_BPF, 2, 0, 0),
    "open a BPF map of others": lambda: _system_call(_BPF, 14, 0, 0),
    "trace a process": lambda: _system_call(_PTRACE, 16, 1, 0, 0),
    "io_uring": lambda: _system_call(_IO_URING_SETUP, 1, 0),
    "perf": lambda: _system_call(_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
    "map executable memory": lambda: _system_call(9, 0, 4096, 7, 0x22, -1, 0),
}


def test_what_a_programs_hook_skipped_can_still_be_asked() -> None:
    """A program is held open for that; loading one is no longer possible."""
    returns_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    program = bpf_syscall.load_program("skipped", 1, returns_0)
    results, report = os.pipe()
    child = os.fork()
    if child == 0:
        bpf_syscall.skipped(program)  # imports what it needs, as a capture does before
        sandbox.enter(65534, {results}, {report})
        found = [bpf_syscall.skipped(program), bpf_syscall.skipped(results)]
        os.write(report, json.dumps(found).encode())
        os._exit(0)
    os.close(report)
    os.close(program)
    with os.fdopen(results, "rb") as pipe:
        assert json.loads(pipe.read()) == [0, None]  # a pipe has no such count: unknown, not 0
    assert os.waitpid(child, 0)[1] == 0


def test_draining_still_works_and_the_status_tells_what_is_left() -> None:
    results, report = os.pipe()
    child = os.fork()
    if child == 0:
        status = os.open("/proc/self/status", os.O_RDONLY)
        sandbox.enter(65534, {results, status}, {report})
        memory = bytes(1 << 20)  # from the system, not from what Python has
        os.writev(report, [memory[:0], os.read(status, 8192)])
        os._exit(0)
    os.close(report)
    with os.fdopen(results, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    left = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(left[name][0], 16) == 0
    assert left["Uid"] == left["Gid"] == ["65534"] * 4
    assert left["Groups"] == []
    assert (left["NoNewPrivs"], left["Seccomp"]) == (["1"], ["2"])
