"""A sockmap with a verdict program that redirects: made by bpf(2) alone."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct

_BPF, _MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _PROG_ATTACH = 321, 0, 2, 5, 8
_SOCKMAP, _SK_SKB, _SK_SKB_VERDICT = 15, 14, 38


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    found = libc.syscall(_BPF, command, room, 128)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)


def _instruction(code: int, registers: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, value)


def redirect(payload: bytes) -> tuple[int, int] | None:
    """Send a datagram that a sockmap takes to a third socket; inodes of who sent it, and to whom.

    None where sockmaps don't take Unix sockets.
    """
    target_sender, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    # Before Linux 5.11 maps count as locked memory.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    table = _bpf(_MAP_CREATE, struct.pack("<5I", _SOCKMAP, 4, 4, 2, 0))
    code = (
        _instruction(0x18, 0x12, 0, table)  # r2 = the map
        + _instruction(0)
        + _instruction(0xB7, 0x03, 0, 0)  # r3 = its element 0
        + _instruction(0xB7, 0x04, 0, 1)  # r4 = BPF_F_INGRESS
        + _instruction(0x85, 0, 0, 52)  # bpf_sk_redirect_map
        + _instruction(0x95)
    )
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    program = _bpf(
        _PROG_LOAD,
        struct.pack("<IIQQ", _SK_SKB, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence)),
    )
    try:
        _bpf(_PROG_ATTACH, struct.pack("<4I", table, program, _SK_SKB_VERDICT, 0))
        for number, one in enumerate((target, receiver)):
            key, value = ctypes.c_uint32(number), ctypes.c_uint32(one.fileno())
            _bpf(
                _MAP_UPDATE,
                struct.pack("<IIQQQ", table, 0, ctypes.addressof(key), ctypes.addressof(value), 0),
            )
    except OSError:
        return None
    finally:
        os.close(program)
    sender.send(payload)
    target.settimeout(20)
    assert target.recv(100) == payload
    os.close(table)
    inodes = os.fstat(sender.fileno()).st_ino, os.fstat(receiver.fileno()).st_ino
    for one in (target_sender, target, sender, receiver):
        one.close()
    return inodes
