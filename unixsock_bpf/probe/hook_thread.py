"""Hold each hook's descriptor in its own thread, so that the kernel detaches them in parallel.

A hook is there as long as its descriptor is open.  When a process ends, the kernel closes its descriptors
one after the other, and waits at each kprobe until no processor can be in it: 0.08 s each in a 6.1
guest, a second for a dozen.  A thread may have a table of descriptors of its own (CLONE_FILES in
unshare(2)), and threads end at the same time.

The thread has nothing but its hook: no other descriptor, no signal.  It gives up root when the whole process
does (privilege/sandbox.py): a thread that did before would have the C library end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading

from unixsock_bpf.linux import sandbox
from unixsock_bpf.probe import bpf_syscall
from unixsock_bpf.timeouts import HOOK_ANSWER_TIMEOUT_S

#: From linux/sched.h.
_CLONE_FILES = 0x400

#: Bytes for a thread that mostly waits; there are up to two dozen.
_STACK = 1 << 18


class HookThread:
    """Hold the hook behind ``fd``, and take over that descriptor.

    Where the kernel permits threads no tables of their own, it stays in the process' table.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._detached = False
        #: Where struct bpf_link_info has the count that ``missed`` asks for, and what it was.
        self._asked: int | None = None
        self._count: int | None = None
        self._answered = threading.Event()
        self._wake = threading.Event()
        self._ready = threading.Event()
        #: Whether the descriptor is in a table of its own.
        self.apart = False
        self._thread = threading.Thread(target=self._keep, name="hook", daemon=True)
        # Signals are for the thread that knows what to do about them.
        before = (
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
            threading.stack_size(_STACK),
        )
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before[0])
            threading.stack_size(before[1])
        self._ready.wait()
        if self.apart:
            os.close(fd)

    def detach(self) -> None:
        """Have the hook detached, sooner or later: ``join`` waits for it.

        In a forked process, which has no such thread, the hook stays.
        """
        self._detached = True
        self._wake.set()

    def missed(self, offset: int) -> int | None:
        """Return how many calls the hook, a link, missed; None if the kernel does not tell.

        ``offset``: of the count in struct bpf_link_info.  Only the thread itself has the descriptor; a
        forked process has no such thread, and gets None.
        """
        if not self._thread.is_alive():
            return None
        self._answered.clear()
        self._asked = offset
        self._wake.set()
        return self._count if self._answered.wait(HOOK_ANSWER_TIMEOUT_S) else None

    def join(self) -> None:
        """Wait until the hook is detached."""
        self._thread.join()

    def _keep(self) -> None:
        with contextlib.suppress(OSError):
            _take_own_table(self._fd)
            self.apart = True
        if self.apart:
            with contextlib.suppress(sandbox.SandboxError):
                sandbox.forbid_new_privileges()
        self._ready.set()
        while not self._detached:
            self._wake.wait()
            self._wake.clear()
            if self._asked is not None:
                self._count, self._asked = bpf_syscall.missed(self._fd, self._asked), None
                self._answered.set()
        os.close(self._fd)


def _take_own_table(fd: int) -> None:
    """Give this thread a table of descriptors, with nothing but ``fd``.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Before, so that what fails leaves all as it was.
    names = os.listdir("/proc/thread-self/fd")
    if libc.unshare(_CLONE_FILES) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    for name in names:
        if int(name) != fd:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))
