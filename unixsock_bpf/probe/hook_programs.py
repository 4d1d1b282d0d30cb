"""The programs around the hooks' bodies: how each hook is attached, its working memory, and the C.

Source: the rows of ``hook_table.py`` and what the kernel's BTF says.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unixsock_bpf.probe.hook_table import HOOKS, At, Hook, Purpose

if TYPE_CHECKING:
    from unixsock_bpf.probe.kernel import Kernel


class Mode(enum.Enum):
    """How a program is attached; the values are bcc's prefixes of program names."""

    FENTRY = "kfunc"
    FEXIT = "kretfunc"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"
    SESSION = "session"
    TRACEPOINT = "raw_tracepoint"

    @property
    def typed(self) -> bool:
        """Whether programs are checked against the hooked function's types."""
        return self in (Mode.FENTRY, Mode.FEXIT)


#: Working memory that all kprobes share: the kernel runs one kprobe's or session's program at a time on a
#: processor (bpf_prog_active) and skips others, and none of these tells anything in an interrupt.
KPROBE_SLOT = 0


@dataclass(frozen=True)
class Placed:
    """A hook as it is attached here.

    ``slot``: its working memory.  ``arguments``: how many the function has, where that matters (fexit).
    """

    hook: Hook
    mode: Mode
    slot: int
    arguments: int = 0

    @property
    def tail_calls(self) -> str:
        """Name the map through which it goes on.

        Programs on functions with other arguments may not share one (Linux commit 28ead3eaabc1 ("bpf:
        Prevent tail call between progs attached to different hooks"), v6.12), nor those of different modes.
        """
        if self.mode.typed:
            return f"tail_{self.hook.function}"
        return "tail_session" if self.mode is Mode.SESSION else "tail_kprobe"


@dataclass(frozen=True)
class Plan:
    """All hooks of this kernel, whether events are wanted or not.

    ``data_slots``: slots with room for messages; ``slots``: all of them.
    """

    placed: tuple[Placed, ...]
    data_slots: int
    slots: int

    @property
    def macros(self) -> dict[str, int]:
        """Return what state/state.h wants to know."""
        return {"DATA_SLOTS": self.data_slots, "SLOTS": self.slots, "KPROBE_SLOT": KPROBE_SLOT}


def plan(kernel: Kernel, way: str, sessions: bool) -> Plan:
    """Decide how each hook is attached.

    ``way``: fentry or kprobe; ``sessions``: whether returns use kprobe.session links.
    """
    chosen = [hook for hook in HOOKS if hook.applies(kernel.has)]
    modes = [(hook, _mode(hook, way == "fentry", sessions, kernel.preemptible)) for hook in chosen]
    own = [(hook, mode) for hook, mode in modes if mode not in (Mode.KPROBE, Mode.KRETPROBE, Mode.SESSION)]
    own.sort(key=lambda pair: pair[0].purpose is not Purpose.MESSAGE)
    slots = {hook: number for number, (hook, _) in enumerate(own, KPROBE_SLOT + 1)}
    placed = tuple(
        Placed(
            hook,
            mode,
            slots.get(hook, KPROBE_SLOT),
            kernel.btf.argument_count(hook.function) if mode is Mode.FEXIT else 0,
        )
        for hook, mode in modes
    )
    messages = sum(hook.purpose is Purpose.MESSAGE for hook, _ in own)
    return Plan(placed, KPROBE_SLOT + 1 + messages, KPROBE_SLOT + 1 + len(own))


def _mode(hook: Hook, fentry: bool, sessions: bool, preemptible: bool) -> Mode:
    """Return how a hook is attached.

    Where a preempted program would have others skipped, messages need kprobes or sessions: both run with
    preemption off.
    """
    if hook.at is At.TRACEPOINT:
        return Mode.TRACEPOINT
    typed = fentry and not (preemptible and hook.purpose is Purpose.MESSAGE)
    if hook.at is At.ENTRY:
        return Mode.FENTRY if typed and hook.often else Mode.KPROBE
    if sessions:
        return Mode.SESSION
    return Mode.FEXIT if typed and hook.sleeps else Mode.KRETPROBE


def source(plan: Plan) -> str:
    """Return the C after the bodies: the maps of tail calls, and the programs of all hooks."""
    maps = sorted({one.tail_calls for one in plan.placed if one.hook.purpose is not Purpose.ITSELF})
    declared = "".join(f'BPF_TABLE("prog", u32, u32, {name}, {Purpose.ITSELF.value});\n' for name in maps)
    return declared + "".join(map(_program, plan.placed))


def program_names(one: Placed) -> Sequence[str]:
    """Return the possible names in the C of the program that runs the body.

    bcc names typed ones by module from 0.28 on.
    """
    function = one.hook.function
    if one.mode is Mode.SESSION:
        return [f"kprobe__{function}"]
    if one.mode.typed:
        return [f"{one.mode.value}__vmlinux__{function}", f"{one.mode.value}__{function}"]
    return [f"{one.mode.value}__{function}"]


def keeper_name(one: Placed) -> str:
    """Return the name of the entry program that keeps a kretprobe's arguments."""
    return f"kprobe__{one.hook.function}"


_ENTRY = """
int {name}({context} *ctx)
{{
	if ({body}({slot}{first}, {second}))
		{go_on};
	return 0;
}}
"""

_FEXIT = """
int {name}(u64 *ctx)
{{
	struct arguments args = {{ ctx[0], ctx[1], ctx[2], ctx[3] }};
	if ({wanted})
		if ({body}({slot}{kept}, (int)ctx[{arguments}]))
			{go_on};
	return 0;
}}
"""

_KRETPROBE = """
int kprobe__{function}(struct pt_regs *ctx)
{{
	struct arguments args = ARGUMENTS(ctx);
	if ({wanted})
		keep_arguments({number}, REG_RETURN_PLACE(ctx), &args);
	return 0;
}}

int kretprobe__{function}(struct pt_regs *ctx)
{{
	struct arguments args = {{}};
	if (take_arguments({number}, REG_PLACE_AT_RETURN(ctx), &args))
		if ({body}({slot}{kept}, (int)REG_RESULT(ctx)))
			{go_on};
	return 0;
}}
"""

#: With one number to keep, that is the cookie; else the cookie tells nested calls apart.
_SESSION_NUMBER = """
int kprobe__{function}(struct pt_regs *ctx)
{{
	struct arguments args = ARGUMENTS(ctx);
	volatile u64 *cookie = session_cookie(ctx);
	if (!session_is_return(ctx)) {{
		*cookie = {keep}(&args);
		return !*cookie;
	}}
	if ({body}({slot}*cookie, (int)REG_RESULT(ctx)))
		{go_on};
	return 0;
}}
"""

_SESSION = """
int kprobe__{function}(struct pt_regs *ctx)
{{
	struct arguments args = ARGUMENTS(ctx);
	volatile u64 *cookie = session_cookie(ctx);
	if (!session_is_return(ctx)) {{
		if (!({wanted}))
			return 1;
		*cookie = bpf_ktime_get_ns();
		keep_arguments({number}, *cookie, &args);
		return 0;
	}}
	if (take_arguments({number}, *cookie, &args))
		if ({body}({slot}&args, (int)REG_RESULT(ctx)))
			{go_on};
	return 0;
}}
"""


def _program(one: Placed) -> str:
    """Return one hook's program, or both of a kretprobe."""
    hook, mode = one.hook, one.mode
    itself = hook.purpose is Purpose.ITSELF
    go_on = f"{one.tail_calls}.call(ctx, {hook.purpose.value})"
    words = {
        "function": hook.function,
        "number": HOOKS.index(hook),
        "body": hook.body,
        # What goes on to no other program needs no working memory, but for the tracepoint.
        "slot": "" if itself and mode is not Mode.TRACEPOINT else f"{one.slot}, ",
        "go_on": "return 0" if itself else go_on,
        "keep": hook.keep,
        "wanted": f"{hook.wants}(&args)" if hook.wants else "1",
        "kept": "&args",
        "arguments": one.arguments,
    }
    if hook.at is not At.RETURN:
        typed = mode is not Mode.KPROBE
        return _ENTRY.format(
            name=f"{_NAMED[mode]}({hook.function})" if mode.typed else f"{mode.value}__{hook.function}",
            context="u64" if typed else "struct pt_regs",
            first="ctx[0]" if typed else "REG_ARG1(ctx)",
            second="ctx[1]" if typed else "REG_ARG2(ctx)",
            **words,
        )
    if mode is Mode.SESSION:
        return (_SESSION_NUMBER if hook.keep else _SESSION).format(**words)
    if hook.keep:
        words |= {"wanted": f"(args.first = {hook.keep}(&args))", "kept": "args.first"}
    if mode is Mode.FEXIT:
        return _FEXIT.format(name=f"{_NAMED[mode]}({hook.function})", **words)
    return _KRETPROBE.format(**words)


_NAMED = {Mode.FENTRY: "FENTRY_NAME", Mode.FEXIT: "FEXIT_NAME"}
