"""Maps of the kernel: how large they are, how one is made, and its elements in Python.

Source: Documentation/bpf/maps.rst; bcc's JSON for the types in C.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import libbpf

if TYPE_CHECKING:
    from bcc import BPF

#: BPF_MAP_TYPE_RINGBUF in linux/bpf.h, whose maps have no elements.
_RING = 27
#: BPF_MAP_TYPE_ARRAY and _PROG_ARRAY.
_ARRAYS = (2, 3)

#: BPF_F_NO_PREALLOC in linux/bpf.h: the map's elements take memory when they are made.
_NO_PREALLOC = 1

#: Elements of maps that are small in C, so that compiling takes little memory: sockets whose state the
#: probe keeps at a time, pairs of datagram sockets that talk, processes in the snapshot of socket
#: holders, and cgroups.
MAX_SOCKETS = 131_072
_ON_DEMAND = {"endpoints": MAX_SOCKETS, "flows": 131_072, "holders": 65_536, "cgroups": 16_384}
#: The same where the kernel takes memory for all of them beforehand.
_BEFOREHAND = {"endpoints": 32_768, "flows": 16_384, "holders": 16_384, "cgroups": 4_096}


def sized(name: str, shape: Shape, buffer_mib: int, on_demand: bool) -> Shape:
    """Return the map ``name`` as large as it has to be; in C some are small, so that compiling is cheap.

    ``on_demand``: a tracing program may add to maps whose elements take memory when they are made
    (Linux commit fba1a1c6c912 ("bpf: Convert hash map to bpf_mem_alloc."), v6.1).
    """
    if name == "ring":
        pages = buffer_mib * 2**20 // mmap.PAGESIZE
        return replace(shape, max_entries=mmap.PAGESIZE * max(1, 1 << (pages - 1).bit_length()))
    if name not in _ON_DEMAND:
        return shape
    if on_demand:
        return replace(shape, max_entries=_ON_DEMAND[name], flags=shape.flags | _NO_PREALLOC)
    return replace(shape, max_entries=_BEFOREHAND[name])


#: What the kernel adds to an element of a hash (struct htab_elem) and takes for a bucket.
_ELEMENT_HEAD, _BUCKET = 48, 16


def memory(shape: Shape) -> int:
    """Return about how many bytes a map takes as soon as it is made."""
    if shape.type == _RING:
        return shape.max_entries
    element = -(-shape.key_size // 8) * 8 + -(-shape.leaf_size // 8) * 8
    if shape.type in _ARRAYS:
        return shape.max_entries * (element - 8)
    elements = 0 if shape.flags & _NO_PREALLOC else shape.max_entries
    return elements * (_ELEMENT_HEAD + element) + (1 << (shape.max_entries - 1).bit_length()) * _BUCKET


def fill_caches(found: Iterable[Map], processors: Iterable[int]) -> None:
    """Have each processor keep memory for new elements of the maps that take it on demand.

    A program takes memory from what its processor keeps, which is filled up in an interrupt, and is a single
    element before the first one was taken (prefill_mem_cache in kernel/bpf/memalloc.c).  Where kprobes run
    with interrupts off, as on arm64, a message between two new sockets would find too little.
    """
    on_demand = [one for one in found if one.shape.flags & _NO_PREALLOC]

    def fill() -> None:
        for processor in processors:
            with contextlib.suppress(OSError):  # one that this process may not run on
                os.sched_setaffinity(0, {processor})
                for one in on_demand:
                    one.add_and_remove()

    # Affinity is the thread's own.
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()


@dataclass(frozen=True)
class Shape:
    """What a map is: type and flags as in linux/bpf.h, sizes in bytes, and bcc's JSON for key and leaf."""

    type: int
    key_size: int
    leaf_size: int
    max_entries: int
    flags: int
    key: str
    leaf: str


def shapes(bpf: BPF) -> dict[str, Shape]:
    """Return the maps of a bcc module, by name."""
    import bcc

    lib, module = bcc.lib, bpf.module
    # bcc itself has no use for these, and does not declare them.
    count_of = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(("bpf_num_tables", lib))
    name_of = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)(("bpf_table_name", lib))
    size = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)
    key_size_of, leaf_size_of = (size((f"bpf_table_{what}_size_id", lib)) for what in ("key", "leaf"))
    found = {}
    for at in range(count_of(ctypes.c_void_p(module))):
        name = name_of(module, at)
        kind = lib.bpf_table_type_id(module, at)
        found[name.decode()] = Shape(
            kind,
            0 if kind == _RING else key_size_of(module, at),
            0 if kind == _RING else leaf_size_of(module, at),
            lib.bpf_table_max_entries_id(module, at),
            lib.bpf_table_flags_id(module, at),
            (lib.bpf_table_key_desc(module, name) or b"").decode(),
            (lib.bpf_table_leaf_desc(module, name) or b"").decode(),
        )
    return found


def create(name: str, shape: Shape) -> int:
    """Create a map and return its descriptor.  Raises ProbeError."""
    import bcc

    fd = bcc.lib.bcc_create_map(
        *(shape.type, name.encode()), *(shape.key_size, shape.leaf_size, shape.max_entries, shape.flags)
    )
    if fd < 0:
        raise ProbeError(f"the map {name} can't be made: {os.strerror(ctypes.get_errno())}")
    return int(fd)


class Map:
    """A map behind ``fd``.  ``Key`` and ``Leaf``: its elements' types, of ctypes.

    Raises KeyError where the kernel refuses, which it also does to a process without privileges.
    """

    def __init__(self, fd: int, shape: Shape) -> None:
        self.fd = fd
        self.shape = shape

    @cached_property
    def Key(self) -> Any:
        """A key; numbers, too, need it."""
        return _type(self.shape.key)

    @cached_property
    def Leaf(self) -> Any:
        """A value."""
        return _type(self.shape.leaf)

    def __getitem__(self, key: Any) -> Any:
        import bcc

        leaf = self.Leaf()
        if bcc.lib.bpf_lookup_elem(self.fd, ctypes.byref(key), ctypes.byref(leaf)) < 0:
            raise KeyError(key)
        return leaf

    def __setitem__(self, key: Any, leaf: Any) -> None:
        import bcc

        if bcc.lib.bpf_update_elem(self.fd, ctypes.byref(key), ctypes.byref(leaf), 0) < 0:
            raise KeyError(os.strerror(ctypes.get_errno()))

    def add_and_remove(self) -> None:
        """Add an element of zeros, and remove it.  Not for a map that programs use already."""
        import bcc

        key = ctypes.create_string_buffer(self.shape.key_size)
        leaf = ctypes.create_string_buffer(self.shape.leaf_size)
        bcc.lib.bpf_update_elem(self.fd, key, leaf, 0)
        bcc.lib.bpf_delete_elem(self.fd, key)

    def freeze(self) -> None:
        """Let nothing but programs change it from now on.  Raise ProbeError."""
        if libbpf.library().bpf_map_freeze(self.fd) < 0:
            raise ProbeError("a map can't be frozen")

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield all elements once, except such as come and go meanwhile.

        After a key that was deleted the kernel begins anew: what was there is skipped, in bounded steps.
        """
        import bcc

        key, seen = self.Key(), set()
        more = bcc.lib.bpf_get_first_key(self.fd, ctypes.byref(key), ctypes.sizeof(key))
        for _ in range(4 * self.shape.max_entries):
            if more != 0:
                break
            following = self.Key()
            more = bcc.lib.bpf_get_next_key(self.fd, ctypes.byref(key), ctypes.byref(following))
            leaf = self.Leaf()
            known = bytes(key)
            if (
                known not in seen
                and bcc.lib.bpf_lookup_elem(self.fd, ctypes.byref(key), ctypes.byref(leaf)) == 0
            ):
                seen.add(known)
                yield key, leaf
            key = following

    def values(self) -> Iterator[Any]:
        """Yield the values of ``items``."""
        return (leaf for _, leaf in self.items())


def _type(description: str) -> Any:
    import bcc

    return bcc.BPF._decode_table_type(json.loads(description))
