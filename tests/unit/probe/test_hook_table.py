"""The table of hooks, the C that it names and the programs that are made of it hold together."""

from __future__ import annotations

import re

import pytest

from unixsock_bpf.probe import hook_programs, hook_table, program_set
from unixsock_bpf.probe.compiler import source
from unixsock_bpf.probe.hook_programs import KPROBE_SLOT, Mode, Plan
from unixsock_bpf.probe.hook_table import HOOKS, At, Need, Purpose

SOURCE = source("hooks.bpf.c")
FACTS = sorted({fact for hook in HOOKS for fact in (*hook.facts, *hook.lacks)})
#: What the kernels of Debian have, by their version.
KERNELS = {
    "5.10": {"unix_stream_sendpage", "security_unix_stream_connect", "security_sock_graft"},
    "6.1": set(FACTS) - {"unix_sock.inq_len"},
    "7.2": set(FACTS) - {"unix_stream_sendpage"},
    "none": set(),
}


class Types:
    """BTF of functions with five arguments."""

    def argument_count(self, function: str) -> int:
        return 5


class Kernel:
    """A kernel with these facts."""

    def __init__(self, facts: set[str], preemptible: bool) -> None:
        self.has = facts.__contains__
        self.preemptible = preemptible
        self.btf = Types()


@pytest.fixture(
    params=[
        (name, way, sessions, preemptible)
        for name in KERNELS
        for way in ("fentry", "kprobe")
        for sessions in (False, True)
        for preemptible in (False, True)
    ],
    ids=str,
)
def plan(request: pytest.FixtureRequest) -> Plan:
    name, way, sessions, preemptible = request.param
    return hook_programs.plan(Kernel(KERNELS[name], preemptible), way, sessions)  # type: ignore[arg-type]


def test_only_messages_are_needed() -> None:
    assert all((hook.need is Need.NEEDED) == (hook.purpose is Purpose.MESSAGE) for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: f"{hook.function}-{hook.body}")
def test_each_body_is_a_function_in_the_c(hook: hook_table.Hook) -> None:
    for name in filter(None, (hook.body, hook.wants, hook.keep)):
        assert len(re.findall(rf"^static __always_inline (?:bool|u64) {name}\(", SOURCE, re.MULTILINE)) == 1
    assert not (hook.wants and hook.keep)
    assert hook.at is At.RETURN or not (hook.wants or hook.keep)


def test_no_function_is_hooked_twice(plan: Plan) -> None:
    functions = [one.hook.function for one in plan.placed]
    assert len(set(functions)) == len(functions) >= 13


def test_no_two_hooks_share_working_memory_but_kprobes_and_sessions(plan: Plan) -> None:
    own = [one.slot for one in plan.placed if one.slot != KPROBE_SLOT]
    assert sorted(own) == list(range(1, plan.slots))
    for one in plan.placed:
        shared = one.mode in (Mode.KPROBE, Mode.KRETPROBE, Mode.SESSION)
        assert (one.slot == KPROBE_SLOT) == shared
        if one.hook.purpose is Purpose.MESSAGE:
            assert one.slot < plan.data_slots


def _modes(preemptible: bool, sessions: bool) -> dict[str, Mode]:
    """Return how messages are hooked on a kernel such as 7.2, by the function."""
    kernel = Kernel(KERNELS["7.2"], preemptible)
    plan = hook_programs.plan(kernel, "fentry", sessions)  # type: ignore[arg-type]
    messages = [one for one in plan.placed if one.hook.purpose is Purpose.MESSAGE]
    assert plan.data_slots == KPROBE_SLOT + 1 + sum(one.mode.typed for one in messages)
    return {one.hook.function: one.mode for one in messages}


@pytest.mark.parametrize("sessions", [False, True])
def test_with_preemption_messages_have_no_program_that_it_skips(sessions: bool) -> None:
    modes = _modes(True, sessions)
    assert modes["skb_queue_tail"] is Mode.KPROBE
    assert modes["skb_copy_datagram_from_iter"] is (Mode.SESSION if sessions else Mode.KRETPROBE)


@pytest.mark.parametrize("sessions", [False, True])
def test_without_preemption_messages_have_no_program_with_a_limit_of_instances(sessions: bool) -> None:
    modes = _modes(False, sessions)
    assert modes["skb_queue_tail"] is Mode.FENTRY
    assert modes["skb_copy_datagram_from_iter"] is (Mode.SESSION if sessions else Mode.FEXIT)


def test_each_program_is_written_once_and_goes_on_through_a_map_that_is_declared(plan: Plan) -> None:
    text = hook_programs.source(plan)
    for one in plan.placed:
        names = {*hook_programs.program_names(one)}
        names |= {hook_programs.keeper_name(one)} if one.mode is Mode.KRETPROBE else set()
        macro = f"_NAME({one.hook.function})("
        written = [name for name in names if f"int {name}(" in text]
        assert len(written) == {Mode.KRETPROBE: 2}.get(one.mode, 1) or (one.mode.typed and macro in text)
    called = set(re.findall(r"(tail_\w+)\.call\(", text))
    assert called <= set(re.findall(r'BPF_TABLE\("prog", u32, u32, (tail_\w+), ', text))
    assert "{" in text
    assert "{{" not in text


def test_marks_and_calls_are_found_in_the_c() -> None:
    text = source("records.bpf.c") + source("hooks/attach.h")
    called = {name: (kind, number) for kind, name, number in program_set._CALL.findall(text)}
    assert len({number for _, number in called.values()}) == len(called)
    assert set(called) == set(re.findall(r"\(void \*\)(?:CALL|GLOBAL)_(\w+);", text))
    assert all(f"(void *){kind}_{name};" in text for name, (kind, _) in called.items())
    assert {name for name, _ in program_set._MARK.findall(text)} == {"SLOT", "SNAPLEN"}
