"""bpf(2) and perf_event_open(2) for what versions of libbpf and bcc do differently.

Programs with global functions, arrays of maps, links, and what the kernel counts.  Source: union bpf_attr in
linux/bpf.h, struct perf_event_attr in linux/perf_event.h, and Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import struct
from functools import cache
from pathlib import Path
from typing import Any

#: The numbers of bpf(2) and perf_event_open(2) on this machine; a confined process may not ask for its name.
_BPF, _PERF_EVENT_OPEN = {"aarch64": (280, 241)}.get(os.uname().machine, (321, 298))
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _BTF_LOAD = 0, 2, 5, 18
_OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE = 15, 17, 28
#: Kinds of links: enum bpf_attach_type.
_PERF_EVENT = 41
TRACE_KPROBE_SESSION = 56
#: PERF_FLAG_FD_CLOEXEC, PERF_EVENT_IOC_SET_BPF and PERF_EVENT_IOC_ENABLE.
_PERF_CLOEXEC = 8
_PERF_SET_BPF, _PERF_ENABLE = 0x40042408, 0x2400
_KPROBES = Path("/sys/bus/event_source/devices/kprobe")
#: Room for struct bpf_link_info.
_LINK_INFO_SIZE = 128
#: struct bpf_prog_info: its size, and where its u64 recursion_misses is.
_PROGRAM_INFO_SIZE = 224
_RECURSION_MISSES = 208
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


class _RawTracepoint(ctypes.Structure):
    _fields_ = [("name", ctypes.c_uint64), ("prog_fd", ctypes.c_uint32)]


class _LinkCreate(ctypes.Structure):
    _fields_ = [
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("kprobe_multi_flags", ctypes.c_uint32),
        ("kprobe_multi_cnt", ctypes.c_uint32),
        ("kprobe_multi_syms", ctypes.c_uint64),
        ("kprobe_multi_addrs", ctypes.c_uint64),
        ("kprobe_multi_cookies", ctypes.c_uint64),
    ]


class _GetInfo(ctypes.Structure):
    _fields_ = [("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64)]


class _PerfEvent(ctypes.Structure):
    """The first version (PERF_ATTR_SIZE_VER0) and the next member."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("kprobe_func", ctypes.c_uint64),
        ("probe_offset", ctypes.c_uint64),
    ]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: Any) -> int:
    """Make a system call.  Raises OSError."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    """Call bpf(2) and return its result.  Raises OSError."""
    size = ctypes.sizeof(attributes)
    return _call(_BPF, command, ctypes.byref(attributes), size)


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
    """Load a program and return its descriptor.

    Raises OSError; the verifier's log goes to stderr then.  ``hook``: enum bpf_attach_type, and the number of
    the function in the kernel's BTF.  ``functions``: by the place of the first instruction, each
    subprogram's name, and whether it is global.
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
        with contextlib.suppress(OSError, ValueError):  # in some containers
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
    """Make a map of one element, which is a map like ``inner``.  Raises OSError."""
    return _bpf(_MAP_CREATE, _MapCreate(_ARRAY_OF_MAPS, 4, 4, 1, 0, inner))


def update(map_: int, key: int, value: bytes) -> None:
    """Set an element whose key is a u32.  Raises OSError."""
    key_buffer = ctypes.create_string_buffer(struct.pack("<I", key), 4)
    buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE_ELEM, _MapElement(map_, _address(key_buffer), _address(buffer), 0))


def attach_tracing(program: int) -> int:
    """Attach an fentry or fexit program to the function that it was loaded for.  Raises OSError."""
    return _bpf(_RAW_TRACEPOINT_OPEN, _RawTracepoint(0, program))


def attach_tracepoint(program: int, name: str) -> int:
    """Attach a program to a raw tracepoint.  Raises OSError."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, _RawTracepoint(_address(text), program))


def attach_session(program: int, function: str) -> int:
    """Attach a kprobe.session program to the entry and the return of a function.  Raises OSError."""
    text = ctypes.c_char_p(function.encode())
    names = ctypes.addressof(text)
    return _bpf(
        _LINK_CREATE,
        _LinkCreate(program, attach_type=TRACE_KPROBE_SESSION, kprobe_multi_cnt=1, kprobe_multi_syms=names),
    )


def attach_kprobe(program: int, function: str, at_return: bool, link: bool) -> int:
    """Attach a program to the entry or the return of a function, through a perf event.  Raises OSError.

    ``link``: by a link, which counts missed calls, where the kernel has such links (Linux 5.15).
    """
    type_, return_bit = _kprobe_pmu()
    name = ctypes.create_string_buffer(function.encode())
    event = _PerfEvent(
        type=type_,
        size=ctypes.sizeof(_PerfEvent),
        config=return_bit if at_return else 0,
        sample_period=1,
        wakeup_events=1,
        kprobe_func=_address(name),
    )
    fd = _call(_PERF_EVENT_OPEN, ctypes.byref(event), -1, 0, -1, _PERF_CLOEXEC)
    try:
        if link:
            made = _bpf(_LINK_CREATE, _LinkCreate(program, fd, _PERF_EVENT))
            os.close(fd)
            return made
        fcntl.ioctl(fd, _PERF_SET_BPF, program)
        fcntl.ioctl(fd, _PERF_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


@cache
def _kprobe_pmu() -> tuple[int, int]:
    """Return the type of kprobes' perf events, and the bit of its configuration for returns."""
    bit = (_KPROBES / "format/retprobe").read_text().strip().partition(":")[2]
    return int((_KPROBES / "type").read_text()), 1 << int(bit)


def skipped(program: int) -> int | None:
    """Return how often the kernel did not run a program because of another one on that processor.

    None where the kernel does not count that (before 5.12) or does not tell.
    """
    return _counted(program, _PROGRAM_INFO_SIZE, _RECURSION_MISSES)


def missed(link: int, offset: int) -> int | None:
    """Return how many calls a kprobe's link missed; None where the kernel does not tell.

    ``offset``: of the count in struct bpf_link_info.
    """
    return _counted(link, _LINK_INFO_SIZE, offset)


def _counted(fd: int, size: int, offset: int) -> int | None:
    """Return a u64 of what the kernel tells of a descriptor; None if it is not told."""
    info = ctypes.create_string_buffer(size)
    attributes = _GetInfo(fd, size, _address(info))
    try:
        _bpf(_OBJ_GET_INFO_BY_FD, attributes)
    except OSError:
        return None
    if attributes.info_len < offset + 8:
        return None
    return int.from_bytes(info.raw[offset : offset + 8], "little")
