"""What a process gives up that only has to drain a ring, to compile or to dissect: everything else.

Capabilities and user go through prctl(2), capset(2) and setresuid(2), system calls through
libseccomp's Python binding (Debian: python3-seccomp).  Linux only; raises SandboxError where
something can't be given up, because a process that has more than it should must not go on.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from unixsock_bpf.linux.libc import library

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

#: Commands of bpf(2) on what is open: to read a map, at the end, for losses that nothing reported; and to ask
#: how many runs of a program the kernel skipped.
_BPF_MAP_LOOKUP_ELEM = 1
_BPF_MAP_GET_NEXT_KEY = 4
_BPF_OBJ_GET_INFO_BY_FD = 15
#: To read files of any owner, to use more memory for maps than others may, to see addresses in
#: /proc/kallsyms, and to make maps.
CAP_DAC_READ_SEARCH = 2
CAP_SYS_RESOURCE = 24
CAP_SYSLOG = 34
CAP_BPF = 39

#: User and group without rights: Debian calls them nobody and nogroup.
NOBODY = 65534

#: From linux/sched.h: a mount table, a network and System V queues of its own.
_CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWIPC = 0x20000, 0x40000000, 0x08000000
#: From linux/mount.h.
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
_MOUNT_ATTR_RDONLY = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
#: The same number on every architecture; since Linux 5.12.
_SYS_MOUNT_SETATTR = 442

#: System calls that need no look at their arguments.
_HARMLESS = (
    *("poll", "ppoll", "close", "brk", "munmap", "mremap", "madvise", "futex", "membarrier"),
    *("clock_gettime", "gettimeofday", "rt_sigreturn", "restart_syscall", "exit", "exit_group"),
)


class SandboxError(OSError):
    """The process can't be confined; the text says why."""


def available() -> None:
    """Check that libraries and the kernel's support are there.  Raises SandboxError."""
    try:
        import seccomp  # noqa: F401
    except ImportError as error:
        from unixsock_bpf.dependencies import how_to_install

        raise SandboxError(
            f"The Python package seccomp is missing ({error}), without which the privileged helper does not "
            f"run: {how_to_install('seccomp')}."
        ) from None


def enter(uid: int, readable: Iterable[int], writable: Iterable[int], keep: Iterable[int] = ()) -> None:
    """Confine this process for good: user ``uid``, no capabilities but ``keep``, few system calls.

    After it, only the descriptors in ``readable`` can be read and only those in ``writable``
    written; BPF maps that are open stay readable; any other call fails with EPERM.  Raises SandboxError.
    """
    give_up_privileges(uid, keep)
    filter_system_calls(readable, writable)


def give_up_privileges(uid: int, keep: Iterable[int] = ()) -> None:
    """Become ``uid`` without groups or capabilities, and forbid itself new ones.

    Capabilities in ``keep`` that this process has stay.
    """
    kept = _kept(keep)
    forbid_new_privileges()
    if kept:
        _must("keep a capability", library().prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(uid, uid, uid)
    _set_capabilities(kept)
    # Or its user could attach a debugger to what still holds the maps.
    _must("hide its memory", library().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def forbid_new_privileges() -> None:
    """Keep the calling thread from gaining or passing on privileges by exec.  Raises SandboxError."""
    libc = library()
    _must("forbid itself new privileges", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:  # there are no more
                break
            _must("empty its bounding set", -1)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def own_mounts(namespaces: int = 0) -> bool:
    """Give this process a mount namespace, and more ``namespaces``; return False where not permitted."""
    libc = library()
    if libc.unshare(_CLONE_NEWNS | namespaces) != 0:
        return False
    _must("keep its mounts to itself", libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    return True


def mount_memory(folder: Path) -> None:
    """Mount an empty file system in memory over ``folder``.  Raises SandboxError."""
    options = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _must("make a folder", library().mount(b"tmpfs", bytes(folder), b"tmpfs", options, b"mode=755"))


def freeze_files(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make every mounted file system read-only for this process and its children, and its network empty.

    ``folder``, which has to exist, holds nothing but ``files`` then, by their paths in it.  Needs root;
    False, with nothing changed, where that is forbidden to root, too.  Raise SandboxError.
    """
    if not own_mounts(_CLONE_NEWNET | _CLONE_NEWIPC):
        return False
    libc = library()
    mount_memory(folder)
    before = os.umask(0o022)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.umask(before)
    attributes = (ctypes.c_uint64 * 4)(
        _MOUNT_ATTR_RDONLY, 0, 0, 0
    )  # set, clear, propagation, user name space
    if libc.syscall(
        *(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE),
        *(ctypes.byref(attributes), ctypes.sizeof(attributes)),
    ):
        for mount in _mounts():
            flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID
            _must(f"make {os.fsdecode(mount)} read-only", libc.mount(None, mount, None, flags, None))
    return True


def _mounts() -> list[bytes]:
    """Return visible mount points: not those below other mounts."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    found = dict.fromkeys(line.split()[4].decode("unicode_escape").encode("latin-1") for line in lines)
    return [mount for mount in found if os.path.ismount(mount)]


def _must(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise SandboxError(code, f"The privileged helper cannot {what}: {os.strerror(code)}.")


def _kept(keep: Iterable[int]) -> int:
    """Return the capabilities in ``keep`` that this thread has, as a bit mask."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    library().capget(header, sets)
    return sum(1 << capability for capability in keep) & (sets[1] | sets[4] << 32)


def _set_capabilities(kept: int) -> None:
    """Reduce this thread's capabilities to the bit mask ``kept``."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _must("give up its capabilities", library().capset(header, sets))


def filter_system_calls(readable: Iterable[int], writable: Iterable[int]) -> None:
    """Make every system call fail with EPERM, in all threads, except those that draining needs."""
    from seccomp import ALLOW, EQ, ERRNO, MASKED_EQ, Arg, Attr, SyscallFilter

    calls = SyscallFilter(ERRNO(errno.EPERM))
    calls.set_attr(Attr.CTL_TSYNC, 1)
    for name in _HARMLESS:
        calls.add_rule(ALLOW, name)
    for fd in readable:
        calls.add_rule(ALLOW, "read", Arg(0, EQ, fd))
        calls.add_rule(ALLOW, "pread64", Arg(0, EQ, fd))
    for fd in writable:
        calls.add_rule(ALLOW, "write", Arg(0, EQ, fd))
        calls.add_rule(ALLOW, "writev", Arg(0, EQ, fd))
    for command in (_BPF_MAP_LOOKUP_ELEM, _BPF_MAP_GET_NEXT_KEY, _BPF_OBJ_GET_INFO_BY_FD):
        calls.add_rule(ALLOW, "bpf", Arg(0, EQ, command))
    # Memory for Python: of no file, and never to be executed.
    calls.add_rule(
        ALLOW,
        "mmap",
        Arg(2, MASKED_EQ, mmap.PROT_EXEC, 0),
        Arg(3, MASKED_EQ, mmap.MAP_ANONYMOUS, mmap.MAP_ANONYMOUS),
    )
    calls.add_rule(ALLOW, "mprotect", Arg(2, MASKED_EQ, mmap.PROT_EXEC, 0))
    try:
        calls.load()
    except RuntimeError as error:
        raise SandboxError(f"The privileged helper cannot filter its system calls: {error}.") from None
