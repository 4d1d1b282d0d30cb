"""What the kernel's verifier has to do for each program: a capture's start waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vm.table import MOST_VERIFIED, VERIFIED

from unixsock_bpf.options import Settings
from unixsock_bpf.probe import bpf_syscall, bytecode, hook_programs, kernel
from unixsock_bpf.probe.program_set import ProgramSet

#: Where struct bpf_prog_info has its u32 verified_insns, and the structure's size (Linux 5.16).
VERIFIED_AT, INFO_SIZE = 216, 224


@pytest.mark.parametrize("way", ["fentry", "kprobe"])
def test_no_program_takes_the_verifier_long(
    way: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    followed: dict[str, int] = {}
    load = bytecode.load

    def counting(name: str, *arguments: Any) -> int:
        fd = load(name, *arguments)
        count = bpf_syscall._counted(fd, INFO_SIZE, VERIFIED_AT)
        if count is not None:
            followed[name] = max(followed.get(name, 0), count & 0xFFFFFFFF)
        return fd

    monkeypatch.setattr(bytecode, "load", counting)
    here = kernel.kernel()
    programs = ProgramSet(Settings(events=True), here, hook_programs.plan(here, way, here.has_sessions))
    programs.close()
    assert programs.unattached == []
    record_property(VERIFIED + way, followed)
    assert {name: count for name, count in followed.items() if count > MOST_VERIFIED} == {}
