"""Which kernels may take the processor from a thread inside of them, where fentry programs are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from unixsock_bpf.probe.symbols import Symbols
from unixsock_bpf.probe.target import preemptible

SYMBOLS = {"preempt_schedule": 0xFFFFFFFF81000000}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("(none) voluntary full \n", False),
        ("none (voluntary) full lazy \n", False),
        ("none voluntary (full) lazy \n", True),
        ("full (lazy) \n", True),
        ("(full)\n", True),
    ],
)
def test_as_debugfs_says(tmp_path: Path, report: str, expected: bool) -> None:
    (tmp_path / "preempt").write_text(report)
    assert preemptible(SYMBOLS, str(tmp_path / "preempt")) is expected


def test_without_debugfs_it_may_be(tmp_path: Path) -> None:
    assert preemptible(SYMBOLS, str(tmp_path / "missing"))


def test_a_kernel_built_without_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "preempt").write_text("(full)\n")
    assert not preemptible({}, str(tmp_path / "preempt"))


def test_that_addresses_are_hidden_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T preempt_schedule\n0000000000000000 T other\n")
    assert preemptible(Symbols(str(tmp_path / "kallsyms")).found(), str(tmp_path / "missing"))
