"""An ordinary user captures in guests whose systems have the Debian packages, installed by apt alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm import guest, kernels, rootfs
from vm.debian import CHECKOUT

from packages.roots import copy_of

TESTS = CHECKOUT / "tests"
#: Seconds that a guest may take, under emulation and on a busy machine.
_PATIENCE = 3000
#: What the smallest system lacks and any machine that boots has.
_BOOTED = "mount kmod iproute2 udev busybox-static procps"
_MEMBER, _STRANGER = "alice", "bob"


@pytest.fixture(params=["bookworm"])
def suite(request: pytest.FixtureRequest) -> str:
    """A release: its user land, its kernel."""
    return str(request.param)


@pytest.fixture
def installed(suite: str, debs: str, tmp_path: Path) -> Iterator[Path]:
    """A root directory in which the group captures, and one of two users is in it."""
    with copy_of(suite) as root:
        root.apt(f"install sudo adduser {_BOOTED}")
        root.run("debconf-set-selections", text="unixsock unixsock/group-captures boolean true\n")
        root.apt(f"install {debs}")
        for user in (_MEMBER, _STRANGER):
            root.run(f"useradd --create-home --shell /bin/sh {user}")
        root.run(f"usermod --append --groups unixsock {_MEMBER}")
        root.copy_to(tmp_path / "root")
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root")


def test_a_member_captures_and_a_stranger_is_refused(suite: str, installed: Path) -> None:
    kernel = kernels.fetch(suite)
    rootfs.add_modules(installed, kernel)
    script = TESTS / "packages/captures_as_member.py"
    command = f"PYTHONPATH={TESTS}:{TESTS}/kernel /usr/bin/python3 {script} {_MEMBER} {_STRANGER}"
    with guest.boot(kernel, command, root=installed, one_thread=True) as running:
        status = running.wait(_PATIENCE)
        said = running.output.read_text(errors="replace")
    print(said)
    assert status == 0, said[-6000:]
