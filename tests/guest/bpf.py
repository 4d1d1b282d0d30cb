"""BPF programs that the kernel has loaded, whoever loaded them."""

from __future__ import annotations

import ctypes
import os
import struct

from unixsock_bpf.probe import code

_BPF = 321  # x86_64
_PROG_GET_NEXT_ID, _PROG_GET_FD_BY_ID = 11, 13

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, 128)
    return int(_libc.syscall(_BPF, command, buffer, len(buffer))), buffer.raw


def skipped_runs() -> int:
    """How often the kernel did not run one of them because it ran already on that processor."""
    total, last = 0, 0
    while True:
        result, buffer = _bpf(_PROG_GET_NEXT_ID, struct.pack("<II", last, 0))
        if result:
            return total
        (last,) = struct.unpack_from("<I", buffer, 4)
        fd, _ = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<I", last))
        if fd >= 0:
            total += code.skipped(fd)
            os.close(fd)
