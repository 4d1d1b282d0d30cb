"""docs/protocols.md lists the protocols that the dissector's files declare, with their paths."""

from __future__ import annotations

import re

from generate import PROTOCOLS, ROOT, declaration, listed_protocols


def test_every_file_is_listed_once() -> None:
    names = listed_protocols()
    assert len(names) == len(set(names))
    assert set(names) == {path.stem for path in PROTOCOLS.glob("*.lua")} - {"list"}


def test_the_page_has_each_protocol_with_its_paths() -> None:
    """The tables are written by ``make generate``; that they are current, test_record_copies.py checks."""
    page = (ROOT / "docs/protocols.md").read_text()
    for name in listed_protocols():
        one = declaration(name)
        (row,) = re.findall(rf"^\| {re.escape(one['title'])} \|.*", page, re.MULTILINE)
        for glob in re.findall(r'"([^"]*)"', one.get("paths", "")):
            assert f"`{glob}`" in row
