"""What is built once for all tests: Debian's packages, wheel and sdist."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from vm.debian import CHECKOUT

from unixsock_bpf.version import __version__


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist of a copy of this tree."""
    folder = tmp_path_factory.mktemp("built")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in names.split("\0"):
        if name and (CHECKOUT / name).exists():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / "tree" / name, follow_symlinks=False)
    venv.create(folder / "tools", with_pip=True)
    python = folder / "tools/bin/python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "build", "twine")
    run(python, "-m", "build", "--outdir", folder / "dist", folder / "tree")
    run(python, "-m", "twine", "check", "--strict", *(folder / "dist").iterdir())
    return folder / "dist"


@pytest.fixture(scope="session")
def debs() -> str:
    """The packages' paths, as apt takes them."""
    built = subprocess.run(["packaging/deb"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    paths = sorted((CHECKOUT / "dist").glob(f"*unixsock_{__version__}_*.deb"))
    assert len(paths) == 2
    return " ".join(map(str, paths))


def run(*words: str | Path, **more: object) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
