"""Where the kernel has the memory of pages, from the head of /proc/kcore.

kcore is an ELF file whose program headers say where which memory lies: physical memory in the kernel's linear
mapping, and the descriptions of its pages, struct page.  Source: kclist_add_private and
get_sparsemem_vmemmap_info in fs/proc/kcore.c.  The same can be told from kallsyms (``addresses``), but that
takes longer, hides all addresses where kernel.kptr_restrict is 2, and has none of variables in a kernel
without CONFIG_KALLSYMS_ALL.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: The kernel's variables that say it.
BASES = ("page_offset_base", "vmemmap_base")

#: ELF64: e_phoff; e_phentsize and e_phnum.
_HEADERS_AT, _SIZES_AT = 32, 54
#: A program header: u32 type and flags; u64 offset, virtual and physical address, size in file and memory.
_HEADER = struct.Struct("<6Q")
_LOAD = 1
_NOT_PHYSICAL = 2**64 - 1
#: Above are the kernel's own text and its modules.
_TEXT = 0xFFFFFFFF80000000
#: Both areas begin at a multiple of this, wherever the kernel moves them (kernel_randomize_memory).
_ALIGNED = 1 << 30
#: Bytes that hold the headers of all memory that a machine may have.
_HEAD = 1 << 16


@dataclass(frozen=True)
class _Segment:
    virtual: int
    physical: int
    size: int


def page_bases(page_size: int, path: str = "/proc/kcore") -> dict[str, int]:
    """Return the values of BASES by their names; none, if they are not certain.

    ``page_size``: bytes of a struct page.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            segments = _segments(file.read(_HEAD))
    except (OSError, struct.error):
        return {}
    memory = [one for one in segments if one.physical != _NOT_PHYSICAL]
    others = [one for one in segments if one.physical == _NOT_PHYSICAL]
    mappings = {one.virtual - one.physical for one in memory}
    arrays = {_array(one, other, page_size) for one in memory for other in others} - {0}
    if len(mappings) != 1 or len(arrays) != 1:
        return {}
    (mapping,), (array,) = mappings, arrays
    return dict(zip(BASES, (mapping, array))) if mapping % _ALIGNED == 0 else {}


def addresses(names: Iterable[str], path: str = "/proc/kallsyms") -> dict[str, int]:
    """Return addresses of the kernel's variables by name, without those that kallsyms lacks; 0: hidden.

    Reading it takes a tenth of a second.
    """
    table = b""
    with contextlib.suppress(OSError):  # a kernel without
        table = Path(path).read_bytes()
    found = {}
    for name in names:
        at = table.find(b" " + name.encode() + b"\n")
        if at >= 0:
            line = table[table.rfind(b"\n", 0, at) + 1 : at]
            found[name] = int(line.split()[0], 16)
    return found


def _segments(head: bytes) -> list[_Segment]:
    """Return the loaded segments of an ELF file.  Raises struct.error."""
    (at,) = struct.unpack_from("<Q", head, _HEADERS_AT)
    each, count = struct.unpack_from("<HH", head, _SIZES_AT)
    found = []
    for number in range(count):
        kind, _, virtual, physical, _, size = _HEADER.unpack_from(head, at + number * each)
        if kind & 0xFFFFFFFF == _LOAD and virtual < _TEXT:
            found.append(_Segment(virtual, physical, size))
    return found


def _array(memory: _Segment, other: _Segment, page_size: int) -> int:
    """Where the array of all struct pages begins, if ``other`` is its part for ``memory``; or 0."""
    first = memory.physical // mmap.PAGESIZE * page_size
    end = first + memory.size // mmap.PAGESIZE * page_size
    begin = first & -mmap.PAGESIZE
    base = other.virtual - begin
    fits = other.size == (end + mmap.PAGESIZE - 1 & -mmap.PAGESIZE) - begin
    return base if fits and base % _ALIGNED == 0 else 0
