"""bpf(2), by the libbpf that libbcc works with (a part of it, or a library of its own), or directly where
versions of libbpf differ."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from functools import cache


@cache
def library() -> ctypes.CDLL:
    """A library that has libbpf's functions.  Raises OSError."""
    bcc = ctypes.CDLL("libbcc.so.0")
    if hasattr(bcc, "btf__load_vmlinux_btf"):
        return bcc
    from ctypes.util import find_library  # takes milliseconds

    return ctypes.CDLL(find_library("bpf") or "libbpf.so.1")


class ProgramOptions(ctypes.Structure):
    """struct bpf_prog_load_opts in libbpf's bpf.h, as far as we use it."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
    ]


def load_program(type_: int, name: bytes, instructions: bytes, options: ProgramOptions) -> int | None:
    """A program's descriptor, or a negative errno.  None: a libbpf before 0.6, which can't do that."""
    lib = library()
    if not hasattr(lib, "bpf_map_create"):  # bpf_prog_load was another function then
        return None
    options.size = ctypes.sizeof(options)
    load = lib.bpf_prog_load
    load.argtypes = [ctypes.c_int, *[ctypes.c_char_p] * 3, ctypes.c_size_t, ctypes.c_void_p]
    return int(load(type_, name, b"GPL", instructions, len(instructions) // 8, ctypes.byref(options)))


#: Commands of bpf(2), from linux/bpf.h.
OBJ_GET_INFO_BY_FD = 15
_RAW_TRACEPOINT_OPEN = 17
_LINK_CREATE = 28
#: Kinds of links: enum bpf_attach_type.
_PERF_EVENT = 41
KPROBE_SESSION = 56
#: The numbers of bpf(2) and perf_event_open(2) by machine.
_CALLS = {"x86_64": (321, 298), "aarch64": (280, 241)}
#: From linux/perf_event.h: struct perf_event_attr as of version 1, PERF_FLAG_FD_CLOEXEC,
#: PERF_EVENT_IOC_SET_BPF and PERF_EVENT_IOC_ENABLE.
_PERF_ATTR = struct.Struct("<IIQQQQQIIQQ")
_PERF_CLOEXEC = 8
_PERF_SET_BPF, _PERF_ENABLE = 0x40042408, 0x2400
_KPROBES = "/sys/bus/event_source/devices/kprobe"
#: Where union members of struct bpf_link_info begin.
_LINK_INFO_SIZE = 128
#: struct bpf_prog_info: its size, and where its u64 recursion_misses is.
_PROGRAM_INFO_SIZE = 224
_RECURSION_MISSES = 208


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call.  Raises OSError."""
    words = [one if not isinstance(one, int) else ctypes.c_long(one) for one in arguments]
    result = _libc().syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Call bpf(2) with a union bpf_attr; return its result and the attributes as they are then.

    Raises OSError.
    """
    union = ctypes.create_string_buffer(attributes, len(attributes))
    result = _call(_CALLS[platform.machine()][0], command, union, len(attributes))
    return result, union.raw


def attach_tracing(program: int) -> int:
    """Attach an fentry or fexit program to the function that it was loaded for.  Raises OSError."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", 0, program))[0]


def attach_tracepoint(program: int, name: str) -> int:
    """Attach a program to a raw tracepoint.  Raises OSError."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", ctypes.addressof(text), program))[0]


def attach_session(program: int, function: str) -> int:
    """Attach a kprobe.session program to the entry and the return of a function.  Raises OSError."""
    text = ctypes.c_char_p(function.encode())
    names = ctypes.addressof(text)
    attributes = struct.pack("<IIIIIIQQQ", program, 0, KPROBE_SESSION, 0, 0, 1, names, 0, 0)
    return _bpf(_LINK_CREATE, attributes)[0]


def attach_kprobe(program: int, function: str, at_return: bool, link: bool) -> int:
    """Attach a program to the entry or the return of a function, through a perf event.  Raises OSError.

    ``link``: by a link, which counts missed calls, where the kernel has such links (Linux 5.15).
    """
    type_ = int(_read(f"{_KPROBES}/type"))
    config = 1 << int(_read(f"{_KPROBES}/format/retprobe").partition(":")[2]) if at_return else 0
    name = ctypes.create_string_buffer(function.encode())
    event = ctypes.create_string_buffer(
        _PERF_ATTR.pack(type_, _PERF_ATTR.size, config, 1, 0, 0, 0, 1, 0, ctypes.addressof(name), 0),
        _PERF_ATTR.size,
    )
    fd = _call(_CALLS[platform.machine()][1], event, -1, 0, -1, _PERF_CLOEXEC)
    try:
        if link:
            made, _ = _bpf(_LINK_CREATE, struct.pack("<IIII8x", program, fd, _PERF_EVENT, 0))
            os.close(fd)
            return made
        for request, argument in ((_PERF_SET_BPF, program), (_PERF_ENABLE, 0)):
            if _libc().ioctl(fd, ctypes.c_ulong(request), ctypes.c_long(argument)) < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
    except OSError:
        os.close(fd)
        raise
    return fd


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def skipped(program: int) -> int | None:
    """Return how often the kernel did not run a program because of another one on that processor.

    None where the kernel does not count that (before 5.12) or does not tell.
    """
    return _counted(program, _PROGRAM_INFO_SIZE, _RECURSION_MISSES)


def missed(link: int, offset: int) -> int | None:
    """Return how many calls a kprobe's link missed.  ``offset``: of the count in struct bpf_link_info."""
    return _counted(link, _LINK_INFO_SIZE, offset)


def _counted(fd: int, size: int, offset: int) -> int | None:
    """Return a u64 of what the kernel tells of a descriptor; None if it is not told."""
    info = ctypes.create_string_buffer(size)
    try:
        _, told = _bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, size, ctypes.addressof(info)))
    except OSError:
        return None
    (length,) = struct.unpack_from("<4xI", told)
    if length < offset + 8:
        return None
    return int.from_bytes(info.raw[offset : offset + 8], "little")
