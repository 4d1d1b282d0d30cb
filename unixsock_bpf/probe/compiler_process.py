"""Run bcc's compiler in a child process: two compile at once, and LLVM aborts its process when it gives up.

The child runs as ``nobody``.  It may read files and create BPF maps, as bcc does for each map in the C, but
not write files or load programs: LLVM is large, and needs no more.

It sees a /proc/kallsyms of one line.  bcc reads all of it, a sixth of the time to compile, only to learn
whether the kernel has bpf_probe_read_kernel, as every kernel has that the probe supports.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux import sandbox

_KALLSYMS = Path(__file__).parents[1] / "bpf/kernel_shim/kallsyms"

#: From linux/mount.h and linux/prctl.h.
_MS_BIND = 1 << 12
_PR_SET_PDEATHSIG = 1

_KEPT = (sandbox.CAP_DAC_READ_SEARCH, sandbox.CAP_SYS_RESOURCE, sandbox.CAP_BPF)


class CompilerProcess:
    """Run ``work``, whose result JSON can hold, in a child process, which ends with ``with``.

    ``prepare`` runs there before, as root, with mounts that only the child sees.
    """

    def __init__(self, work: Callable[[], Any], prepare: Callable[[], None] | None = None) -> None:
        self._stderr = os.memfd_create("stderr")
        self._answer, answer = os.pipe()
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            _work(work, prepare, self._stderr, answer, parent)
        os.close(answer)

    def __enter__(self) -> CompilerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        os.close(self._answer)
        os.close(self._stderr)

    def result(self) -> Any:
        """Return the result of ``work``.  Raises ProbeError with what it raised, or why its process ended.

        The process may still be ending then: giving back the compiler's memory takes milliseconds.
        """
        with open(self._answer, "rb", closefd=False) as pipe:
            answer = pipe.read()
        stderr = self._read_stderr()
        if os.environ.get("UNIXSOCK_DEBUG"):
            os.write(2, stderr.encode())
        if not answer:
            raise ProbeError(f"The probe can't be compiled: {stderr.strip()[-300:]}")
        failure, result = json.loads(answer)
        if failure:
            raise ProbeError(with_last_line(failure, stderr))
        return result

    def _read_stderr(self) -> str:
        with open(self._stderr, "rb", closefd=False) as stderr:
            stderr.seek(0)
            return stderr.read().decode(errors="replace")


def with_last_line(failure: str, stderr: str) -> str:
    """Add the last line of stderr to ``failure``."""
    detail = [line for line in stderr.splitlines() if line.strip()]
    return f"{failure} ({detail[-1].strip()[:200]})" if detail else failure


def _work(
    work: Callable[[], Any], prepare: Callable[[], None] | None, stderr: int, answer: int, parent: int
) -> NoReturn:
    """Run the child, which never returns."""
    try:
        _keep_only(stderr, answer)
        own_mounts = _hide_symbols()
        kept = _KEPT if own_mounts else (*_KEPT, sandbox.CAP_SYSLOG)
        if prepare:
            if not own_mounts:
                raise ProbeError("this process may not have mounts of its own")
            prepare()
        # Where even this is forbidden, root compiles.
        with contextlib.suppress(OSError):
            sandbox.give_up_privileges(sandbox.NOBODY, kept)
        _die_with(parent)
        try:
            text = json.dumps(["", work()])
        except Exception as error:
            text = json.dumps([str(error) or type(error).__name__, None])
        with open(answer, "w") as pipe:
            pipe.write(text)
    except Exception as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(0)


def _keep_only(stderr: int, answer: int) -> None:
    """Close all descriptors of the parent; ``stderr`` becomes descriptor 2."""
    os.dup2(stderr, 2)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != answer:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))


def _die_with(parent: int) -> None:
    """Signals end this process at once, and so does its parent's end.  Becoming another user undoes that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGIO):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _hide_symbols() -> bool:
    """Mount our /proc/kallsyms over the kernel's for this process.  Return False where not permitted."""
    mount = ctypes.CDLL(None).mount
    with contextlib.suppress(sandbox.SandboxError):
        if sandbox.own_mounts():
            return bool(mount(os.fsencode(_KALLSYMS), b"/proc/kallsyms", None, _MS_BIND, None) == 0)
    return False
