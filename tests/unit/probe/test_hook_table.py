"""The C's hooks, gates and slots, and the loader's reading of them, hold together."""

from __future__ import annotations

import re
from collections import Counter

from unixsock_bpf.probe import program_set
from unixsock_bpf.probe.compiler import source

SOURCE = source("hooks.bpf.c")
SLOTS = {match[1]: int(match[2], 0) for match in program_set._SLOT.finditer(SOURCE)}
HOOKS = [(match[1], match[2]) for match in program_set._HOOK.finditer(SOURCE)]
#: Functions that an fentry program may be at, and not only a kprobe's.
OWN = {
    match[1]
    for match in re.finditer(r"^[A-Z]+_ON_(?:EVERY_)?(?:ENTRY|RETURN)\((\w+), ", SOURCE, re.MULTILINE)
}
#: Slots by what is no function.
OTHERS = {"KPROBE", "CGROUP"}


def test_all_hooks_are_seen() -> None:
    written = re.findall(
        r"^(?!AGAIN)(?:[A-Z]+_)?ON_(?:EVERY_|RARE_)?(?:ENTRY|RETURN)\(", SOURCE, re.MULTILINE
    )
    assert len(HOOKS) == len(written) > 15


def test_what_tells_has_a_gate_and_a_slot() -> None:
    gates = set(re.findall(r"^GATE\((\w+)\);", SOURCE, re.MULTILINE))
    passes = set(re.findall(r"void pass_(\w+)\(void \*ctx\)\n\{\n\tgate_\1\.call\(ctx, 0\);", SOURCE))
    telling = {function for kind, function in HOOKS if kind}
    assert telling == gates == passes
    assert OWN | OTHERS | {"HERE"} == SLOTS.keys()
    assert telling > OWN


def test_no_two_hooks_share_working_memory() -> None:
    taken = Counter(at for name, at in SLOTS.items() if name != "HERE")
    assert set(taken.values()) == {1}


def test_messages_have_the_large_slots() -> None:
    messages = {SLOTS[function] for kind, function in HOOKS if kind == "MESSAGE" and function in OWN}
    assert messages | {SLOTS["KPROBE"]} == set(range(4))
    (slots,) = re.findall(r"^#define SLOTS (\d+)$", SOURCE, re.MULTILINE)
    assert max(SLOTS[name] for name in SLOTS if name != "HERE") < int(slots)


def test_what_is_called_is_there() -> None:
    records = source("records.bpf.c")
    called = {name: (kind, number) for kind, name, number in program_set._CALL.findall(records)}
    assert len({number for _, number in called.values()}) == len(called) == 6
    for name, (kind, _) in called.items():
        argument = "u64 argument" if kind == "GLOBAL" else r"void \*ctx"
        assert f"(void *){kind}_{name};" in records
        assert len(re.findall(rf"^\w+ {name}\({argument}\)$", records, re.MULTILINE)) == 1
