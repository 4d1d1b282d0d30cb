"""A kernel that hides its BTF: layouts come from its headers, or the refusal says what is missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live import CHECKOUT, Live, streams

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import cache, kernel, offsets
from unixsock_bpf.probe.btf import Btf
from unixsock_bpf.probe.kernel_headers import KernelHeaders
from unixsock_bpf.record import Event, Flag

pytestmark = pytest.mark.headers

RELEASE = os.uname().release
ARCHIVE = CHECKOUT / ".cache/kernels" / f"{RELEASE}.headers.tar.xz"
FOLDER = Path("/dev/shm/no-btf")
LONG = os.urandom(150_000)


@contextmanager
def mounted(*words: str) -> Iterator[None]:
    subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", words[-1]], check=True)


@pytest.fixture(scope="module")
def hidden() -> Iterator[None]:
    """The kernel's BTF is not there for anybody, and nothing is kept of a compile before these tests."""
    (FOLDER / "empty").mkdir(parents=True)
    with (
        mounted("--bind", str(FOLDER / "empty"), "/sys/kernel/btf"),
        mounted("-t", "tmpfs", "tmpfs", str(cache.FOLDER)),
    ):
        cache.FOLDER.chmod(0o700)
        yield
    shutil.rmtree(FOLDER)


@pytest.fixture(scope="module")
def unpacked(hidden: None) -> Path:
    """A tree that modules can be built against."""
    tree = FOLDER / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-xf", str(ARCHIVE), "-C", str(tree)], check=True)
    return tree


@pytest.fixture
def headers(unpacked: Path) -> Iterator[None]:
    """The kernel's headers are where its modules look for them."""
    modules = FOLDER / "modules"
    (modules / RELEASE).mkdir(parents=True, exist_ok=True)
    (modules / RELEASE / "build").unlink(missing_ok=True)
    (modules / RELEASE / "build").symlink_to(unpacked)
    with mounted("--bind", str(modules), "/lib/modules"):
        yield


def talk() -> int:
    """Send LONG and a descriptor; return the sender's inode."""
    left, right = socket.socketpair()
    with left, right:
        reader = threading.Thread(target=lambda: right.recv(len(LONG), socket.MSG_WAITALL))
        reader.start()
        left.sendall(LONG)
        reader.join()
        return os.fstat(left.fileno()).st_ino


def test_layouts_are_those_of_btf(headers: None) -> None:
    found = KernelHeaders(offsets.MEMBERS, offsets.STRUCTS)
    subprocess.run(["umount", "/sys/kernel/btf"], check=True)
    try:
        by_btf = offsets.macros(Btf())
    finally:
        subprocess.run(["mount", "--bind", str(FOLDER / "empty"), "/sys/kernel/btf"], check=True)
    by_headers = offsets.macros(found)
    private = {name for name in by_btf if name.startswith("MOUNT_")}
    assert by_headers == {name: value for name, value in by_btf.items() if name not in private}
    assert found.has_function("unix_stream_sendmsg")
    assert not found.has_function("unix_stream_sendm")


def test_a_capture_is_exact(headers: None) -> None:
    with Live() as live:
        inode = talk()
    assert live.status == 0
    records = [r for r in live.records if r.event == Event.DATA and r.src_inode == inode]
    assert not [r for r in records if r.flags & (Flag.TRUNCATED | Flag.UNREADABLE)]
    assert list(streams(records).values()) == [LONG]
    assert {r.src_pid for r in records} == {os.getpid()}


def test_the_check_says_where_layouts_come_from(headers: None) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "unixsock_bpf", "check"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = (line for line in done.stdout.splitlines() if " BTF" in line)
    assert "layouts come from the kernel's headers" in line


def test_headers_in_the_kernels_own_archive(hidden: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear()
    # A file can't be made in sysfs.
    monkeypatch.setattr("unixsock_bpf.probe.kernel_headers._KHEADERS", ARCHIVE)
    found = KernelHeaders(offsets.MEMBERS, offsets.STRUCTS)
    assert offsets.macros(found)["SKB_SIZE"] > 200
    assert not list(Path("/tmp").glob("include"))


def test_without_headers_the_refusal_says_what_to_install(hidden: None) -> None:
    with pytest.raises(ProbeError, match=r"headers are not installed.*linux-headers"):
        kernel.kernel()
