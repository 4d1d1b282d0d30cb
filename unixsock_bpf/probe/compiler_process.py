"""bcc's compiler in a process of its own: two compile at once, and LLVM ends its process when it gives up.

The process is nobody's, who may read files and make BPF maps, as bcc does for each map in the C, but
can write and load nothing: LLVM is large, and needs no more.

The process sees a /proc/kallsyms of one line.  bcc reads all of it, which takes a sixth of the whole
compile, only to learn whether the kernel has bpf_probe_read_kernel, and every kernel with BTF that
we can use has.
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
    """``work``, which gives what JSON has, begun in a child process.  Its end is the end of ``with``, too."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._said = os.memfd_create("said")
        self._answer, answer = os.pipe()
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            _work(work, self._said, answer, parent)
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
        os.close(self._said)

    def result(self) -> Any:
        """Return the result of ``work``.  Raises ProbeError with what it raised, or why its process ended.

        The process may still be ending then: giving back the compiler's memory takes milliseconds.
        """
        with open(self._answer, "rb", closefd=False) as pipe:
            answer = pipe.read()
        said = self._all_said()
        if os.environ.get("UNIXSOCK_DEBUG"):
            os.write(2, said.encode())
        if not answer:
            raise ProbeError(f"The probe can't be compiled: {said.strip()[-300:]}")
        failure, result = json.loads(answer)
        if failure:
            raise ProbeError(with_last_line(failure, said))
        return result

    def _all_said(self) -> str:
        with open(self._said, "rb", closefd=False) as said:
            said.seek(0)
            return said.read().decode(errors="replace")


def with_last_line(failure: str, said: str) -> str:
    """``failure`` with the last line that was said of it on stderr."""
    detail = [line for line in said.splitlines() if line.strip()]
    return f"{failure} ({detail[-1].strip()[:200]})" if detail else failure


def _work(work: Callable[[], Any], said: int, answer: int, parent: int) -> NoReturn:
    """Run the child, which never returns."""
    try:
        _keep_only(said, answer)
        kept = _KEPT if _hide_symbols() else (*_KEPT, sandbox.CAP_SYSLOG)
        # Where even this is forbidden, root compiles.
        with contextlib.suppress(OSError):
            sandbox.give_up_privileges(sandbox.NOBODY, kept)
        _end_with(parent)
        try:
            text = json.dumps(["", work()])
        except Exception as error:
            text = json.dumps([str(error) or type(error).__name__, None])
        with open(answer, "w") as pipe:
            pipe.write(text)
    finally:
        os._exit(0)


def _keep_only(said: int, answer: int) -> None:
    """Close all descriptors of the parent; ``said`` becomes stderr."""
    os.dup2(said, 2)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != answer:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))


def _end_with(parent: int) -> None:
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
