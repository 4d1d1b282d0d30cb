"""Compiled programs as bytes: what they refer to, and what is kept of them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from unixsock_bpf.probe import bytecode, cache, compiler
from unixsock_bpf.probe.bytecode import Bytecode, Subprogram
from unixsock_bpf.probe.compiler import Compiled
from unixsock_bpf.probe.maps import Shape


def instruction(operation: int, registers: int, value: int) -> bytes:
    return struct.pack("<BBhi", operation, registers, 0, value)


#: r1 = map 5; r2 = 0x510775; r1 = map 9, of whose two parts the second has no operation; r3 = the number 5
COMPILED = b"".join(
    [
        *(instruction(0x18, 0x11, 5), instruction(0, 0, 0)),
        instruction(0xB7, 0x02, 0x510775),
        *(instruction(0x18, 0x11, 9), instruction(0, 0, 0)),
        *(instruction(0x18, 0x03, 5), instruction(0, 0, 0)),
    ]
)


def test_maps_are_known_by_name_and_get_other_descriptors() -> None:
    compiled = bytecode.of(COMPILED, {"ring": 5, "totals": 9})
    assert compiled.maps == {0: "ring", 3: "totals"}
    linked = compiled.linked({"ring": 70_000, "totals": 3})
    assert bytecode.of(linked, {"ring": 70_000, "totals": 3}).maps == compiled.maps
    assert linked[40:] == COMPILED[40:]
    with pytest.raises(KeyError):
        compiled.linked({"ring": 1})


def test_one_number_is_replaced() -> None:
    changed = Bytecode(COMPILED, {}).with_value(0x510775, 12)
    assert changed.instructions == COMPILED.replace(struct.pack("<i", 0x510775), struct.pack("<i", 12))
    with pytest.raises(ValueError, match="unpack"):
        changed.with_value(0x510775, 13)


def test_a_number_may_be_moved_as_32_bits() -> None:
    code = Bytecode(instruction(0xB4, 0x02, 0x510775), {}).with_value(0x510775, 12)
    assert code.instructions == instruction(0xB4, 0x02, 12)


def test_functions_of_the_kernel_are_called_by_their_btf_number() -> None:
    text = b"".join(instruction(0x85, 0, number) for number in (900, 5)) + instruction(0x95, 0, 0)
    called = Bytecode(text, {}).calling_kernel({900: 65562})
    assert called.instructions == instruction(0x85, 0x20, 65562) + text[8:]


def test_what_is_called_is_put_behind_once() -> None:
    """Calls of helpers 7 and 900 become calls of two functions, that of helper 5 stays; maps move along."""
    text = b"".join(instruction(0x85, 0, number) for number in (900, 5, 7, 900)) + instruction(0x95, 0, 0)
    seven = Subprogram("seven", Bytecode(COMPILED, {0: "ring", 3: "totals"}), True)
    nine = Subprogram("nine", Bytecode(instruction(0x95, 0, 0), {}), False)
    joined = Bytecode(text, {}).calling({7: seven, 900: nine, 8: nine})
    assert joined.instructions == b"".join(
        [
            *(instruction(0x85, 0x10, 4), instruction(0x85, 0, 5)),
            *(instruction(0x85, 0x10, 3), instruction(0x85, 0x10, 1), instruction(0x95, 0, 0)),
            *(nine.code.instructions, COMPILED),
        ]
    )
    assert joined.maps == {6: "ring", 9: "totals"}
    assert joined.functions == {5: ("nine", False), 6: ("seven", True)}


def test_functions_call_one_another() -> None:
    end = instruction(0x95, 0, 0)
    inner = Subprogram("inner", Bytecode(end, {}), True)
    outer = Subprogram("outer", Bytecode(instruction(0x85, 0, 2) + instruction(0x85, 0, 1) + end, {}), True)
    joined = Bytecode(instruction(0x85, 0, 1) + instruction(0x85, 0, 2) + end, {}).calling(
        {1: outer, 2: inner}
    )
    assert joined.instructions == b"".join(
        [
            *(instruction(0x85, 0x10, 2), instruction(0x85, 0x10, 4), end),
            *(instruction(0x85, 0x10, 2), instruction(0x85, 0x10, -2), end),
            end,
        ]
    )


def test_a_marked_addition_tells_what_was_there_before() -> None:
    plain, marked = struct.pack("<BBhi", 0xDB, 0x21, 0, 0), struct.pack("<BBhi", 0xDB, 0x21, 0x7E7C, 0)
    fetching = struct.pack("<BBhi", 0xDB, 0x21, 0, 1)
    assert bytecode.of(plain + marked + plain, {}).instructions == plain + fetching + plain


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "unixsock")
    return tmp_path / "unixsock"


def test_what_is_kept_is_found_again_by_its_owner_alone(folder: Path) -> None:
    programs = {"message": ["00", {"0": "ring"}]}
    name = cache.key("text", "flags")
    assert cache.get(name) is None
    cache.keep(name, programs)
    assert cache.get(name) == programs
    assert cache.get(cache.key("text", "other flags")) is None
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / name)] == [0o700, 0o600]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_not_trusted(folder: Path, mode: int) -> None:
    cache.keep("a", {})
    folder.chmod(mode)
    assert cache.get("a") is None
    cache.keep("b", {})
    assert not (folder / "b").exists()


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    cache.keep("a", {})
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_file_is_none(folder: Path, text: str) -> None:
    cache.keep("a", {})
    (folder / "a").write_text(text)
    assert cache.get("a") is None


SHAPE = Shape(27, 0, 0, 4096, 1024, '"unsigned int"', "")


def test_what_was_compiled_comes_back_the_same() -> None:
    found = Compiled({"message": Bytecode(COMPILED, {0: "ring", 3: "totals"})}, {"ring": SHAPE})
    assert compiler._from_json(json.loads(json.dumps(compiler._to_json(found)))) == found


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"programs": {}},
        {"programs": {"message": "x"}, "maps": {}},
        {"programs": {"message": ["x", {}]}, "maps": {}},
        {"programs": {}, "maps": {"ring": {"type": 27}}},
    ],
)
def test_what_cannot_have_been_kept_is_refused(kept: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        compiler._from_json(kept)


def test_only_the_newest_are_kept(folder: Path) -> None:
    for number in range(cache.MOST + 5):
        cache.keep(f"{number:04}", {})
    assert len(list(folder.iterdir())) == cache.MOST


def test_what_is_used_is_not_old(folder: Path) -> None:
    for number in range(cache.MOST):
        cache.keep(f"{number:04}", {})
        os.utime(folder / f"{number:04}", (number, number))
    assert cache.get("0000") == {}
    cache.keep("one more", {})
    assert cache.get("0000") == {}
    assert cache.get("0001") is None
