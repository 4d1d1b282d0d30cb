"""The C's hooks, gates and slots, and the loader's reading of them, hold together."""

from __future__ import annotations

import re
from collections import Counter

from unixsock_bpf.probe import generation
from unixsock_bpf.probe.compiler import source

SOURCE = source("hooks.c")
SLOTS = {match[1]: int(match[2], 0) for match in generation._SLOT.finditer(SOURCE)}
HOOKS = [(match[1], match[2]) for match in generation._HOOK.finditer(SOURCE)]
#: Hooked on different kernels.
APART = [
    {"skb_append_pagefrags", "skb_copy_datagram_from_iter"},
    {"__unix_dgram_recvmsg", "unix_dgram_recvmsg"},
    {"security_unix_stream_connect", "unix_stream_connect"},
    {"security_sock_graft", "unix_accept"},
]


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
    assert telling <= SLOTS.keys()


def test_no_two_hooks_share_working_memory() -> None:
    shared = set().union(*APART)
    taken = Counter(at for name, at in SLOTS.items() if name not in shared | {"SLOTS", "HERE"})
    assert set(taken.values()) == {1}
    for group in APART:
        (slot,) = {SLOTS[function] for function in group}
        assert slot not in taken


def test_messages_have_the_large_slots() -> None:
    messages = {SLOTS[function] for kind, function in HOOKS if kind == "MESSAGE"}
    others = {SLOTS[function] for kind, function in HOOKS if kind not in (None, "MESSAGE")}
    assert messages == set(range(4))
    assert min(others) == 4
    (slots,) = re.findall(r"^#define SLOTS (\d+)$", SOURCE, re.MULTILINE)
    assert max(SLOTS[name] for name in SLOTS if name != "HERE") < int(slots)


def test_what_is_called_of_the_filter_is_there() -> None:
    named = [name for name, _ in generation._CALL.findall(source("question.h"))]
    assert named == re.findall(r"^int (\w+)\(void \*ctx\)$", source("filter.c"), re.MULTILINE)
    assert all(f"(void *)CALL_{name};" in source("verdict.h") for name in named)
