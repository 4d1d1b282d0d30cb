"""The wheel in a fresh virtual environment, which sees nothing of the system's Python packages."""

from __future__ import annotations

import os
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from vm.debian import CHECKOUT

from packages.conftest import run
from unixsock_bpf.version import __version__


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, as pipx makes one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    run(folder / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "-q", wheel)
    return folder


def test_it_is_complete(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tracked = run(
        "git", "ls-files", "unixsock_bpf", "dissector", "extcap", "libexec", "docs/*.md", cwd=CHECKOUT
    )
    for name in tracked.split():
        assert any(one.endswith(f"/share/unixsock/{name}") or one == name for one in names), name
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    everything = set(run("git", "ls-files", cwd=CHECKOUT).split("\n")) - {""}
    left_out = {
        name for name in everything - inside if not name.startswith((".ci/", ".github/", ".gitignore"))
    }
    assert not left_out
    metadata = next(name for name in names if name.endswith("/METADATA"))
    needs = [
        line.split(":")[1].split()[0]
        for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist:")
    ]
    assert not [need for need in needs if need.startswith("bcc")]  # another project's


def test_the_systems_bcc_is_found_and_everything_else(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin/unixsock"
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    checked = subprocess.run(
        [command, "check"], env=clean, capture_output=True, text=True, check=False
    ).stdout
    assert "ok      bcc: version" in checked
    assert "ok      Python packages: lark" in checked
    assert run(command, "--version", env=clean) == f"unixsock {__version__}\n"
    said = run(command, "install", "--user", env=clean)
    extcap = tmp_path / ".local/lib/wireshark/extcap/unixsock"
    assert f"interface: {extcap}" in said
    answer = run(extcap, "--extcap-interfaces", env=clean)
    assert "{value=unixsock}" in answer
    manual = answer.partition("{help=file://")[2].partition("}")[0]
    assert Path(manual).is_file()
    assert "unixsock (Unix sockets)" in run("tshark", "-D", env=clean)
    valid = run(extcap, "--extcap-interface", "unixsock", "--extcap-capture-filter", "path /run/x", env=clean)
    assert valid == ""  # lark is the environment's
    run(command, "uninstall", "--user", env=clean)
    assert not os.path.lexists(extcap)
    where = "import unixsock_bpf.own_files as own; print(own.find('libexec/unixsock-capture'))"
    helper = run(environment / "bin/python", "-c", where, env=clean).strip()
    assert Path(helper).is_file()
