"""What sudo starts runs from where only root can write, through pipes, and not otherwise.  Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unixsock_bpf.privilege import reports

ROOT = Path(__file__).resolve().parents[3]
SOMEBODY = 4711


@pytest.fixture
def library() -> Iterator[Path]:
    """An installation of the privileged part, below folders that only root can write."""
    with tempfile.TemporaryDirectory(prefix="unixsock-test-", dir="/var/lib") as name:
        folder = Path(name)
        for part in ("unixsock_bpf", "libexec"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() or path.parent.name == "libexec" else 0o644)
        yield folder


def start(library: Path, *arguments: str, **more: object) -> tuple[int, str]:
    """Exit status, and what it says before it is asked for anything."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | more
    running = subprocess.Popen(  # type: ignore[call-overload]
        [library / "libexec/unixsock-capture", *arguments], stderr=subprocess.PIPE, text=True, **pipes
    )
    _, said = running.communicate("", timeout=30)
    return running.returncode, said


HELLO = reports.encode("hello", "").decode()[:10]


def test_it_runs_where_only_root_can_write(library: Path) -> None:
    status, said = start(library)
    hello, error = said.splitlines()
    assert hello.startswith(HELLO)
    assert error == reports.encode("error", "The request was cut short.").decode().strip()
    assert status == 1


def _give_away(path: Path) -> None:
    os.chown(path, SOMEBODY, 0, follow_symlinks=False)


def _share(path: Path) -> None:
    os.chown(path, 0, SOMEBODY)
    path.chmod(path.stat().st_mode | 0o020)


def _open(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


@pytest.mark.parametrize("damage", [_give_away, _share, _open])
@pytest.mark.parametrize(
    "path",
    [
        ".",
        "libexec",
        "libexec/unixsock-capture",
        "unixsock_bpf",
        "unixsock_bpf/capture/session.py",
        "unixsock_bpf/probe",
        "unixsock_bpf/bpf/hooks.bpf.c",
    ],
)
def test_whatever_others_could_write_is_not_run(
    path: str, damage: Callable[[Path], None], library: Path
) -> None:
    damage(library / path)
    status, said = start(library)
    assert status == 1
    assert said == (
        f"The privileged part of unixsock does not run, because others than root can write {library / path}: "
        "run 'sudo unixsock install --system' for a safe copy.\n"
    )


@pytest.mark.parametrize("path", ["unixsock_bpf/bpf/hooks.bpf.c", "unixsock_bpf/filter", "unixsock_bpf"])
def test_a_link_of_roots_to_a_place_of_others_is_not_followed(path: str, library: Path) -> None:
    """Such a place is a checkout to which root linked, to try something out."""
    elsewhere = library / "elsewhere"
    elsewhere.mkdir()
    (library / path).rename(elsewhere / "it")
    (library / path).symlink_to(elsewhere / "it")
    assert HELLO in start(library)[1]
    _open(elsewhere / "it" if (elsewhere / "it").is_file() else next((elsewhere / "it").glob("*.py")))
    status, said = start(library)
    assert (status, HELLO in said) == (1, False)
    assert "others than root can write" in said


def test_it_takes_no_arguments_and_speaks_through_pipes_only(library: Path, tmp_path: Path) -> None:
    assert start(library, "--help") == (1, "The privileged part of unixsock takes no arguments.\n")
    through_pipes = "The privileged part of unixsock speaks through pipes only: capture with unixsock dump.\n"
    with (tmp_path / "file").open("w") as file:
        assert start(library, stdout=file) == (1, through_pipes)
    assert start(library, stdin=subprocess.DEVNULL) == (1, through_pipes)


def test_python_reads_nothing_of_the_callers(library: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')\n")
    (tmp_path / "json.py").write_text("print('mine')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    running = subprocess.Popen(
        [library / "libexec/unixsock-capture"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
    )
    out, said = running.communicate(b"", timeout=30)
    assert out == b""
    assert said.startswith(HELLO.encode())
