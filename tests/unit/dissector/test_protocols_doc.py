"""docs/protocols.md lists the protocols that the dissector's files declare, with their paths."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
LUA = ROOT / "dissector/unixsock"
PROTOCOLS = LUA / "protocols"


def declaration(name: str) -> dict[str, str]:
    """The parts of the declaration in the file of the protocol ``name``, as they are written."""
    text = (PROTOCOLS / f"{name}.lua").read_text()
    match = re.search(r'"protocols/lib/declare"\)\(\{\n(.*?)^\}\)$', text, re.DOTALL | re.MULTILINE)
    assert match, f"{name}.lua declares nothing"
    parts = dict(re.findall(r'(\w+) = "([^"]*)"', match[1]))
    return parts | dict(re.findall(r"^    (\w+) = \{(.*?)^    \}", match[1], re.DOTALL | re.MULTILINE))


def listed() -> list[str]:
    return re.findall(r'^    "(\w+)",$', (PROTOCOLS / "list.lua").read_text(), re.MULTILINE)


def globs(text: str) -> str:
    return " ".join(f"`{glob}`" for glob in re.findall(r'"([^"]*)"', text))


def own_table() -> list[str]:
    table = []
    for name in listed():
        one = declaration(name)
        marks = [word for key, word in (("stream", "streams"), ("message", "datagrams")) if key in one]
        table.append(
            f"| {one['title']} | `{one['name']}` | {globs(one.get('paths', ''))} | {', '.join(marks)} "
            f"| [{name}.lua](../dissector/unixsock/protocols/{name}.lua) |"
        )
    return table


def wiresharks_table() -> list[str]:
    paths: dict[str, list[str]] = {}
    for glob, name in re.findall(r'\{ "([^"]*)", "([^"]*)" \}', (LUA / "dispatch/paths.lua").read_text()):
        paths.setdefault(name, []).append(f"`{glob}`")
    return [f"| `{name}` | {' '.join(found)} |" for name, found in paths.items()]


def test_every_file_is_listed_once() -> None:
    names = listed()
    assert len(names) == len(set(names))
    assert set(names) == {path.stem for path in PROTOCOLS.glob("*.lua")} - {"list"}


def test_tables_are_those_of_the_dissector() -> None:
    lines = (ROOT / "docs/protocols.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `") or re.match(r"\| .*\| \[", line)]
    expected = [*own_table(), *wiresharks_table()]
    missing = [row for row in expected if row not in rows]
    assert not missing, "docs/protocols.md lacks\n" + "\n".join(missing)
    assert [row for row in rows if row not in expected] == []
