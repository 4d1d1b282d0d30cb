"""Captures of more than 2 GiB, in memory that does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import measure

#: MiB that a process may use more than for a hundredth of the capture: 64 MiB of that stay mapped, 21 of
#: which the small one has, too; parquet has batches and row groups.
_MORE = {"parquet": 400}


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return measure.large(tmp_path_factory.mktemp("large"))


@pytest.mark.parametrize("form", measure.FORMATS)
def test_memory(form: str, captures: tuple[Path, Path], tmp_path: Path) -> None:
    large, small = [measure.peak_mib(capture, form, tmp_path / capture.stem) for capture in captures]
    print(f"{form}: {small} MiB, {large} MiB")
    assert large < small + _MORE.get(form, 80)
