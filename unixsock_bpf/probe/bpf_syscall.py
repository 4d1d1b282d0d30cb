"""bpf(2) for what libbpf's versions do differently: programs with global functions, and arrays of maps.

Source: union bpf_attr in linux/bpf.h, and Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _BTF_LOAD = 0, 2, 5, 18
_ARRAY_OF_MAPS = 12
#: Bytes for what the verifier says of a program that it refuses.
_LOG_SIZE = 16 << 20


class _MapCreate(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("map_type", "key_size", "value_size", "max_entries", "map_flags", "inner_map_fd")
    ]


class _MapElement(ctypes.Structure):
    _fields_ = [
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _ProgLoad(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("func_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("line_info_cnt", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
    ]


class _BtfLoad(ctypes.Structure):
    _fields_ = [
        ("btf", ctypes.c_uint64),
        ("btf_log_buf", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("btf_log_size", ctypes.c_uint32),
        ("btf_log_level", ctypes.c_uint32),
    ]


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    """The result.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.byref(attributes), ctypes.c_uint(ctypes.sizeof(attributes)))
    result = int(libc.syscall(ctypes.c_long(_NUMBERS[os.uname().machine]), ctypes.c_int(command), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def load_program(
    name: str,
    type_: int,
    instructions: bytes,
    hook: tuple[int, int] = (0, 0),
    functions: dict[int, tuple[str, bool]] | None = None,
    log_level: int = 0,
) -> int:
    """Loads a program and returns its descriptor.  Raises OSError; the verifier's words go to stderr then.

    ``hook``: enum bpf_attach_type, and the number of the function in the kernel's BTF.  ``functions``: by
    the place of the first instruction, each subprogram's name, and whether it is global.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")
    attributes = _ProgLoad(
        prog_type=type_,
        insn_cnt=len(instructions) // 8,
        insns=_address(code),
        license=_address(license_),
        prog_name="".join(c if c.isalnum() else "_" for c in name)[:15].encode(),
        expected_attach_type=hook[0],
        attach_btf_id=hook[1],
    )
    btf = None
    if functions:
        btf, infos = _function_types(name, functions)
        info = ctypes.create_string_buffer(infos, len(infos))
        attributes.prog_btf_fd, attributes.func_info_rec_size = btf, 8
        attributes.func_info, attributes.func_info_cnt = _address(info), len(infos) // 8
    try:
        if log_level:
            return _load_with_log(attributes, log_level)
        try:
            return _bpf(_PROG_LOAD, attributes)
        except OSError as error:
            if error.errno != errno.EPERM:
                return _load_with_log(attributes, 1)
        # Before Linux 5.11 programs count as locked memory.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return _bpf(_PROG_LOAD, attributes)
    finally:
        if btf is not None:
            os.close(btf)


def _load_with_log(attributes: _ProgLoad, level: int) -> int:
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attributes.log_level, attributes.log_size, attributes.log_buf = level, _LOG_SIZE, _address(log)
    try:
        return _bpf(_PROG_LOAD, attributes)
    finally:
        os.write(2, log.value if level > 1 else log.value[-4096:])


def _function_types(name: str, functions: dict[int, tuple[str, bool]]) -> tuple[int, bytes]:
    """BTF's descriptor, and a ``struct bpf_func_info`` for the program and for each subprogram.

    A global one takes a u64 and returns one; of the others the verifier knows by following them.
    """
    strings = b"\0u64\0argument\0"
    types = struct.pack("<4I", 1, 1 << 24, 8, 64)  # 1: u64
    types += struct.pack("<5I", 0, 13 << 24 | 1, 1, 5, 1)  # 2: u64 (*)(u64 argument)
    types += struct.pack("<3I", 0, 13 << 24, 1)  # 3: u64 (*)(void)
    infos = b""
    for number, (at, (function, is_global)) in enumerate(sorted({0: (name, False), **functions}.items()), 4):
        types += struct.pack("<3I", len(strings), 12 << 24 | is_global, 2 if is_global else 3)
        strings += function.encode() + b"\0"
        infos += struct.pack("<2I", at, number)
    head = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = ctypes.create_string_buffer(head + types + strings, len(head + types + strings))
    return _bpf(_BTF_LOAD, _BtfLoad(btf=_address(blob), btf_size=len(blob))), infos


def array_of_maps(inner: int) -> int:
    """A map of one element, which is a map like ``inner``.  Raises OSError."""
    return _bpf(_MAP_CREATE, _MapCreate(_ARRAY_OF_MAPS, 4, 4, 1, 0, inner))


def update(map_: int, key: int, value: bytes) -> None:
    """Sets an element whose key is a u32.  Raises OSError."""
    key_buffer = ctypes.create_string_buffer(struct.pack("<I", key), 4)
    buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE_ELEM, _MapElement(map_, _address(key_buffer), _address(buffer), 0))
