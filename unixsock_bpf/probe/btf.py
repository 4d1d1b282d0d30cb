"""Read the running kernel's structure layouts from its BTF, through the libbpf that libbcc loads.

Source: Documentation/bpf/btf.rst and libbpf's btf.h.  Only what is asked here: offsets of
members (through anonymous structures and unions), sizes, and how many arguments a function has.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from unixsock_bpf.probe import libbpf

_KIND_STRUCT, _KIND_UNION, _KIND_FUNC = 4, 5, 12
#: typedef, volatile, const, restrict, type tag: a name or qualifier around another type.
_KIND_WRAPPERS = (8, 9, 10, 11, 18)


class BtfError(Exception):
    """The kernel has no BTF, or not the type or member that was asked for."""


class _Type(ctypes.Structure):
    _fields_ = [("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32)]


class _Member(ctypes.Structure):
    _fields_ = [("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32)]


@dataclass(frozen=True)
class Member:
    """A member's place: ``offset`` and ``size`` in bytes; ``bit`` is set for bit fields only."""

    offset: int
    size: int
    bit: int | None = None


class Btf:
    """The running kernel's types.  Raises BtfError where there is no BTF."""

    has_function_types = True

    def __init__(self) -> None:
        self._lib = libbpf.library()
        #: What was looked up: each look goes through all of the kernel's types.
        self._found: dict[tuple[str, int], int] = {}
        load = getattr(self._lib, "btf__load_vmlinux_btf", None) or self._lib.libbpf_find_kernel_btf
        load.restype = ctypes.c_void_p
        self._lib.btf__type_by_id.restype = ctypes.POINTER(_Type)
        self._lib.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self._lib.btf__name_by_offset.restype = ctypes.c_char_p
        self._lib.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self._lib.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
        self._lib.btf__resolve_size.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        self._lib.btf__resolve_size.restype = ctypes.c_int64
        self._lib.libbpf_get_error.argtypes = [ctypes.c_void_p]
        self._lib.libbpf_get_error.restype = ctypes.c_long
        self._btf = ctypes.c_void_p(load())
        if not self._btf or self._lib.libbpf_get_error(self._btf):
            raise BtfError("the kernel has no BTF (/sys/kernel/btf/vmlinux is missing)")

    def _find(self, name: str, kind: int) -> int:
        if (name, kind) not in self._found:
            self._found[name, kind] = int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))
        return self._found[name, kind]

    def _type(self, type_id: int) -> _Type:
        found: _Type = self._lib.btf__type_by_id(self._btf, type_id).contents
        return found

    def _kind(self, type_: _Type) -> int:
        return int(type_.info) >> 24 & 0x1F

    def _resolve(self, type_id: int) -> int:
        """Return the type behind typedefs and qualifiers."""
        while self._kind(self._type(type_id)) in _KIND_WRAPPERS:
            type_id = self._type(type_id).size_or_type
        return type_id

    def _after(self, type_: _Type, count: int) -> ctypes.Array[_Member]:
        """Return the members that follow ``type_`` in memory."""
        members: ctypes.Array[_Member] = (_Member * count).from_address(
            ctypes.addressof(type_) + ctypes.sizeof(_Type)
        )
        return members

    def has_struct(self, name: str) -> bool:
        return self._find(name, _KIND_STRUCT) > 0

    def has_function(self, name: str) -> bool:
        return self._find(name, _KIND_FUNC) > 0

    def function(self, name: str) -> int:
        """Return the type id by which the kernel knows the function.  Raises BtfError if there is none."""
        type_id = self._find(name, _KIND_FUNC)
        if type_id <= 0:
            raise BtfError(f"the kernel's BTF has no function {name}")
        return type_id

    def argument_count(self, function: str) -> int:
        """Return how many arguments ``function`` has.  Raises BtfError if BTF does not have it."""
        prototype = self._type(self._type(self.function(function)).size_or_type)
        return int(prototype.info & 0xFFFF)

    def size(self, struct: str) -> int:
        """Bytes of ``struct``."""
        return int(self._type(self._struct(struct)).size_or_type)

    def _struct(self, name: str) -> int:
        type_id = self._find(name, _KIND_STRUCT)
        if type_id <= 0:
            raise BtfError(f"the kernel's BTF has no struct {name}")
        return type_id

    def member(self, path: str) -> Member | None:
        """Return the place of ``struct.member.member…``, or None where this kernel has no such member.

        Raises BtfError if there is no such struct.
        """
        struct, *names = path.split(".")
        type_id, offset, bit = self._struct(struct), 0, None
        for name in names:
            found = self._search(type_id, name)
            if found is None:
                return None
            at, type_id, bit = found
            offset += at
        return Member(offset, int(self._lib.btf__resolve_size(self._btf, type_id)), bit)

    def _search(self, type_id: int, name: str) -> tuple[int, int, int | None] | None:
        """Byte offset, type and bit of a member, also inside anonymous members."""
        type_ = self._type(self._resolve(type_id))
        if self._kind(type_) not in (_KIND_STRUCT, _KIND_UNION):
            return None
        bit_sizes = type_.info >> 31
        for member in self._after(type_, type_.info & 0xFFFF):
            bits = member.offset & 0xFFFFFF if bit_sizes else member.offset
            is_bit_field = bit_sizes and member.offset >> 24
            called = self._lib.btf__name_by_offset(self._btf, member.name).decode()
            if called == name:
                return bits // 8, member.type, bits % 8 if is_bit_field else None
            if not called:
                inner = self._search(member.type, name)
                if inner is not None:
                    return inner[0] + bits // 8, inner[1], inner[2]
        return None
