"""Addresses by name, from /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

from unixsock_bpf.probe.ksyms import addresses

TABLE = """\
ffffffff81000000 T _stext
ffffffff82a01230 D other_vmemmap_base
ffffffff82a01238 D vmemmap_base
ffffffff82a01240 D vmemmap_base_other
0000000000000000 D hidden
ffffffffc0000000 t vmemmap_base_of_a_module\t[module]
"""


def test_process_identityle_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(TABLE)
    found = addresses(["vmemmap_base", "missing", "hidden"], str(tmp_path / "kallsyms"))
    assert found == {"vmemmap_base": 0xFFFFFFFF82A01238, "hidden": 0}


def test_without_kallsyms_there_are_none(tmp_path: Path) -> None:
    assert addresses(["vmemmap_base"], str(tmp_path / "missing")) == {}
