"""Captures of more than 2 GiB, in memory that does not grow with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from exports.big_capture import write

#: MiB that a process may use more than for a small capture, by format.
_MORE = {"tcp": 130, "dbus": 130, "har": 130, "dot": 130, "raw": 130, "parquet": 600}


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("large")
    padding = bytes(range(32, 127)) * 90
    large = write(folder / "large.pcapng", 520_000, padding=padding)
    assert large.stat().st_size > 2 << 30
    return large, write(folder / "small.pcapng", 5_200, padding=padding)


def peak_mib(capture: Path, form: str, output: Path) -> int:
    program = (
        "import resource, sys; from unixsock_bpf.cli.main import main; assert main(sys.argv[1:]) == 0;"
        " print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    command = [sys.executable, "-c", program, "export", str(capture), "--format", form, "-w", str(output)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("form", _MORE)
def test_memory(form: str, captures: tuple[Path, Path], tmp_path: Path) -> None:
    large, small = captures
    peaks = [peak_mib(capture, form, tmp_path / capture.stem) for capture in (small, large)]
    print(form, peaks)
    assert peaks[1] < peaks[0] + _MORE[form]
