"""Where the kernel has the memory of pages, from the head of /proc/kcore or from /proc/kallsyms."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.probe.page_bases import addresses, page_bases

LINEAR, VMALLOC, VMEMMAP = 0xFFFF9A0580000000, 0xFFFFB0D940000000, 0xFFFFEE8D00000000
NOT_PHYSICAL = 2**64 - 1
FOUND = {"page_offset_base": LINEAR, "vmemmap_base": VMEMMAP}
#: A machine of 4 GB, as get_sparsemem_vmemmap_info in fs/proc/kcore.c has it: RAM below 640 kB, below a hole
#: at 3 GB, and above 4 GB.
RAM = [(0x1000, 0x9E000), (0x100000, 0xBFEE0000), (0x100000000, 0x40000000)]
DESCRIBED = [(0x0, 0x3000), (0x4000, 0x2FFC000), (0x4000000, 0x1000000)]
TEXT = (0xFFFFFFFF96800000, 0x33600000, 0x2A00000)
ELSEWHERE = [(VMALLOC, NOT_PHYSICAL, 2**45 - 1), (0xFFFFFFFFC0000000, NOT_PHYSICAL, 0x3F000000)]
ALL = [
    *((LINEAR + at, at, size) for at, size in RAM),
    *((VMEMMAP + at, NOT_PHYSICAL, size) for at, size in DESCRIBED),
    TEXT,
    *ELSEWHERE,
]


X86_64, AARCH64 = 62, 183


def kcore(segments: list[tuple[int, int, int]], machine: int = X86_64) -> bytes:
    """An ELF file's head, with a note before the segments: virtual and physical address, size."""
    head = (
        b"\x7fELF\2\1\1"
        + bytes(11)
        + struct.pack("<H", machine)
        + bytes(12)
        + struct.pack("<QQI6H", 64, 0, 0, 64, 56, 1 + len(segments), 0, 0, 0)
    )
    head += struct.pack("<IIQQQQQQ", 4, 0, 0x1000, 0, 0, 0x1000, 0, 4)
    for virtual, physical, size in segments:
        head += struct.pack("<IIQQQQQQ", 1, 7, 0x2000, virtual, physical, size, size, 0x1000)
    return head


def bases(tmp_path: Path, segments: list[tuple[int, int, int]], machine: int = X86_64) -> dict[str, int]:
    (tmp_path / "kcore").write_bytes(kcore(segments, machine))
    return page_bases(64, str(tmp_path / "kcore"))


def test_both_are_found_in_whatever_order(tmp_path: Path) -> None:
    assert bases(tmp_path, ALL) == FOUND
    assert bases(tmp_path, ALL[::-1]) == FOUND


def test_one_piece_of_memory_is_enough(tmp_path: Path) -> None:
    for at in range(len(RAM)):
        pieces = [ALL[at], ALL[len(RAM) + at], TEXT, *ELSEWHERE]
        assert bases(tmp_path, pieces) == FOUND


def test_nothing_is_guessed(tmp_path: Path) -> None:
    assert bases(tmp_path, []) == {}
    assert bases(tmp_path, [TEXT, *ELSEWHERE]) == {}
    assert bases(tmp_path, [*ALL[: len(RAM)], TEXT, *ELSEWHERE]) == {}  # pages are described nowhere
    moved = [(LINEAR + (5 << 30), 0x1000, 0x9E000)]
    assert bases(tmp_path, [*ALL, *moved]) == {}  # two mappings
    twice = [(VMEMMAP - (1 << 40), NOT_PHYSICAL, 0x3000)]
    assert bases(tmp_path, [*ALL, *twice]) == {}  # two descriptions
    assert page_bases(64, str(tmp_path / "missing")) == {}


def arm64(linear: int, vmemmap: int, text: int, ram: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """What arm64 lists: text at its place among what vmalloc gave; RAM, each piece with its description.

    ``linear`` and ``vmemmap``: where these areas would begin if memory began at 0.
    """
    segments = [
        (text, 0x40200000, 0x2010000),
        (0xFFFF800008000000, NOT_PHYSICAL, 0x7BFFE8000000),
        (0xFFFF800000000000, NOT_PHYSICAL, 0x8000000),
    ]
    for at, size in ram:
        segments.append((linear + at, at, size))
        segments.append((vmemmap + at // 64, NOT_PHYSICAL, size // 64))
    return segments


@pytest.mark.parametrize(
    ("linear", "vmemmap"),
    [
        (0xFFFEFFFFC0000000, 0xFFFFFBFFFF000000),  # Linux 6.1
        (0xFFFF06A900000000, 0xFFFFFC1AA4000000),  # with a randomised linear mapping
        (0xFFEFFFFFC0000000, 0xFFFFC1FFBF000000),  # Linux 6.12 with addresses of 52 bits
        (0xFFFF266780000000, 0xFFFFFE995E000000),  # built for them, on a processor of 48 bits
        (0xFFFEFFFFC0000000, 0xFFFFFDFFBF000000),  # Linux 7.2
        (0xFFFFFFEB00000000, 0xFFFFFFFFAC000000),  # near the end of all addresses
    ],
)
@pytest.mark.parametrize(
    "ram",
    [
        [(0x40000000, 0xC0000000)],
        [
            (0x40000000, 0x40000000),
            (0x880000000, 0x40000000),
        ],  # a node like the other, a multiple of 1 GiB away
    ],
)
def test_on_arm64_it_is_where_memory_would_begin(
    linear: int, vmemmap: int, ram: list[tuple[int, int]], tmp_path: Path
) -> None:
    text = 0xFFFFC02FB3200000
    found = {"page_offset_base": linear, "vmemmap_base": vmemmap}
    assert bases(tmp_path, arm64(linear, vmemmap, text, ram), AARCH64) == found


def test_nothing_is_guessed_on_arm64(tmp_path: Path) -> None:
    good = arm64(0xFFFF06A900000000, 0xFFFFFC1AA4000000, 0xFFFFC02FB3200000, [(0x40000000, 0xC0000000)])
    assert bases(tmp_path, good[:-1], AARCH64) == {}  # no description
    virtual, _, size = good[-1]
    assert bases(tmp_path, [*good[:-1], (virtual + 4096, NOT_PHYSICAL, size)], AARCH64) == {}
    assert bases(tmp_path, [*good[:-1], (virtual, NOT_PHYSICAL, size - 4096)], AARCH64) == {}
    virtual, physical, size = good[-2]
    assert bases(tmp_path, [*good, (virtual, physical + (1 << 30), size)], AARCH64) == {}  # two mappings
    assert bases(tmp_path, [*good[:3], *good[:2:-1]], AARCH64) == {}  # in another order than the kernel's


@given(st.binary(max_size=300) | st.integers(0, len(kcore(ALL))).map(lambda size: kcore(ALL)[:size]))
def test_a_broken_head_tells_nothing_else(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert page_bases(64, file.name) in ({}, FOUND)


KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff82a01230 D other_vmemmap_base
ffffffff82a01238 D vmemmap_base
ffffffff82a01240 D vmemmap_base_other
0000000000000000 D hidden
ffffffffc0000000 t vmemmap_base_of_a_module\t[module]
"""


def test_whole_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    found = addresses(["vmemmap_base", "missing", "hidden"], str(tmp_path / "kallsyms"))
    assert found == {"vmemmap_base": 0xFFFFFFFF82A01238, "hidden": 0}


def test_without_kallsyms_there_are_none(tmp_path: Path) -> None:
    assert addresses(["vmemmap_base"], str(tmp_path / "missing")) == {}
