"""The running kernel: whether it may be traced, its types, and whether it can be preempted."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from unixsock_bpf.dependencies import how_to_install
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import bcc_package, hook_table, offsets
from unixsock_bpf.probe.btf import Btf, BtfError
from unixsock_bpf.probe.offsets import Types
from unixsock_bpf.probe.refusals import VMLINUX_BTF, tracing_refused

_SHIM = Path(__file__).parents[1] / "bpf/kernel_shim"

#: Functions of which a kernel that can be preempted has one: the first, which BTF lacks where it has only
#: what ftrace may trace (before pahole's commit 58a98f76ac95 ("btf: Remove ftrace filter"), after 1.21); and
#: the second, but for kernels that are preempted lazily (Linux 6.13 and later).
_PREEMPTIBLE = ("preempt_schedule", "__rcu_read_unlock")

#: What there is where kprobe.session links run on the function graph tracer (Linux commit 4346ba160409
#: ("fprobe: Rewrite fprobe on function-graph tracer"), v6.14), without a limit of instances: two functions
#: that programs call, and a member.
SESSION_FUNCTIONS = ("bpf_session_cookie", "bpf_session_is_return")
_SESSION_FACTS = (*SESSION_FUNCTIONS, "fprobe.hlist_array")
#: What there is with direct calls from ftrace.  Source: struct ftrace_ops in linux/ftrace.h.
_DIRECT_CALLS = "ftrace_ops.direct_call"
#: Where a link tells the calls that its kprobe missed.  Kernels that have it also count the runs of kprobes'
#: programs that they skip (Linux commit dd8657894c11 ("bpf: Count missed stats in trace_call_bpf"), v6.7).
_MISSED = "bpf_link_info.perf_event.kprobe.missed"


@dataclass(frozen=True)
class Kernel:
    """The running kernel.

    ``types``: its structures and functions, from BTF or, without types of functions, from its headers.
    ``macros``: layouts and sizes for the C.  ``preemptible``: whether it may take the processor from a
    thread while it runs an fentry program.
    """

    types: Types
    macros: dict[str, int]
    preemptible: bool

    def has(self, fact: str) -> bool:
        """Return whether the kernel has a function, or ``struct.member``."""
        if "." not in fact:
            return self.types.has_function(fact)
        return self.types.has_struct(fact.partition(".")[0]) and self.types.member(fact) is not None

    @property
    def btf(self) -> Btf:
        """Its BTF, for what needs functions' types.  Raises BtfError where there is none."""
        if not isinstance(self.types, Btf):
            raise BtfError("the kernel has no BTF")
        return self.types

    @property
    def has_sessions(self) -> bool:
        """Whether returns can be hooked by kprobe.session links that miss nothing."""
        return self.types.has_function_types and all(map(self.has, _SESSION_FACTS))

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways of attaching to try, the best first: fentry and kprobe.

        On x86-64 all kernels with BTF have fentry; on arm64 those since Linux 6.4 that were built with
        CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, which load its programs before, too, but do not attach them.
        Kernels without BTF have none.
        """
        direct_calls = os.uname().machine != "aarch64" or self.has(_DIRECT_CALLS)
        if not (self.types.has_function_types and direct_calls):
            return ("kprobe",)
        return ("fentry", "kprobe")

    @property
    def missed_offset(self) -> int | None:
        """Where struct bpf_link_info has a kprobe's missed calls; None if the kernel counts none."""
        found = self.types.member(_MISSED) if self.types.has_struct("bpf_link_info") else None
        return found.offset if found else None


def kernel() -> Kernel:
    """Return the running kernel.  Raises ProbeError, too, where bcc is missing."""
    refused = tracing_refused()
    if refused:
        raise ProbeError(refused)
    try:
        os.environ["BCC_KERNEL_SOURCE"] = str(_SHIM)
        bcc = bcc_package.load()
        # A machine may have room for many more processors than it has.
        cpus = max(bcc.utils.get_online_cpus()) + 1
    except Exception as error:  # no libbcc, or another package of that name
        raise ProbeError(
            f"The Python package bcc is missing or of no use ({error}): {how_to_install('bcc')}."
        ) from None
    try:
        found = types()
        macros = offsets.macros(found)
    except BtfError as error:
        raise ProbeError(f"This kernel can't be traced: {error}.") from None
    macros |= {"PAGE_SIZE": mmap.PAGESIZE, "CPUS": cpus}
    return Kernel(found, macros, preemptible(found))


def types(path: str = VMLINUX_BTF) -> Types:
    """Return the running kernel's types, from its headers where it has no BTF.  Raises BtfError."""
    if os.access(path, os.R_OK):
        return Btf()
    from unixsock_bpf.probe.kernel_headers import KernelHeaders

    members = {fact for hook in hook_table.HOOKS for fact in (*hook.facts, *hook.lacks) if "." in fact}
    return KernelHeaders({*offsets.MEMBERS, *members, _MISSED}, offsets.STRUCTS)


def preemptible(types: Types, report: str = "/sys/kernel/debug/sched/preempt") -> bool:
    """Whether this kernel may take the processor from a thread that is inside of it, as far as it says.

    Which of the kinds that it was built with it uses is in debugfs, since Linux commit
    1011dcce99f8 ("sched,preempt: Move preempt_dynamic to debug.c"), v5.13.  Without that, it may.
    """
    if not any(types.has_function(name) for name in _PREEMPTIBLE):
        return False
    try:
        kinds = Path(report).read_text()
    except OSError:
        return True
    return "(none)" not in kinds and "(voluntary)" not in kinds
