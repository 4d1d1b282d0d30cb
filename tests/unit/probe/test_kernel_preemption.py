"""Which kernels may take the processor from a thread inside of them, where fentry programs are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from unixsock_bpf.probe.kernel import preemptible


class Functions:
    """BTF that has these and no others."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def has_function(self, name: str) -> bool:
        return name in self._names


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
    assert preemptible(Functions("preempt_schedule"), str(tmp_path / "preempt")) is expected


@pytest.mark.parametrize("function", ["preempt_schedule", "__rcu_read_unlock"])
def test_without_debugfs_it_may_be(tmp_path: Path, function: str) -> None:
    assert preemptible(Functions("schedule", function), str(tmp_path / "missing"))


def test_a_kernel_built_without_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "preempt").write_text("(full)\n")
    assert not preemptible(Functions("schedule"), str(tmp_path / "preempt"))
