"""The record is declared in record.py; C, Lua and the prose page are generated from it, and agree with it."""

from __future__ import annotations

import re
import struct
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from generate import ENUMS, stale

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng

ROOT = Path(__file__).parents[2]
JSON_PAGE = (ROOT / "docs/json.md").read_text()
C = (ROOT / "unixsock_bpf/bpf/record.h").read_text()
LUA = (ROOT / "dissector/unixsock/record/format.lua").read_text()
PAGE = (ROOT / "docs/format.md").read_text()

C_TYPES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}


def number(text: str) -> int:
    """An integer as C or Lua write it: decimal, hexadecimal or a shift."""
    value, _, shift = text.partition("<<")
    return int(value, 0) << int(shift or 0)


def section(heading: str) -> str:
    """The page's text under ``heading``, up to the next one."""
    return PAGE.split(heading + "\n", 1)[1].split("\n#", 1)[0]


def members(enum: type[IntEnum] | type[IntFlag]) -> dict[str, int]:
    return {name: member.value for name, member in enum.__members__.items()}


def test_generated_files_are_current() -> None:
    assert not stale(), "run 'make generate'"


def test_names_on_the_json_page() -> None:
    for key, enum in (("event", record.Event), ("type", record.SocketType), ("flags", record.Flag)):
        (row,) = re.findall(rf"^\| `{key}` \| .*", JSON_PAGE, re.M)
        assert re.findall(r"`(\w+)`", row)[1:] == [name.lower() for name in enum.__members__]
    (row,) = re.findall(r"^\| `lost` \| .*", JSON_PAGE, re.M)
    reasons = [name.lower() for name in record.LostReason.__members__]
    assert re.findall(r"`(\w+)`", row.partition("reasons")[2]) == reasons


def test_header_in_c() -> None:
    body = re.search(r"struct record_header \{(.*?)\}", C, re.S)
    assert body
    found = [(name, C_TYPES[kind]) for kind, name in re.findall(r"\b(u\d+) (\w+);", body[1])]
    assert found == [(name, kind) for name, kind, _ in record.HEADER]


def test_header_in_lua() -> None:
    body = re.search(r"local HEADER = \{\n(.*?)\n\}", LUA, re.S)
    assert body
    found = re.findall(r'\{ "(\w+)", "(\w)" \}', body[1])
    assert found == [(name, kind) for name, kind, _ in record.HEADER]


def test_header_on_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d) \| `(\w+)` \|", section("### Fixed header"), re.M)
    at = 0
    expected = []
    for name, kind, _ in record.HEADER:
        size = struct.calcsize("<" + kind)
        expected.append((str(at), str(size), name))
        at += size
    assert rows == expected
    assert at == record.HEADER_LEN
    assert f"fixed header    {at} bytes" in PAGE


@pytest.mark.parametrize(("enum", "prefix"), [(row[0], row[1]) for row in ENUMS])
def test_enumeration_in_c(enum: type[IntEnum], prefix: str) -> None:
    found = {name: number(value) for name, value in re.findall(rf"^\s*{prefix}_(\w+) = ([\w <]+),", C, re.M)}
    assert found == members(enum)


@pytest.mark.parametrize(("enum", "table"), [(row[0], row[2]) for row in ENUMS])
def test_enumeration_in_lua(enum: type[IntEnum], table: str) -> None:
    body = re.search(rf"local {table} = \{{(.*?)\}}", LUA, re.S)
    assert body
    assert {name: number(value) for name, value in re.findall(r"(\w+) = (\w+)", body[1])} == members(enum)


@pytest.mark.parametrize(("enum", "heading"), [(row[0], row[3]) for row in ENUMS])
def test_enumeration_on_the_page(enum: type[IntEnum], heading: str) -> None:
    rows = re.findall(r"^\| (\w+) \| (\w+) \|", section(heading), re.M)
    assert {name: number(value) for value, name in rows if name != "Name"} == members(enum)


def test_elements_fixed_parts() -> None:
    body = re.search(r"local ELEMENT_LEN = \{(.*?)\}", LUA, re.S)
    assert body
    lengths = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", body[1])}
    page = dict(re.findall(r"^\| \d+ \| (\w+) \| (u\d.*?) \|$", section("### Elements"), re.M))
    c_names = {"I": "u32", "Q": "u64"}
    for element, fields in record.ELEMENT_FIELDS.items():
        assert lengths.pop(element.name) == struct.calcsize("<" + "".join(kind for _, kind in fields))
        assert page.pop(element.name).startswith(
            ", ".join(f"{c_names[kind]} {name}" for name, kind in fields)
        )
    assert not lengths
    assert not page


def test_versions_and_limits() -> None:
    assert re.findall(r"local VERSION = (\d+)", LUA) == [str(record.VERSION)]
    assert re.findall(r"#define RECORD_VERSION (\d+)", C) == [str(record.VERSION)]
    assert re.findall(r"#define MAX_PAYLOAD (\w+)", C) == [hex(record.MAX_PAYLOAD)]
    assert f"{record.MAX_PAYLOAD:,} ({record.MAX_PAYLOAD:#x})" in PAGE
    assert f"# The record format, version {record.VERSION}\n" in PAGE


def test_prefix_of_a_packet() -> None:
    words = [int(word, 0) for word in re.findall(r"#define PREFIX_\d (\w+)", C)]
    assert struct.pack("<4I", *words) == pcapng.PACKET_PREFIX
    assert '00 0c 00 08 "unixsock" 00 00 00 00' in PAGE
