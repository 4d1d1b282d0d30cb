"""Who stands behind standard output, with real pipelines and terminals."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]

#: Prints what it finds to a file, as names of processes.
LOOK = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from unixsock_bpf.capture.own_processes import downstream
found = downstream({os.getpid()}).left_out
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


EVADER = """\
import os, time
kept = [os.open({ptmx!r}, os.O_RDWR) for _ in range({count})]
open("/proc/self/comm", "w").write("evader")
print(open(f"/proc/self/fdinfo/{{kept[-1]}}").read(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("ptmx", ["/dev/ptmx", "/dev/pts/ptmx"])
def test_another_devpts_with_our_terminals_number_is_not_ours(tmp_path: Path, ptmx: str) -> None:
    """Anybody can have any terminal's number in a devpts of their own."""
    into = tmp_path / "found"
    pid, master = pty.fork()
    if pid == 0:
        time.sleep(3)
        os.execvp("sh", ["sh", "-c", f"{_command(into)}; true"])
    (number,) = [
        line.split()[1]
        for line in Path(f"/proc/self/fdinfo/{master}").read_text().splitlines()
        if line.startswith("tty-index:")
    ]
    evader = tmp_path / "evader.py"
    evader.write_text(EVADER.format(ptmx=ptmx, count=int(number) + 1))
    mount = "mount -t devpts -o newinstance devpts /dev/pts"
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {sys.executable} {evader}"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = b"".join(process.stdout.readline() for _ in range(5))
        assert f"tty-index:\t{number}\n".encode() in told
        assert os.waitpid(pid, 0)[1] == 0
        os.close(master)
        process.kill()
    assert into.read_text().split() == [Path("/proc/self/comm").read_text().strip()]


def test_who_reads_the_socket_that_is_our_output(tmp_path: Path) -> None:
    """A relay is left out; a program that serves others as well is not, and this one runs us."""
    for serves in (False, True):
        into = tmp_path / "found"
        ours, theirs = socket.socketpair()
        listen = "a = socket.socket(socket.AF_UNIX); a.bind(''); a.listen();" if serves else ""
        relay = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import socket; {listen} open('/proc/self/comm', 'w').write('relay')\n"
                "print(flush=True); input()",
            ],
            stdin=theirs,
            stdout=subprocess.PIPE,
        )
        assert relay.stdout is not None
        relay.stdout.readline()
        theirs.close()
        subprocess.run(_command(into), shell=True, check=True, stdout=ours)
        ours.close()
        relay.wait()
        relay.stdout.close()
        assert into.read_text().split() == ([] if serves else ["relay"])
