"""The RPM spec and the PKGBUILD, built by Debian's rpmbuild and makepkg.  Neither is installed here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vm.debian import CHECKOUT

from packages.conftest import run

#: The distribution's own Python, whatever comes first in PATH.
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
COMMON = {
    "/usr/bin/unixsock",
    "/usr/lib/systemd/system/unixsock-record.service",
    "/usr/lib/unixsock/extcap/unixsock",
    "/usr/lib/unixsock/libexec/unixsock-capture",
    "/usr/lib/unixsock/package",
    "/usr/lib/unixsock/unixsock_bpf",
    "/usr/share/unixsock/dissector/unixsock.lua",
    "/usr/share/bash-completion/completions/unixsock",
    "/usr/share/polkit-1/actions/org.unixsock.capture.policy",
}
FOR_WIRESHARK = {
    "/usr/libexec/wireshark/extcap/unixsock",
    "/usr/share/wireshark/profiles/Unix sockets/preferences",
}


def test_rpm(built: Path, tmp_path: Path) -> None:
    (tmp_path / "SOURCES").mkdir()
    (sdist,) = built.glob("*.tar.gz")
    shutil.copy(sdist, tmp_path / "SOURCES")
    spec = CHECKOUT / "packaging/rpm/unixsock.spec"
    run("rpmbuild", "--nodeps", "--define", f"_topdir {tmp_path}", "-bb", spec, env=CLEAN, cwd=tmp_path)
    found = {
        path.name.rsplit("-", 2)[0]: set(run("rpm", "-qlp", path, env=CLEAN).splitlines())
        for path in tmp_path.rglob("*.rpm")
    }
    assert set(found) == {"unixsock", "wireshark-unixsock"}
    assert found["unixsock"] >= COMMON | {"/usr/share/man/man1/unixsock.1"}
    links = {"/usr/lib64/wireshark/extcap/unixsock", "/usr/lib64/wireshark/plugins/unixsock.lua"}
    assert found["wireshark-unixsock"] >= FOR_WIRESHARK | links


def test_pacman(built: Path, tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "packaging/arch/PKGBUILD", tmp_path)
    (sdist,) = built.glob("*.tar.gz")
    shutil.copy(sdist, tmp_path)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    work = tmp_path
    if nobody:  # makepkg refuses root, and pytest's folders are root's alone
        work = Path("/var/tmp") / f"unixsock-pacman-{os.getpid()}"
        shutil.copytree(tmp_path, work)
        for path in (work, *work.iterdir()):
            os.chown(path, 65534, 65534)
    try:
        environment = {**CLEAN, "HOME": str(work), "PACMAN": "true"}
        run(*nobody, "makepkg", "--nodeps", env=environment, cwd=work)
        (package,) = work.glob("unixsock-*.pkg.tar*")
        found = {f"/{name}" for name in run("tar", "--list", "--file", package).splitlines()}
    finally:
        if nobody:
            shutil.rmtree(work)
    links = {"/usr/lib/wireshark/extcap/unixsock", "/usr/lib/wireshark/plugins/unixsock.lua"}
    assert found >= COMMON | FOR_WIRESHARK | links
