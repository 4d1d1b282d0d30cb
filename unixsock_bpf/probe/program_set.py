"""The probe's programs and maps: compiled by bcc, loaded and attached.

They are the same for all filters, which are data in two of the maps.  Hooks that only events need are
loaded and attached once a filter asks for events.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter.encode import declarations
from unixsock_bpf.probe import bpf_syscall, bytecode, hook_programs, maps
from unixsock_bpf.probe.btf import BtfError
from unixsock_bpf.probe.bytecode import Bytecode, Subprogram
from unixsock_bpf.probe.compiler import Compiled, bcc_errors, compiled, source
from unixsock_bpf.probe.hook_programs import Mode, Placed, Plan
from unixsock_bpf.probe.hook_table import Hook, Need, Purpose
from unixsock_bpf.probe.hook_thread import HookThread
from unixsock_bpf.probe.kernel import SESSION_FUNCTIONS
from unixsock_bpf.probe.maps import Map, Shape

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.kernel import Kernel

#: What stands for the slot and the snapshot length in programs that make records.
_MARK = re.compile(r"^#define (SLOT|SNAPLEN)_HERE (\w+)$", re.MULTILINE)
#: What programs call of others, and the number of the helper that they take it for: bpf/filter/verdict.h
#: (global to the verifier), bpf/state/subprograms.h, and of the kernel's functions bpf/hooks/attach.h.
_CALL = re.compile(r"^#define (CALL|GLOBAL)_(\w+) (\w+)$", re.MULTILINE)
#: BPF_TRACE_FENTRY, BPF_TRACE_FEXIT and BPF_TRACE_KPROBE_SESSION in linux/bpf.h.
_ATTACH_TYPES = {Mode.FENTRY: 24, Mode.FEXIT: 25, Mode.SESSION: bpf_syscall.TRACE_KPROBE_SESSION}
#: The programs behind tail calls, by purpose.
_BEHIND = {
    Purpose.MESSAGE: "message",
    Purpose.EVENT: "event",
    Purpose.UPDATE: "news",
    Purpose.REFUSAL: "refused",
}


@dataclass(frozen=True)
class Program:
    """One program of a hook.

    ``keeps``: the entry probe of a kretprobe, which only keeps arguments.
    """

    placed: Placed
    keeps: bool = False

    @property
    def hook(self) -> Hook:
        """The row of the table."""
        return self.placed.hook

    @property
    def function(self) -> str:
        """The hooked function."""
        return self.hook.function

    @property
    def mode(self) -> Mode:
        """How it is attached."""
        return Mode.KPROBE if self.keeps else self.placed.mode

    @property
    def purpose(self) -> Purpose:
        """What the hook goes on to."""
        return self.hook.purpose


class ProgramSet:
    """Programs for ``settings``, loaded but not attached.  Raises ProbeError.

    ``plan``: how each hook is attached.
    """

    def __init__(self, settings: Settings, kernel: Kernel, plan: Plan) -> None:
        self._kernel = kernel
        self._plan = plan
        #: The hooks, and their descriptors.
        self._programs: dict[Program, int] = {}
        #: What is attached, and the descriptor or the thread that holds it.
        self._hooks: dict[Program, int | HookThread] = {}
        #: What a kretprobe's link said of missed calls when it was detached.
        self._missed: dict[Program, int | None] = {}
        #: Hooks that could not be attached and are not needed, and a sentence for each.
        self._left_out: dict[Placed, str] = {}
        #: Descriptors of maps and programs.
        self._open: list[int] = []
        #: What lies behind tail calls already, by map and element.
        self._behind: set[tuple[str, int]] = set()
        self._events = False
        try:
            with bcc_errors():
                found = compiled(sources(kernel.macros, plan))
                self._code = {name: program for part in found for name, program in part.programs.items()}
                self._slot_mark = self._complete(settings)
                self.maps = self._take_maps(found, settings.buffer_mib)
                self._load([one for one in plan.placed if not one.hook.events])
                if settings.events:
                    self.load_events()
        except ProbeError:
            self.close()
            raise

    def load_events(self) -> None:
        """Load the hooks that only events need, once; ``attach`` attaches them.  Raises ProbeError."""
        if not self._events:
            with bcc_errors():
                self._load([one for one in self._plan.placed if one.hook.events])
            self._events = True

    def _complete(self, settings: Settings) -> int:
        """Put into the programs what they are compiled without; return what stands for their slot."""
        text = source("records.bpf.c") + source("hooks/attach.h")
        marks = {name: int(value, 0) for name, value in _MARK.findall(text)}
        calls = {name: (int(value, 0), kind == "GLOBAL") for kind, name, value in _CALL.findall(text)}
        called = {
            number: Subprogram(name, self._code[name], is_global)
            for name, (number, is_global) in calls.items()
            if name in self._code
        }
        self._code = {name: code.calling(called) for name, code in self._code.items()}
        self._code["message"] = self._code["message"].with_value(
            marks["SNAPLEN"], settings.snaplen or 0x7FFFFFFF
        )
        if any(one.mode is Mode.SESSION for one in self._plan.placed):
            btf = self._kernel.btf
            functions = {
                calls[name.removeprefix("bpf_")][0]: btf.function(name) for name in SESSION_FUNCTIONS
            }
            self._code = {name: code.calling_kernel(functions) for name, code in self._code.items()}
        return marks["SLOT"]

    def _take_maps(self, parts: Sequence[Compiled], buffer_mib: int) -> dict[str, Map]:
        """Make the maps and return them by name."""
        on_demand = self._kernel.has("bpf_mem_alloc_init")
        shapes = {
            name: maps.sized(name, shape, buffer_mib, on_demand)
            for part in parts
            for name, shape in part.maps.items()
        }
        found = {}

        def make(name: str, shape: Shape) -> None:
            found[name] = Map(maps.create(name, shape), shape)
            self._open.append(found[name].fd)

        # First what takes long: memory for many elements.
        _side_by_side(make, sorted(shapes.items(), key=lambda one: -one[1].max_entries))
        maps.fill_caches(found.values(), range(self._kernel.macros["CPUS"]))
        return found

    def _code_of(self, program: Program) -> Bytecode:
        """Return a hook's program."""
        if program.keeps:
            return self._code[hook_programs.keeper_name(program.placed)]
        names = hook_programs.program_names(program.placed)
        return next(self._code[name] for name in names if name in self._code)

    def _load(self, hooks: Sequence[Placed]) -> None:
        """Load the programs of ``hooks`` and what they go on to, and put that behind the tail calls.

        Side by side: the kernel checks a program in the thread that loads it.
        """
        behind: dict[tuple[str, int], Placed] = {}
        for one in hooks:
            place = one.tail_calls, one.hook.purpose.value
            if one.hook.purpose is not Purpose.ITSELF and place not in self._behind:
                behind[place] = one  # kprobes share it
        programs = [Program(one) for one in hooks]
        programs += [Program(one, keeps=True) for one in hooks if one.mode is Mode.KRETPROBE]
        put: dict[tuple[str, int], int] = {}

        def load_hook(program: Program, code: Bytecode) -> None:
            try:
                name = f"{program.mode.value}__{program.function}"
                self._programs[program] = self._loaded(name, program.placed, program.mode, code)
            except (BtfError, ProbeError) as error:
                self._leave_out(program, str(error))

        def load_behind(one: Placed, code: Bytecode) -> None:
            name, place = _BEHIND[one.hook.purpose], (one.tail_calls, one.hook.purpose.value)
            with contextlib.suppress(BtfError):  # no such function: the hook itself is left out
                put[place] = self._loaded(name, one, one.mode, code.with_value(self._slot_mark, one.slot))

        jobs: list[tuple[Any, ...]] = [(load_hook, one, self._code_of(one)) for one in programs]
        jobs += [(load_behind, one, self._code[_BEHIND[one.hook.purpose]]) for one in behind.values()]
        # First what some kernels refuse, then what takes long: what is long.
        jobs.sort(key=lambda job: (not job[-2].mode.typed, -len(job[-1].instructions)))
        try:
            _side_by_side(lambda work, *rest: work(*rest), jobs)
        finally:
            self._open += [self._programs[one] for one in programs if one in self._programs]
        for (name, element), fd in put.items():
            table = self.maps[name]
            table[table.Key(element)] = table.Leaf(fd)
            os.close(fd)  # the map holds it
        self._behind |= put.keys()

    def _loaded(self, name: str, one: Placed, mode: Mode, code: Bytecode) -> int:
        """Load a program and return its descriptor.  Raises BtfError and ProbeError."""
        fds = {name: one.fd for name, one in self.maps.items()}
        function = self._kernel.btf.function(one.hook.function) if mode.typed else 0
        return bytecode.load(name, _bpf_type(mode), code, fds, (_ATTACH_TYPES.get(mode, 0), function))

    def _leave_out(self, program: Program, reason: str) -> None:
        """Go on without a hook that is not needed.

        Raises ProbeError if it is needed, or if a kprobe can be tried in its place (``Probe``).
        """
        hook = program.hook
        sentence = f"{hook.function} cannot be hooked: {reason}"
        if hook.need is Need.NEEDED or (program.mode.typed and not hook.events):
            raise ProbeError(sentence) from None
        self._left_out[program.placed] = f"{sentence}. Unknown without it: {hook.without}."

    @property
    def unattached(self) -> list[str]:
        """A sentence for each hook that is not attached, with what is unknown without it."""
        return list(self._left_out.values())

    def skipped(self) -> int | None:
        """Return how many messages and events at most its hooks missed; None where the kernel does not tell.

        That happens where the kernel may take the processor from a thread while it fills an sk_buff, and
        where more threads are inside of a function than a kretprobe has instances.  Others than Unix
        sockets fill them, too, so that it may be fewer.
        """
        counts = [self._skipped_by(program) for program in self._counting()]
        return None if None in counts else sum(count or 0 for count in counts)

    def _counting(self) -> list[Program]:
        """Return the programs whose missed calls are missing in the capture."""
        return [
            program
            for program in self._programs
            if program.purpose is Purpose.MESSAGE
            or (self._events and program.purpose in (Purpose.EVENT, Purpose.REFUSAL))
        ]

    def _skipped_by(self, program: Program) -> int | None:
        """Return how many calls of its function a program missed.

        Without preemption only an interrupt can come while another program runs, and none sends on
        Unix sockets.
        """
        mode = program.mode
        count: int | None = 0
        if mode is Mode.SESSION or self._kernel.preemptible:
            count = bpf_syscall.skipped(self._programs[program]) if self._is_asked(program) else None
        if mode is Mode.KRETPROBE and program.hook.sleeps and count is not None:
            missed = self._missed_by(program)
            count = None if missed is None else count + missed
        return count

    def _is_asked(self, program: Program) -> bool:
        """Return whether the kernel counts what a program missed, and has to be asked."""
        kernel, mode = self._kernel, program.mode
        if mode is Mode.SESSION:
            return True
        return kernel.preemptible and (mode in (Mode.FENTRY, Mode.FEXIT) or kernel.missed_offset is not None)

    def _missed_by(self, program: Program) -> int | None:
        """Return how many calls found all instances of a kretprobe taken; None where that is not known."""
        link, offset = self._hooks.get(program), self._kernel.missed_offset
        if not isinstance(link, HookThread):
            return self._missed.get(program)
        return None if offset is None else link.missed(offset)

    def countable(self) -> set[int]:
        """Return the descriptors that ``skipped`` needs open."""
        return {self._programs[program] for program in self._counting() if self._is_asked(program)}

    def attach(self) -> None:
        """Attach the hooks that are loaded and not attached.  Raises ProbeError."""
        with bcc_errors():
            for program in sorted(self._programs.keys() - self._hooks.keys(), key=_rank):
                if program.placed in self._left_out:  # the other half of a kretprobe
                    continue
                try:
                    hook = self._attached(program)
                except OSError as error:
                    self._leave_out(program, _no_function(program, error))
                    self._detach([one for one in self._hooks if one.placed == program.placed])
                    continue
                needs_thread = program.mode in (Mode.KPROBE, Mode.KRETPROBE, Mode.SESSION)
                self._hooks[program] = HookThread(hook) if needs_thread else hook
            for program in [one for one in self._programs if one.placed in self._left_out]:
                del self._programs[program]

    def _attached(self, program: Program) -> int:
        """Attach a program and return the hook's descriptor: it is there as long as that is open.

        Raises OSError.
        """
        fd, function, mode = self._programs[program], program.function, program.mode
        if mode is Mode.TRACEPOINT:
            return bpf_syscall.attach_tracepoint(fd, function)
        if mode.typed:
            return bpf_syscall.attach_tracing(fd)
        if mode is Mode.SESSION:
            return bpf_syscall.attach_session(fd, function)
        at_return = mode is Mode.KRETPROBE
        counts = at_return and program.hook.sleeps and self._kernel.missed_offset is not None
        return bpf_syscall.attach_kprobe(fd, function, at_return, counts)

    def detach_listing(self) -> None:
        """Detach, sooner or later, what is only needed while the reader lists the sockets."""
        for program in [one for one in self._hooks if one.hook.listing]:
            hook = self._hooks.pop(program)
            del self._programs[program]
            if isinstance(hook, HookThread):
                hook.detach()

    def detach_messages(self) -> None:
        """Detach the hooks that write records of messages and events."""
        writing = (Purpose.MESSAGE, Purpose.EVENT, Purpose.REFUSAL)
        self._detach([one for one in self._hooks if one.purpose in writing])

    def detach(self) -> None:
        """Detach all hooks: a confined process can do that, too."""
        self._detach(list(self._hooks))

    def _detach(self, programs: Sequence[Program]) -> None:
        """Detach these hooks, the last first."""
        for program in programs:
            if program.mode is Mode.KRETPROBE and program.hook.sleeps:
                self._missed[program] = self._missed_by(program)
        hooks = [self._hooks.pop(program) for program in reversed(programs)]
        threads = [hook for hook in hooks if isinstance(hook, HookThread)]
        for thread in threads:
            thread.detach()
        for hook in hooks:
            if not isinstance(hook, HookThread):
                os.close(hook)
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Free the programs and the maps."""
        while self._open:
            os.close(self._open.pop())


def _side_by_side(work: Callable[..., None], jobs: Iterable[tuple[Any, ...]]) -> None:
    """Do ``work`` for all ``jobs``, on all processors.  Raises ProbeError, and does no more then."""
    from concurrent.futures import ThreadPoolExecutor  # as late as bcc

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        working = [threads.submit(work, *job) for job in jobs]
        try:
            for one in working:
                one.result()
        except ProbeError:
            threads.shutdown(cancel_futures=True)
            raise


def _rank(program: Program) -> tuple[bool, bool]:
    """Return in which order programs are attached.

    Entries come before returns, so that no return is seen without its entry, and those that write
    messages come last: ``detach``, and the kernel at the end of a process that was killed, begin with
    the last, and closing each that is no kprobe took an eighth of a second where it was measured.
    """
    return program.purpose is Purpose.MESSAGE, program.mode in (Mode.KRETPROBE, Mode.FEXIT, Mode.SESSION)


def _no_function(program: Program, error: OSError) -> str:
    kind = program.mode.name.lower().replace("_", " ")
    return f"the kernel permits no {kind} there: {error.strerror}"


def sources(macros: dict[str, int], plan: Plan) -> list[tuple[str, list[str]]]:
    """Return what has to be compiled, each a C text and its flags.  ``macros``: layouts and sizes."""
    values = macros | plan.macros
    flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in values.items()]
    head = source("kernel/bpf_helpers.h") + declarations()
    hooks = source("hooks.bpf.c") + hook_programs.source(plan)
    return [(head + text, flags) for text in (source("records.bpf.c"), hooks)]


def compile_ahead() -> None:
    """Compile for the running kernel, into the cache; captures compile nothing then.  Raises ProbeError."""
    from unixsock_bpf.probe.kernel import kernel

    here = kernel()
    with bcc_errors():
        compiled(sources(here.macros, hook_programs.plan(here, here.ways[0], here.has_sessions)))


def _bpf_type(mode: Mode) -> int:
    import bcc

    if mode is Mode.TRACEPOINT:
        return bcc.BPF.RAW_TRACEPOINT
    return bcc.BPF.TRACING if mode.typed else bcc.BPF.KPROBE
