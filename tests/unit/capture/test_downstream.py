"""Who stands behind standard output, with real pipelines and terminals."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]

#: Prints what it finds to a file, as names of processes.
LOOK = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from unixsock_bpf.capture.downstream import downstream
found = downstream({os.getpid()})
open(sys.argv[2], "w").write("\\n".join(sorted(open(f"/proc/{pid}/comm").read().strip() for pid in found)))
"""


def _command(into: Path) -> str:
    script = into.with_suffix(".py")
    script.write_text(LOOK)
    return f"{sys.executable} {script} {CHECKOUT} {into}"


def test_every_stage_of_a_pipeline_and_nothing_beside_it(tmp_path: Path) -> None:
    into = tmp_path / "found"
    shell = f"sleep 9 & {{ sleep 0.3; {_command(into)}; }} | tail -c 1 | timeout 5 cat; kill $!"
    subprocess.run(["sh", "-c", shell], check=True)
    assert into.read_text().split() == ["cat", "tail", "timeout"]


def test_not_the_program_that_runs_us_and_reads(tmp_path: Path) -> None:
    into = tmp_path / "found"
    subprocess.run(_command(into), shell=True, check=True, stdout=subprocess.PIPE)
    assert into.read_text() == ""


def test_a_terminal_if_a_shell_is_between(tmp_path: Path) -> None:
    """This process plays the terminal."""
    for shell, expected in (("{}; true", [Path("/proc/self/comm").read_text().strip()]), ("exec {}", [])):
        into = tmp_path / "found"
        pid, master = pty.fork()
        if pid == 0:
            os.execvp("sh", ["sh", "-c", shell.format(_command(into))])
        assert os.waitpid(pid, 0)[1] == 0
        time.sleep(0.05)
        os.close(master)
        assert into.read_text().split() == expected
