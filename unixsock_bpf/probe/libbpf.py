"""The libbpf that libbcc works with, which is a part of it or a library of its own."""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def library() -> ctypes.CDLL:
    """Return a library that has libbpf's functions.  Raises OSError."""
    bcc = ctypes.CDLL("libbcc.so.0")
    if hasattr(bcc, "btf__load_vmlinux_btf"):
        return bcc
    from ctypes.util import find_library  # takes milliseconds

    return ctypes.CDLL(find_library("bpf") or "libbpf.so.1")
