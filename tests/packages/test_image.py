"""The container's image: made from packaging/Containerfile without a daemon, and run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vm.debian import CHECKOUT

from packages.conftest import run
from packages.roots import base
from unixsock_bpf.version import __version__

IMAGE = "localhost/unixsock"


def test_the_image_holds_what_a_capture_needs(debs: str, tmp_path: Path) -> None:
    # No registry is asked: the base is this release's smallest system.
    buildah = ["buildah", "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]
    buildah += ["--storage-driver", "vfs"]
    archive = tmp_path / "base.tar"
    run("tar", "--create", "--file", archive, "--directory", base("trixie"), ".")
    container = run(*buildah, "from", "scratch").strip()
    run(*buildah, "add", container, archive, "/")
    run(*buildah, "commit", "--rm", container, "localhost/base")
    archive.unlink()
    words = ["bud", "--isolation", "chroot", "--build-arg", "BASE=localhost/base", "--tag", IMAGE]
    run(*buildah, *words, "--file", CHECKOUT / "packaging/Containerfile", CHECKOUT / "dist")
    container = run(*buildah, "from", "--pull-never", IMAGE).strip()

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        words = [*buildah, "run", "--isolation", "chroot", container, "--", *command]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert inside("unixsock", "--version").stdout.strip() == f"unixsock {__version__}"
    checked = inside("unixsock", "check").stdout
    assert any(line.split()[:2] == ["ok", "bcc:"] for line in checked.splitlines()), checked
    assert "present sockets match" in inside("unixsock", "check", "--filter", "path /x and pid 1").stdout
    assert inside("test", "-e", "/var/lib/apt/lists/lock").returncode == 1
    run(*buildah, "rm", "--all")
