"""What a machine lacks for the probe, in one sentence each: what is missing, a colon, the remedy.

All of it is asked for before anything is compiled.  Programs can be compiled and checked without kprobes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from pathlib import Path

from unixsock_bpf.probe import bpf_syscall

VMLINUX_BTF = "/sys/kernel/btf/vmlinux"

#: The inode of the initial user namespace: PROC_USER_INIT_INO in linux/proc_ns.h.
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
#: Processors whose registers bpf/kernel_shim/include/asm/ptrace.h knows, as the kernel names them.
_MACHINES = ("x86_64", "aarch64")
#: BPF_PROG_TYPE_KPROBE, and a program for it: r0 = 0; exit.
_KPROBE = 2
_NOTHING = b"\xb7" + bytes(7) + b"\x95" + bytes(7)


def tracing_refused() -> str | None:
    """Return the first thing that is missing to load programs; None if nothing is, as far as is known."""
    needs = (
        machine_refused,
        rights_refused,
        lockdown_refused,
        programs_refused,
        types_refused,
    )
    return next(filter(None, (need() for need in needs)), None)


def machine_refused() -> str | None:
    """Why the probe cannot run on this processor."""
    name = os.uname().machine
    here = "capture on x86-64 or arm64"
    if sys.byteorder != "little":
        return f"This processor ({name}) is big-endian, and the probe only knows little-endian ones: {here}."
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"This Python is a 32-bit program ({name}): capture with a 64-bit Python on a 64-bit kernel."
    if name not in _MACHINES:
        return f"The probe does not know the registers of this processor ({name}): {here}."
    return None


def rights_refused() -> str | None:
    """Why this user may load no programs into the kernel."""
    if os.geteuid() != 0:
        return (
            "Capturing Unix sockets needs root: run Wireshark or tshark with sudo, "
            "or see 'unixsock install --help' for capturing as an unprivileged user."
        )
    return user_namespace_refused()


def user_namespace_refused(path: str = "/proc/self/ns/user") -> str | None:
    """Why root here is no root for the kernel."""
    with contextlib.suppress(OSError):  # a kernel without them
        if os.stat(path).st_ino != _INITIAL_USER_NAMESPACE:
            return (
                "This is the root of a user namespace (a rootless container), an unprivileged user for the "
                "kernel: capture on the host."
            )
    return None


def programs_refused() -> str | None:
    """Why this root may load no programs, by loading one that does nothing."""
    try:
        os.close(bpf_syscall.load_program("nothing", _KPROBE, _NOTHING))
    except PermissionError:
        return (
            "This kernel does not permit BPF tracing, even to root (a container without the right, or a "
            "security module): capture on the host, or in a container that is run with --privileged."
        )
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return "This kernel has no bpf(2): use a kernel built with CONFIG_BPF_SYSCALL."
    return None


def types_refused(path: str = VMLINUX_BTF) -> str | None:
    """Why the probe cannot learn the kernel's layouts."""
    if os.access(path, os.R_OK):
        return None
    from unixsock_bpf.probe import kernel_headers

    missing = kernel_headers.missing()
    return missing and (
        f"This kernel has no BTF ({path} is missing), and {missing} to learn layouts from: "
        "install its headers (linux-headers or kernel-devel of this release) and gcc, or use a kernel built "
        "with CONFIG_DEBUG_INFO_BTF, such as those of Debian 11, Ubuntu 20.10, Fedora 31, RHEL 8.2 and later."
    )


def kprobes_refused(path: str = "/sys/bus/event_source/devices/kprobe") -> str | None:
    """Why no function of the kernel can be hooked."""
    if os.path.exists(path):
        return None
    return (
        f"This kernel has no kprobes ({path} is missing), by which the probe is attached: use a kernel built "
        "with CONFIG_KPROBE_EVENTS, as all current distributions' are."
    )


def lockdown_refused(path: str = "/sys/kernel/security/lockdown") -> str | None:
    """Why the kernel forbids tracing, even to root."""
    with contextlib.suppress(OSError):  # a kernel without, or an unprivileged user
        if "[confidentiality]" in Path(path).read_text():
            return (
                "Kernel lockdown is in confidentiality mode, which forbids tracing: "
                "boot without lockdown=confidentiality to capture."
            )
    return None
