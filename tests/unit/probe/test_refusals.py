"""One sentence names what a machine lacks, before anything is compiled."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import compiler, kernel, refusals


def is_sentence(text: str | None) -> bool:
    assert text
    assert text.endswith(".")
    assert ". " not in text
    assert "\n" not in text
    return ": " in text


@pytest.mark.parametrize(
    ("machine", "order", "pointer", "named"),
    [
        ("s390x", "big", 8, "big-endian"),
        ("ppc", "big", 4, "big-endian"),
        ("armv7l", "little", 4, "32-bit"),
        ("i686", "little", 4, "32-bit"),
        ("x86_64", "little", 4, "32-bit"),  # a 32-bit Python on a 64-bit kernel
        ("riscv64", "little", 8, "riscv64"),
        ("loongarch64", "little", 8, "loongarch64"),
    ],
)
def test_other_machines(
    machine: str, order: str, pointer: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(sys, "byteorder", order)
    monkeypatch.setattr(ctypes, "sizeof", lambda _: pointer)
    monkeypatch.setattr(compiler, "compiled", None)
    found = refusals.machine_refused()
    assert is_sentence(found)
    assert found
    assert named in found
    with pytest.raises(ProbeError) as raised:
        kernel.kernel()
    assert str(raised.value) == found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_these_machines_are_known(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert refusals.machine_refused() is None


def test_users_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert is_sentence(refusals.rights_refused())


def test_root_of_a_user_namespace_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "user").touch()  # of another inode than the initial one
    found = refusals.user_namespace_refused(str(tmp_path / "user"))
    assert is_sentence(found)
    assert found
    assert "user namespace" in found
    assert refusals.user_namespace_refused(str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    ("code", "named"),
    [(errno.EPERM, "--privileged"), (errno.ENOSYS, "CONFIG_BPF_SYSCALL"), (errno.EINVAL, "")],
)
def test_a_trial_program_tells_whether_this_root_is_permitted(
    code: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_program(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(refusals.bpf_syscall, "load_program", load_program)
    found = refusals.programs_refused()
    assert found is None if not named else is_sentence(found) and named in str(found)


def test_kernels_without_btf_or_kprobes(tmp_path: Path) -> None:
    for refused in (refusals.types_refused, refusals.kprobes_refused):
        (tmp_path / "there").touch()
        assert refused(str(tmp_path / "there")) is None
        found = refused(str(tmp_path / "missing"))
        assert is_sentence(found)
        assert found
        assert "CONFIG_" in found


@pytest.mark.parametrize(
    ("text", "refused"),
    [("[none] integrity confidentiality", False), ("none [integrity] confidentiality", False),
     ("none integrity [confidentiality]", True)],
)  # fmt: skip
def test_lockdown(text: str, refused: bool, tmp_path: Path) -> None:
    (tmp_path / "lockdown").write_text(text)
    found = refusals.lockdown_refused(str(tmp_path / "lockdown"))
    assert bool(found) is refused
    assert found is None or is_sentence(found)
    assert refusals.lockdown_refused(str(tmp_path / "missing")) is None
