"""The probe's programs for one filter: compiled, loaded and attached through bcc.

The first generation makes the maps and is attached.  A later one, for another filter, shares
the maps and takes over through the gates that hooks/attach.h tells of; it adds hooks only where
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
from unixsock_bpf.probe import bytecode, maps
from unixsock_bpf.probe.compiler import Compiled, compiled, errors_told, source
from unixsock_bpf.probe.hook_thread import Keeper
from unixsock_bpf.probe.maps import Map, Shape

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.kernel import Kernel

#: A hook in the C, by the function: ON_ENTRY(function, body), EVENT_ON_RETURN(function, body, ...).
_HOOK = re.compile(
    r"^(?:(MESSAGE|EVENT|NEWS|MOMENT)_)?ON_(?:EVERY_|RARE_)?(?:ENTRY|RETURN)\((\w+), \w+", re.MULTILINE
)
#: A hook's working memory, by its function, and that of all kprobes.
_SLOT = re.compile(r"^#define SLOT_(\w+) (\w+)$", re.MULTILINE)
#: What stands for the generation's number and for the snapshot length in programs that make records.
_MARK = re.compile(r"^#define (GENERATION|SNAPLEN)_HERE (\w+)$", re.MULTILINE)
#: What programs call of others, and the number of the helper that they take it for: bpf/filter/abi.h,
#: bpf/state/subprograms.h.
_CALL = re.compile(r"^#define CALL_(\w+) (\w+)$", re.MULTILINE)
#: A program's name, as bcc wants it.
_PROGRAM = re.compile(r"(kfunc|kretfunc|kprobe|kretprobe|raw_tracepoint)__(?:vmlinux__)?(\w+)")
#: What the kernel calls the kinds that BTF describes: BPF_TRACE_FENTRY and _FEXIT in linux/bpf.h.
_ATTACH_TYPES = {"kfunc": 24, "kretfunc": 25}
#: Functions that tell of messages and that a thread may lose its processor in.
_INTERRUPTIBLE = ("skb_copy_datagram_from_iter", "skb_splice_from_iter")
#: The same of events.
_INTERRUPTIBLE_EVENTS = ("unix_stream_connect", "unix_accept", "unix_socketpair", "unix_shutdown")
#: The function, one of these, whose program runs itself again: AGAIN_ON_RARE_ENTRY and ..._RETURN in
#: bpf/hooks/attach.h.
_AGAIN = ("unix_prepare_fpl", "__scm_send")
#: The function whose hook serves while the reader lists the sockets that are there already.
_LISTING = "sock_diag_save_cookie"
#: The map that each generation has for itself.
_OWN = "filter_tables"
#: Settings that the hooks don't depend on.
_RECORDS_ONLY = ("WITH_CAPTURERS",)


@dataclass(frozen=True)
class Program:
    """One program: its name, its kind and what it hooks.

    Kinds are kfunc, kretfunc, kprobe, kretprobe and raw_tracepoint.  The entry probe of a
    kretprobe only keeps arguments, and has no gate.
    """

    name: str
    kind: str
    function: str
    has_gate: bool


class Generation:
    """Programs for ``settings``, loaded but not attached.  Raises ProbeError.

    ``way``: fentry or kprobe.
    ``earlier``: generations that are attached, the one whose maps are shared first; none: this is it.
    ``number``: from 1 on.
    """

    def __init__(
        self,
        settings: Settings,
        kernel: Kernel,
        way: str,
        number: int,
        earlier: Sequence[Generation] = (),
    ) -> None:
        self.number = number
        self._btf = kernel.btf
        #: The hooks that are its own, and their descriptors.
        self._programs: dict[Program, int] = {}
        #: What is attached, and the descriptor or its keeper.
        self._hooks: dict[Program, int | Keeper] = {}
        #: Descriptors of what only this generation has.
        self._open: list[int] = []
        text = source("hooks.bpf.c")
        slots = {match[1]: int(match[2], 0) for match in _SLOT.finditer(text)}
        #: Functions whose hooks have a gate, and the name of what belongs behind it.
        self._behind = _behind_gates(text, settings.events)
        self._events = settings.events
        attached: frozenset[Program] = frozenset().union(*(one.attached for one in earlier))
        hooked = any(one._events or not settings.events for one in earlier)
        #: Descriptors of what is behind gates; some share one.
        self._gated: dict[Program, int] = {}
        try:
            with errors_told():
                found = compiled(sources(settings, kernel.macros, way, hooks=not hooked))
                self._code = {name: program for part in found for name, program in part.programs.items()}
                self._complete(settings, text)
                if earlier:
                    self._code = {**earlier[0].unfiltered, **self._code}
                self.maps = self._take_maps(found, settings.buffer_mib, earlier)
                hooks = self._new_hooks({program.function for one in earlier for program in one._programs})
                # News is the same for all filters: its gates stay as they are.
                for_ever = {match[2] for match in _HOOK.finditer(text) if match[1] == "NEWS" and earlier}
                gates = [one for one in attached if one.function not in for_ever]
                self._load(hooks, self._behind_gates_of([*gates, *hooks], slots))
        except ProbeError:
            self.close()
            raise
        if settings.filter.tables:
            table = self.maps[_OWN]
            table[table.Key(0)] = table.Leaf.from_buffer_copy(
                settings.filter.tables.ljust(ctypes.sizeof(table.Leaf), b"\0")
            )

    def _complete(self, settings: Settings, text: str) -> None:
        """Puts into the programs what they are compiled without.  ``text``: the C of all hooks."""
        marks = {name: int(value, 0) for name, value in _MARK.findall(text)}
        parts = {int(value, 0): self._code[name] for name, value in _CALL.findall(source("records.bpf.c"))}
        for name in ("message", "event"):
            self._code[name] = self._code[name].with_value(marks["GENERATION"], self.number).calling(parts)
        if "news" in self._code:
            self._code["news"] = self._code["news"].calling(parts)
        self._code["message"] = self._code["message"].with_value(
            marks["SNAPLEN"], settings.snaplen or 0x7FFFFFFF
        )

    @property
    def unfiltered(self) -> dict[str, bytecode.Code]:
        """What goes behind gates and is the same for all filters."""
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

    def _new_hooks(self, there: set[str]) -> dict[Program, bytecode.Code]:
        """The hooks on other functions than those."""
        found = {}
        for name, instructions in self._code.items():
            match = _PROGRAM.fullmatch(name)
            if match and match[2] not in there:
                alone = match[1] != "kprobe" or f"kretprobe__{match[2]}" not in self._code
                found[Program(name, match[1], match[2], alone)] = instructions
        return found

    def _behind_gates_of(
        self, hooks: Sequence[Program], slots: dict[str, int]
    ) -> dict[tuple[Program, ...], bytecode.Code]:
        """What belongs behind these gates, for their slot: a program for all kprobes, one for each other."""
        found: dict[tuple[str, int], list[Program]] = {}
        for program in hooks:
            name = self._behind.get(program.function)
            if program.has_gate and name in self._code:
                slot = slots["KPROBE" if "probe" in program.kind else program.function]
                found.setdefault((name, slot), []).append(program)
        return {
            tuple(programs): self._code[name].with_value(slots["HERE"], slot)
            for (name, slot), programs in found.items()
        }

    def _load(
        self, hooks: dict[Program, bytecode.Code], gated: dict[tuple[Program, ...], bytecode.Code]
    ) -> None:
        """Loads ``hooks`` and what goes behind gates, side by side: the kernel checks a program in the thread
        that loads it, message in a twentieth of a second."""
        fds = {name: one.fd for name, one in self.maps.items()}

        def load(
            programs: tuple[Program, ...], instructions: bytecode.Code, into: dict[Program, int]
        ) -> None:
            first = programs[0]
            attach_type = _ATTACH_TYPES.get(first.kind)
            hook = (attach_type, self._btf.function(first.function)) if attach_type else (0, 0)
            fd = bytecode.load(first.name, _bpf_type(first.kind), instructions.linked(fds), hook)
            into.update(dict.fromkeys(programs, fd))

        jobs: list[tuple[tuple[Program, ...], bytecode.Code, dict[Program, int]]] = [
            ((program,), instructions, self._programs) for program, instructions in hooks.items()
        ]
        jobs += [(*one, self._gated) for one in gated.items()]
        # First what some kernels refuse, then what takes long: loops of many steps, and what is long.
        jobs.sort(
            key=lambda job: (
                "func" not in job[0][0].kind,
                job[0][0].function not in _AGAIN,
                -len(job[1].instructions),
            )
        )
        try:
            _side_by_side(load, jobs)
        finally:
            self._open += self._programs.values()
        for program, fd in self._programs.items():
            if program.function in _AGAIN and program.has_gate:
                again = self.maps["again"]
                again[again.Key(0)] = again.Leaf(fd)

    def skipped(self) -> int:
        """Messages and events at most that its hooks missed: their programs ran already on that processor.

        That happens where the kernel may take the processor from a thread while it fills an
        sk_buff.  Others than Unix sockets fill them, too, so that it may be fewer.
        """
        functions = _INTERRUPTIBLE + (_INTERRUPTIBLE_EVENTS if self._events else ())
        return sum(
            bytecode.skipped(fd) for program, fd in self._programs.items() if program.function in functions
        )

    def take_over(self, first: Generation) -> None:
        """Goes behind the gates of ``first``, which made them, and of others."""
        for program, fd in self._gated.items():
            gate = first.maps[f"gate_{program.function}"]
            gate[gate.Key(0)] = gate.Leaf(fd)

    def attach(self) -> None:
        """Attaches the hooks that no earlier generation has.  Raises ProbeError."""
        with errors_told():
            for program in sorted(self._programs, key=self._rank):
                hook = _attached(program, self._programs[program])
                self._hooks[program] = Keeper(hook) if "probe" in program.kind else hook

    def _rank(self, program: Program) -> tuple[bool, bool]:
        """Entries come before returns, so that no return is seen without its entry, and those that tell of
        messages come last: detach, and the kernel at the end of a process that was killed, begin with
        the last, and closing each that is no kprobe took an eighth of a second where it was measured."""
        return self._behind.get(program.function) == "message", "ret" in program.kind

    @property
    def attached(self) -> frozenset[Program]:
        """Programs that are attached."""
        return frozenset(self._hooks)

    def end_listing(self) -> None:
        """Takes out, sooner or later, what is only needed while the reader lists the sockets."""
        for program in [one for one in self._hooks if one.function == _LISTING]:
            hook = self._hooks.pop(program)
            if isinstance(hook, Keeper):
                hook.let_go()

    def silence(self) -> None:
        """Takes out the hooks that tell of messages and events."""
        telling = [one for one in self._hooks if self._behind.get(one.function) in ("message", "event")]
        self._take_out(telling)

    def detach(self) -> None:
        """Takes the hooks out: a confined process can do that, too."""
        self._take_out(list(self._hooks))

    def _take_out(self, programs: Sequence[Program]) -> None:
        """The last first."""
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
        """Lets go of what lies behind the gates, which hold it as long as they need it."""
        for fd in set(self._gated.values()):
            os.close(fd)
        self._gated.clear()


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


def _attached(program: Program, fd: int) -> int:
    """A hook's descriptor: it is there as long as that is open.  Raises ProbeError."""
    import bcc

    lib, function = bcc.lib, program.function.encode()
    if program.kind == "raw_tracepoint":
        hook = lib.bpf_attach_raw_tracepoint(fd, function)
    elif "func" in program.kind:
        hook = lib.bpf_attach_kfunc(fd)
    else:
        hook = lib.bpf_attach_kprobe(fd, int(program.kind == "kretprobe"), _event(program), function, 0, 0)
    if hook < 0:
        raise ProbeError(f"the kernel has no {program.kind} for {program.function}")
    return int(hook)


def _event(program: Program) -> bytes:
    """The name that bcc gives a kprobe's event, where the kernel needs one."""
    return f"{program.kind[:-5]}_{program.function}".encode()


def sources(
    settings: Settings, macros: dict[str, int], way: str, hooks: bool = True
) -> list[tuple[str, list[str]]]:
    """What has to be compiled, each a C text and its flags: first what depends on the filter, then what all
    filters share.  ``macros``: layouts and sizes.  ``hooks``: whether hooks are wanted."""
    macros = macros | _settings_macros(settings)
    files: list[tuple[str, Filter, dict[str, int]]] = [("filter.bpf.c", settings.filter, {})]
    files.append(("records.bpf.c", everything(), macros))
    if hooks:
        shared = {name: value for name, value in macros.items() if name not in _RECORDS_ONLY}
        files.append(("hooks.bpf.c", everything(), shared))
    return [_with_flags(*one, way) for one in files]


def _with_flags(name: str, filter_: Filter, macros: dict[str, int], way: str) -> tuple[str, list[str]]:
    """A file of ours after the filter's functions, and the compiler's flags for it."""
    text = source("kernel/bpf_helpers.h") + filter_.to_c() + source(name)
    flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
    return text, [*flags, *(["-DATTACH_FENTRY"] if way == "fentry" else [])]


def _behind_gates(text: str, events: bool) -> dict[str, str]:
    """By function, the program behind its gate, from the C of all hooks."""
    behind = {match[2]: match[1].lower() for match in _HOOK.finditer(text) if match[1]}
    moment = "event" if events else "news"
    return {function: moment if kind == "moment" else kind for function, kind in behind.items()}


def _bpf_type(kind: str) -> int:
    import bcc

    if kind == "raw_tracepoint":
        return int(bcc.BPF.RAW_TRACEPOINT)
    return int(bcc.BPF.TRACING if "func" in kind else bcc.BPF.KPROBE)


def _settings_macros(settings: Settings) -> dict[str, int]:
    macros = {}
    if settings.events:
        macros["WITH_EVENTS"] = 1
    if settings.include_capture_processes:
        macros["WITH_CAPTURERS"] = 1
    return macros
