"""The libbpf that libbcc works with, which is a part of it or a library of its own."""

from __future__ import annotations

import ctypes
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
