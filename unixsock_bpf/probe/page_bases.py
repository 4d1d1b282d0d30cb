"""Where the kernel has the memory of pages, from the head of /proc/kcore.

kcore is an ELF file whose program headers say where which memory lies: physical memory in the kernel's linear
mapping, and the descriptions of its pages, struct page.  Source: kclist_add_private and
get_sparsemem_vmemmap_info in fs/proc/kcore.c.  On x86-64 the same can be told from kallsyms (``addresses``),
but that takes longer, hides all addresses where kernel.kptr_restrict is 2, and has none of variables in a
kernel without CONFIG_KALLSYMS_ALL.

On arm64 the kernel takes the address of memory, PHYS_OFFSET, off both: what is found here is where both areas
would begin if memory began at 0 (page_to_virt and virt_to_page in arch/arm64/include/asm/memory.h).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: The kernel's variables that say it on x86-64.
BASES = ("page_offset_base", "vmemmap_base")

#: ELF64: e_machine; e_phoff; e_phentsize and e_phnum.
_MACHINE_AT, _HEADERS_AT, _SIZES_AT = 18, 32, 54
_AARCH64 = 183
#: A program header: u32 type and flags; u64 offset, virtual and physical address, size in file and memory.
_HEADER = struct.Struct("<6Q")
_LOAD = 1
_NOT_PHYSICAL = 2**64 - 1
#: Above are the kernel's own text and its modules on x86-64.
_TEXT = 0xFFFFFFFF80000000
#: Both areas begin at a multiple of this, wherever the kernel moves them (kernel_randomize_memory); on arm64
#: the linear mapping does, and the other one at what describes so much of it (ARM64_MEMSTART_ALIGN).
_ALIGNED = 1 << 30
#: Bytes that hold the headers of all memory that a machine may have.
_HEAD = 1 << 16


@dataclass(frozen=True)
class _Segment:
    virtual: int
    physical: int
    size: int

    def lies_in(self, other: _Segment) -> bool:
        """Return whether all of it is at addresses of another one."""
        begin, end = other.virtual, other.virtual + other.size
        return begin <= self.virtual and self.virtual + self.size <= end


def page_bases(page_size: int, path: str = "/proc/kcore") -> dict[str, int]:
    """Return the values of BASES by their names; none, if they are not certain.

    ``page_size``: bytes of a struct page.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
        segments = _segments(head)
        (machine,) = struct.unpack_from("<H", head, _MACHINE_AT)
    except (OSError, struct.error):
        return {}
    if machine == _AARCH64:
        # The kernel's own text is listed, too, at its place among what vmalloc gave.
        virtual = [one for one in segments if one.physical == _NOT_PHYSICAL]
        segments = [one for one in segments if one in virtual or not any(map(one.lies_in, virtual))]
        # Pieces of the same size fit each other's descriptions; the kernel lists each right behind its piece.
        pairs = list(zip(segments, segments[1:]))
        aligned = _ALIGNED // mmap.PAGESIZE * page_size
    else:
        segments = [one for one in segments if one.virtual < _TEXT]
        pairs = list(itertools.product(segments, segments))
        aligned = _ALIGNED
    mappings = {one.virtual - one.physical for one in segments if one.physical != _NOT_PHYSICAL}
    arrays = {
        _array(one, other, page_size, aligned)
        for one, other in pairs
        if one.physical != _NOT_PHYSICAL and other.physical == _NOT_PHYSICAL
    } - {0}
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
        if kind & 0xFFFFFFFF == _LOAD:
            found.append(_Segment(virtual, physical, size))
    return found


def _array(memory: _Segment, other: _Segment, page_size: int, aligned: int) -> int:
    """Where the array of all struct pages begins, if ``other`` is its part for ``memory``; or 0.

    ``aligned``: what its address is a multiple of.
    """
    first = memory.physical // mmap.PAGESIZE * page_size
    end = first + memory.size // mmap.PAGESIZE * page_size
    begin = first & -mmap.PAGESIZE
    base = other.virtual - begin
    fits = other.size == (end + mmap.PAGESIZE - 1 & -mmap.PAGESIZE) - begin
    return base if fits and base % aligned == 0 else 0
