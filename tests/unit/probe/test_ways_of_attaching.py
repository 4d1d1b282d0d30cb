"""Which ways of attaching are tried, without trying."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from unixsock_bpf.probe.btf import Member
from unixsock_bpf.probe.kernel import Kernel


class Types:
    """Types with these members."""

    has_function_types = True

    def __init__(self, *members: str) -> None:
        self._members = members

    def has_struct(self, name: str) -> bool:
        return True

    def member(self, path: str) -> Member | None:
        return Member(0, 8) if path in self._members else None


@pytest.mark.parametrize(
    ("machine", "members", "ways"),
    [
        ("x86_64", [], ("fentry", "kprobe")),
        ("aarch64", [], ("kprobe",)),
        ("aarch64", ["ftrace_ops.direct_call"], ("fentry", "kprobe")),
    ],
)
def test_fentry_is_tried_where_ftrace_calls_directly(
    machine: str, members: list[str], ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    kernel = Kernel(Types(*members), {}, False)  # type: ignore[arg-type]
    assert kernel.ways == ways


def test_without_btf_all_is_done_by_kprobes() -> None:
    types = Types("fprobe.hlist_array")
    types.has_function_types = False
    kernel = Kernel(types, {}, False)  # type: ignore[arg-type]
    assert kernel.ways == ("kprobe",)
    assert not kernel.has_sessions
