"""The probe's programs for one filter: compiled, loaded and attached through bcc.

The first generation makes the maps and is attached.  A later one, for another filter, shares
the maps and takes over through the tail calls that hooks/attach.h tells of; it adds hooks only where
events are wanted that no earlier one was to tell of.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter import everything
from unixsock_bpf.probe import bytecode, hook_programs, libbpf, maps
from unixsock_bpf.probe.btf import BtfError
from unixsock_bpf.probe.compiler import Compiled, compiled, errors_told, source
from unixsock_bpf.probe.hook_programs import Mode, Placed, Plan
from unixsock_bpf.probe.hook_table import Need, Purpose
from unixsock_bpf.probe.hook_thread import Keeper
from unixsock_bpf.probe.kernel import SESSION_FUNCTIONS
from unixsock_bpf.probe.maps import Map, Shape

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.kernel import Kernel

#: What stands for the slot, the generation's number and the snapshot length in programs that are loaded
#: more than once.
_MARK = re.compile(r"^#define (SLOT|GENERATION|SNAPLEN)_HERE (\w+)$", re.MULTILINE)
#: What programs call of others, and the number of the helper that they take it for: bpf/filter/abi.h,
#: bpf/state/subprograms.h, and of the kernel's functions bpf/hooks/attach.h.
_CALL = re.compile(r"^#define CALL_(\w+) (\w+)$", re.MULTILINE)
#: BPF_TRACE_FENTRY, BPF_TRACE_FEXIT and BPF_TRACE_KPROBE_SESSION in linux/bpf.h.
_ATTACH_TYPES = {Mode.FENTRY: 24, Mode.FEXIT: 25, Mode.SESSION: libbpf.KPROBE_SESSION}
#: The programs behind tail calls, by purpose; which one for EVENT_OR_UPDATE depends on the settings.
_BEHIND = {Purpose.MESSAGE: "message", Purpose.EVENT: "event", Purpose.UPDATE: "news"}
#: The map that each generation has for itself.
_OWN = "filter_tables"
#: Settings that the hooks don't depend on.
_RECORDS_ONLY = ("WITH_CAPTURERS",)


@dataclass(frozen=True)
class Program:
    """One program of a hook.  ``keeps``: the entry probe of a kretprobe, which only keeps arguments."""

    placed: Placed
    keeps: bool = False

    @property
    def function(self) -> str:
        """The hooked function."""
        return self.placed.hook.function

    @property
    def mode(self) -> Mode:
        """How it is attached."""
        return Mode.KPROBE if self.keeps else self.placed.mode

    @property
    def purpose(self) -> Purpose:
        """What the hook goes on to."""
        return self.placed.hook.purpose


class Generation:
    """Programs for ``settings``, loaded but not attached.  Raises ProbeError.

    ``plan``: how each hook is attached.
    ``earlier``: generations that are attached, the one whose maps are shared first; none: this is it.
    ``number``: from 1 on.
    """

    def __init__(
        self,
        settings: Settings,
        kernel: Kernel,
        plan: Plan,
        number: int,
        earlier: Sequence[Generation] = (),
    ) -> None:
        self.number = number
        self._kernel = kernel
        self._plan = plan
        #: The hooks that are its own, and their descriptors.
        self._programs: dict[Program, int] = {}
        #: What is attached, and the descriptor or its keeper.
        self._hooks: dict[Program, int | Keeper] = {}
        #: Those that were attached and whose missed calls count, and what a kretprobe's link said at its end.
        self._counting: list[Program] = []
        self._missed: dict[Program, int | None] = {}
        #: A sentence for each hook that could not be attached and is not needed.
        self.unattached: list[str] = []
        #: Descriptors of what only this generation has.
        self._open: list[int] = []
        #: Descriptors of what is behind tail calls, by map and element; some share one.
        self._behind: dict[tuple[str, int], int] = {}
        self._events = settings.events
        attached: frozenset[Program] = frozenset().union(*(one.attached for one in earlier))
        hooked = any(one._events or not settings.events for one in earlier)
        placed = [] if hooked else plan.hooks(settings.events)
        try:
            with errors_told():
                found = compiled(sources(settings, kernel.macros, plan, placed))
                self._code = {name: program for part in found for name, program in part.programs.items()}
                marks = self._complete(settings)
                if earlier:
                    self._code = {**earlier[0].unfiltered, **self._code}
                self.maps = self._take_maps(found, settings.buffer_mib, earlier)
                there = {program.function for program in attached}
                hooks = self._new_hooks([one for one in placed if one.hook.function not in there])
                # Updates are the same for all filters: what tells of them stays as it is.
                going_on = {program.placed for program in [*attached, *hooks]}
                behind = [one for one in going_on if not earlier or one.hook.purpose is not Purpose.UPDATE]
                self._load(hooks, behind, marks["SLOT"])
        except ProbeError:
            self.close()
            raise
        if settings.filter.tables:
            table = self.maps[_OWN]
            table[table.Key(0)] = table.Leaf.from_buffer_copy(
                settings.filter.tables.ljust(ctypes.sizeof(table.Leaf), b"\0")
            )

    def _complete(self, settings: Settings) -> dict[str, int]:
        """Put into the programs what they are compiled without; return what stands for the rest."""
        text = source("records.bpf.c") + source("hooks/attach.h")
        marks = {name: int(value, 0) for name, value in _MARK.findall(text)}
        numbers = {name: int(value, 0) for name, value in _CALL.findall(text)}
        parts = {number: self._code[name] for name, number in numbers.items() if name in self._code}
        for name in ("message", "event"):
            self._code[name] = self._code[name].with_value(marks["GENERATION"], self.number).calling(parts)
        if "news" in self._code:
            self._code["news"] = self._code["news"].calling(parts)
        self._code["message"] = self._code["message"].with_value(
            marks["SNAPLEN"], settings.snaplen or 0x7FFFFFFF
        )
        if any(one.mode is Mode.SESSION for one in self._plan.placed):
            btf = self._kernel.btf
            functions = {numbers[name.removeprefix("bpf_")]: btf.function(name) for name in SESSION_FUNCTIONS}
            self._code = {name: code.calling_kernel(functions) for name, code in self._code.items()}
        return marks

    @property
    def unfiltered(self) -> dict[str, bytecode.Code]:
        """What goes behind tail calls and is the same for all filters."""
        return {"news": self._code["news"]}

    def _take_maps(
        self, parts: Sequence[Compiled], buffer_mib: int, earlier: Sequence[Generation]
    ) -> dict[str, Map]:
        """The maps by name: the first generation's, or new ones."""
        sizes = maps.sizes(buffer_mib)
        shared = earlier[0].maps if earlier else {}
        shapes = {
            name: dataclasses.replace(shape, max_entries=sizes.get(name, shape.max_entries))
            for part in parts
            for name, shape in part.maps.items()
            if name not in shared or name == _OWN
        }
        found = {}

        def make(name: str, shape: Shape) -> None:
            found[name] = Map(maps.create(name, shape), shape)
            self._open.append(found[name].fd)

        # First what takes long: memory for many elements.
        _side_by_side(make, sorted(shapes.items(), key=lambda one: -one[1].max_entries))
        return {**shared, **found}

    def _new_hooks(self, placed: Iterable[Placed]) -> dict[Program, bytecode.Code]:
        """The programs of these hooks."""
        found = {}
        for one in placed:
            names = [name for name in hook_programs.program_names(one) if name in self._code]
            if keeper := hook_programs.keeper_name(one):
                found[Program(one, keeps=True)] = self._code[keeper]
            found[Program(one)] = self._code[names[0]]
        return found

    def _load(self, hooks: dict[Program, bytecode.Code], behind: Iterable[Placed], mark: int) -> None:
        """Load ``hooks`` and what they go on to, side by side: the kernel checks a program in the thread
        that loads it, message in a twentieth of a second.  ``mark``: what stands for the slot."""
        fds = {name: one.fd for name, one in self.maps.items()}

        def load(one: Placed, mode: Mode, name: str, code: bytecode.Code, put: Callable[[int], None]) -> None:
            function = one.hook.function
            hook = (_ATTACH_TYPES.get(mode, 0), self._kernel.btf.function(function) if mode.typed else 0)
            put(bytecode.load(name, _bpf_type(mode), code.linked(fds), hook))

        def load_hook(program: Program, code: bytecode.Code) -> None:
            def put(fd: int) -> None:
                self._programs[program] = fd

            try:
                load(program.placed, program.mode, f"{program.mode.value}__{program.function}", code, put)
            except (BtfError, ProbeError) as error:
                self._leave_out(program, error)

        def load_behind(one: Placed) -> None:
            def put(fd: int) -> None:
                self._behind[one.tail_calls, one.hook.purpose.value] = fd

            name = self._name_behind(one.hook.purpose)
            load(one, one.mode, name, self._code[name].with_value(mark, one.slot), put)

        # Kprobes share what they go on to.
        shared = {(one.tail_calls, one.hook.purpose): one for one in behind}
        jobs: list[tuple[Any, ...]] = [
            (load_behind, one) for (_, purpose), one in shared.items() if purpose is not Purpose.ITSELF
        ]
        jobs += [(load_hook, *one) for one in hooks.items()]

        def rank(job: tuple[Any, ...]) -> tuple[bool, bool, int]:
            """First what some kernels refuse, then what takes long: loops of many steps, and what is long."""
            if job[0] is load_hook:
                one, size = job[1].placed, len(job[2].instructions)
            else:
                one, size = job[1], len(self._code[self._name_behind(job[1].hook.purpose)].instructions)
            return not one.mode.typed, not one.hook.again, -size

        try:
            _side_by_side(lambda work, *rest: work(*rest), sorted(jobs, key=rank))
        finally:
            self._open += self._programs.values()
        for program, fd in self._programs.items():
            if program.placed.hook.again and not program.keeps:
                again = self.maps["again"]
                again[again.Key(0)] = again.Leaf(fd)

    def _name_behind(self, purpose: Purpose) -> str:
        """The program that a purpose names."""
        if purpose is Purpose.EVENT_OR_UPDATE:
            purpose = Purpose.EVENT if self._events else Purpose.UPDATE
        return _BEHIND[purpose]

    def _leave_out(self, program: Program, error: Exception) -> None:
        """Go on without a hook that is not needed.  Raises ProbeError."""
        hook = program.placed.hook
        reason = f"{hook.function} cannot be hooked: {error}"
        if hook.need is Need.NEEDED:
            raise ProbeError(reason) from None
        self.unattached.append(f"{reason}. Unknown without it: {hook.without}.")

    def skipped(self) -> int | None:
        """Messages and events at most that its hooks missed; None where the kernel does not tell.

        That happens where the kernel may take the processor from a thread while it fills an
        sk_buff.  Others than Unix sockets fill them, too, so that it may be fewer.
        """
        counts = [self._skipped_by(program) for program in self._counting]
        return None if None in counts else sum(count or 0 for count in counts)

    def _counts(self, program: Program) -> bool:
        """Whether what this program misses is missing in the capture."""
        if program.purpose is Purpose.MESSAGE:
            return True
        return self._events and program.purpose in (Purpose.EVENT, Purpose.EVENT_OR_UPDATE)

    def _skipped_by(self, program: Program) -> int | None:
        """How many calls of its function a program missed.

        Without preemption only an interrupt can come while another program runs, and none sends on
        Unix sockets.
        """
        kernel, mode = self._kernel, program.mode
        count: int | None = 0
        if mode is Mode.SESSION or kernel.preemptible:
            counted = mode in (Mode.SESSION, Mode.FENTRY, Mode.FEXIT) or kernel.missed_offset is not None
            count = libbpf.skipped(self._programs[program]) if counted else None
        if mode is Mode.KRETPROBE and program.placed.hook.sleeps and count is not None:
            missed = self._missed_by(program)
            count = None if missed is None else count + missed
        return count

    def _missed_by(self, program: Program) -> int | None:
        """Return how many calls found all instances of a kretprobe taken; None where that is not known."""
        link, offset = self._hooks.get(program), self._kernel.missed_offset
        if not isinstance(link, Keeper):
            return self._missed.get(program)
        return None if offset is None else link.missed(offset)

    def countable(self) -> set[int]:
        """Descriptors that ``skipped`` needs open."""
        return {self._programs[program] for program in self._counting}

    def take_over(self, first: Generation) -> None:
        """Goes behind the tail calls of ``first``, which made them, and of others."""
        for (name, element), fd in self._behind.items():
            table = first.maps[name]
            table[table.Key(element)] = table.Leaf(fd)

    def attach(self) -> None:
        """Attaches the hooks that no earlier generation has.  Raises ProbeError."""
        with errors_told():
            left_out: set[Placed] = set()
            for program in sorted(self._programs, key=_rank):
                if program.placed in left_out:  # the other half of a kretprobe
                    continue
                try:
                    hook = self._attached(program)
                except OSError as error:
                    self._leave_out(program, _no_function(program, error))
                    left_out.add(program.placed)
                    self._take_out([one for one in self._hooks if one.placed == program.placed])
                    continue
                closes_slowly = program.mode in (Mode.KPROBE, Mode.KRETPROBE, Mode.SESSION)
                self._hooks[program] = Keeper(hook) if closes_slowly else hook
            self._counting = [program for program in self._hooks if self._counts(program)]

    def _attached(self, program: Program) -> int:
        """A hook's descriptor: it is there as long as that is open.  Raises OSError."""
        fd, function, mode = self._programs[program], program.function, program.mode
        if mode is Mode.TRACEPOINT:
            return libbpf.attach_tracepoint(fd, function)
        if mode.typed:
            return libbpf.attach_tracing(fd)
        if mode is Mode.SESSION:
            return libbpf.attach_session(fd, function)
        at_return = mode is Mode.KRETPROBE
        counts = at_return and self._counts(program) and program.placed.hook.sleeps
        link = counts and self._kernel.missed_offset is not None
        return libbpf.attach_kprobe(fd, function, at_return, link)

    @property
    def attached(self) -> frozenset[Program]:
        """Programs that are attached."""
        return frozenset(self._hooks)

    def end_listing(self) -> None:
        """Takes out, sooner or later, what is only needed while the reader lists the sockets."""
        for program in [one for one in self._hooks if one.placed.hook.listing]:
            hook = self._hooks.pop(program)
            if isinstance(hook, Keeper):
                hook.let_go()

    def silence(self) -> None:
        """Takes out the hooks that tell of messages and events."""
        silent = {Purpose.UPDATE, Purpose.ITSELF}
        if not self._events:
            silent.add(Purpose.EVENT_OR_UPDATE)
        telling = [one for one in self._hooks if one.purpose not in silent]
        self._take_out(telling)

    def detach(self) -> None:
        """Takes the hooks out: a confined process can do that, too."""
        self._take_out(list(self._hooks))

    def _take_out(self, programs: Sequence[Program]) -> None:
        """The last first."""
        for program in self._counting:
            if program in programs and program.mode is Mode.KRETPROBE:
                self._missed[program] = self._missed_by(program)
        hooks = [self._hooks.pop(program) for program in reversed(programs)]
        keepers = [hook for hook in hooks if isinstance(hook, Keeper)]
        for keeper in keepers:
            keeper.let_go()
        for hook in hooks:
            if not isinstance(hook, Keeper):
                os.close(hook)
        for keeper in keepers:
            keeper.join()

    def close(self) -> None:
        """Frees it, once another generation took over from it."""
        self.close_gated()
        while self._open:
            os.close(self._open.pop())

    def close_gated(self) -> None:
        """Lets go of what lies behind the tail calls, whose maps hold it as long as they need it."""
        for fd in set(self._behind.values()):
            os.close(fd)
        self._behind.clear()


def _side_by_side(work: Callable[..., None], jobs: Iterable[tuple[Any, ...]]) -> None:
    """``work`` for all ``jobs``, on all processors.  Raises ProbeError, and does no more then."""
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
    """Entries come before returns, so that no return is seen without its entry, and those that tell of
    messages come last: detach, and the kernel at the end of a process that was killed, begin with
    the last, and closing each that is no kprobe took an eighth of a second where it was measured."""
    return program.purpose is Purpose.MESSAGE, program.mode in (Mode.KRETPROBE, Mode.FEXIT, Mode.SESSION)


def _no_function(program: Program, error: OSError) -> ProbeError:
    kind = program.mode.name.lower()
    return ProbeError(f"the kernel permits no {kind} there: {os.strerror(error.errno or 0)}")


def sources(
    settings: Settings, macros: dict[str, int], plan: Plan, hooks: Sequence[Placed]
) -> list[tuple[str, list[str]]]:
    """What has to be compiled, each a C text and its flags: first what depends on the filter, then what all
    filters share.  ``macros``: layouts and sizes.  ``hooks``: those that are wanted."""
    macros = macros | plan.macros | _settings_macros(settings)
    way = plan.way
    parts = [
        _with_flags("filter.bpf.c", settings.filter, {}, way),
        _with_flags("records.bpf.c", everything(), macros, way),
    ]
    if hooks:
        shared = {name: value for name, value in macros.items() if name not in _RECORDS_ONLY}
        text, flags = _with_flags("hooks.bpf.c", everything(), shared, way)
        parts.append((text + hook_programs.source(plan, hooks), flags))
    return parts


def _with_flags(name: str, filter_: Filter, macros: dict[str, int], way: str) -> tuple[str, list[str]]:
    """A file of ours after the filter's functions, and the compiler's flags for it."""
    text = source("kernel/bpf_helpers.h") + filter_.to_c() + source(name)
    flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
    return text, [*flags, *(["-DATTACH_FENTRY"] if way == "fentry" else [])]


def _bpf_type(mode: Mode) -> int:
    import bcc

    if mode is Mode.TRACEPOINT:
        return int(bcc.BPF.RAW_TRACEPOINT)
    return int(bcc.BPF.TRACING if mode.typed else bcc.BPF.KPROBE)


def _settings_macros(settings: Settings) -> dict[str, int]:
    macros = {}
    if settings.events:
        macros["WITH_EVENTS"] = 1
    if settings.include_capture_processes:
        macros["WITH_CAPTURERS"] = 1
    return macros
