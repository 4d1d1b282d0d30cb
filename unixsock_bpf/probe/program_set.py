"""The probe's programs and maps: compiled by bcc, loaded and attached.

They are the same for all filters, which are data in two of the maps.  Hooks that only events need are
loaded and attached once a filter asks for events.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter.encode import declarations
from unixsock_bpf.probe import bytecode, maps
from unixsock_bpf.probe.bytecode import Subprogram
from unixsock_bpf.probe.compiler import Compiled, compiled, errors_told, source
from unixsock_bpf.probe.hook_thread import Keeper
from unixsock_bpf.probe.maps import Map, Shape

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.kernel import Kernel

#: A hook in the C, by the function: ON_ENTRY(function, body), EVENT_ON_RETURN(function, body, ...).
_HOOK = re.compile(
    r"^(?:(MESSAGE|EVENT|NEWS)_)?ON_(?:EVERY_|RARE_)?(?:ENTRY|RETURN)\((\w+), \w+", re.MULTILINE
)
#: A hook's working memory, by its function, and that of all kprobes.
_SLOT = re.compile(r"^#define SLOT_(\w+) (\w+)$", re.MULTILINE)
#: What stands for the snapshot length in programs that make records.
_MARK = re.compile(r"^#define (SNAPLEN)_HERE (\w+)$", re.MULTILINE)
#: What programs call of others, and the number of the helper that they take it for: bpf/filter/verdict.h
#: (global to the verifier), bpf/state/subprograms.h.
_CALL = re.compile(r"^#define (CALL|GLOBAL)_(\w+) (\w+)$", re.MULTILINE)
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
#: Functions that are hooked only where events are wanted; the last one always where end_writing needs it.
_EVENTS_ONLY = ("unix_shutdown", "unix_dgram_sendmsg", "unix_stream_sendmsg")


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


class ProgramSet:
    """Programs for ``settings``, loaded but not attached.  Raises ProbeError.

    ``way``: fentry or kprobe.
    """

    def __init__(self, settings: Settings, kernel: Kernel, way: str) -> None:
        self._btf = kernel.btf
        #: The hooks, and their descriptors.
        self._programs: dict[Program, int] = {}
        #: What is attached, and the descriptor or its keeper.
        self._hooks: dict[Program, int | Keeper] = {}
        #: Descriptors of maps and programs.
        self._open: list[int] = []
        text = source("hooks.bpf.c")
        self._slots = {match[1]: int(match[2], 0) for match in _SLOT.finditer(text)}
        #: Functions whose hooks have a gate, and the name of what belongs behind it.
        self._behind = {match[2]: match[1].lower() for match in _HOOK.finditer(text) if match[1]}
        self._events_only = _EVENTS_ONLY[: 2 if "UNIX_SOCK_INQ_LEN" in kernel.macros else 3]
        self._events = False
        #: Descriptors of what is behind gates; some share one.
        self._gated: dict[Program, int] = {}
        try:
            with errors_told():
                found = compiled(sources(kernel.macros, way))
                self._code = {name: program for part in found for name, program in part.programs.items()}
                self._complete(settings, text)
                self.maps = self._take_maps(found, settings.buffer_mib)
                self._load_hooks([one for one in self._all_hooks() if one.function not in self._events_only])
                if settings.events:
                    self.load_events()
        except ProbeError:
            self.close()
            raise

    def load_events(self) -> None:
        """Loads the hooks that only events need, once; ``attach`` attaches them.  Raises ProbeError."""
        if not self._events:
            with errors_told():
                self._load_hooks([one for one in self._all_hooks() if one.function in self._events_only])
            self._events = True

    def _complete(self, settings: Settings, text: str) -> None:
        """Puts into the programs what they are compiled without.  ``text``: the C of all hooks."""
        marks = {name: int(value, 0) for name, value in _MARK.findall(text)}
        called = {
            int(value, 0): Subprogram(name, self._code[name], kind == "GLOBAL")
            for kind, name, value in _CALL.findall(source("records.bpf.c"))
        }
        for name in ("message", "event", "news"):
            self._code[name] = self._code[name].calling(called)
        self._code["message"] = self._code["message"].with_value(
            marks["SNAPLEN"], settings.snaplen or 0x7FFFFFFF
        )

    def _take_maps(self, parts: Sequence[Compiled], buffer_mib: int) -> dict[str, Map]:
        """The maps by name."""
        on_demand = self._btf.has_function("bpf_mem_alloc_init")
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
        return found

    def _load_hooks(self, hooks: list[Program]) -> None:
        """Loads ``hooks`` and what belongs behind their gates, and puts that there."""
        self._load({one: self._code[one.name] for one in hooks}, self._behind_gates_of(hooks))
        for program, fd in self._gated.items():
            gate = self.maps[f"gate_{program.function}"]
            gate[gate.Key(0)] = gate.Leaf(fd)
        for fd in set(self._gated.values()):  # the gates hold them
            os.close(fd)
        self._gated.clear()

    def _all_hooks(self) -> Iterable[Program]:
        for name in self._code:
            if match := _PROGRAM.fullmatch(name):
                alone = match[1] != "kprobe" or f"kretprobe__{match[2]}" not in self._code
                yield Program(name, match[1], match[2], alone)

    def _behind_gates_of(self, hooks: Sequence[Program]) -> dict[tuple[Program, ...], bytecode.Code]:
        """What belongs behind these gates, for their slot: a program for all kprobes, one for each other."""
        found: dict[tuple[str, int], list[Program]] = {}
        for program in hooks:
            name = self._behind.get(program.function)
            if program.has_gate and name in self._code:
                slot = self._slots["KPROBE" if "probe" in program.kind else program.function]
                found.setdefault((name, slot), []).append(program)
        return {
            tuple(programs): self._code[name].with_value(self._slots["HERE"], slot)
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
            fd = bytecode.load(first.name, _bpf_type(first.kind), instructions, fds, hook)
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
            self._open += [self._programs[one] for one in hooks if one in self._programs]
        for program, fd in self._programs.items():
            if program in hooks and program.function in _AGAIN and program.has_gate:
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

    def attach(self) -> None:
        """Attaches the hooks that are loaded and not attached.  Raises ProbeError."""
        with errors_told():
            for program in sorted(self._programs.keys() - self._hooks.keys(), key=self._rank):
                hook = _attached(program, self._programs[program])
                self._hooks[program] = Keeper(hook) if "probe" in program.kind else hook

    def _rank(self, program: Program) -> tuple[bool, bool]:
        """Entries come before returns, so that no return is seen without its entry, and those that tell of
        messages come last: detach, and the kernel at the end of a process that was killed, begin with
        the last, and closing each that is no kprobe took an eighth of a second where it was measured."""
        return self._behind.get(program.function) == "message", "ret" in program.kind

    def end_listing(self) -> None:
        """Takes out, sooner or later, what is only needed while the reader lists the sockets."""
        for program in [one for one in self._hooks if one.function == _LISTING]:
            hook = self._hooks.pop(program)
            del self._programs[program]
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
        """Frees it."""
        while self._open:
            os.close(self._open.pop())


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


def sources(macros: dict[str, int], way: str) -> list[tuple[str, list[str]]]:
    """What has to be compiled, each a C text and its flags.  ``macros``: layouts and sizes."""
    flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
    flags += ["-DATTACH_FENTRY"] if way == "fentry" else []
    head = source("kernel/bpf_helpers.h") + declarations()
    return [(head + source(name), flags) for name in ("records.bpf.c", "hooks.bpf.c")]


def _bpf_type(kind: str) -> int:
    import bcc

    if kind == "raw_tracepoint":
        return int(bcc.BPF.RAW_TRACEPOINT)
    return int(bcc.BPF.TRACING if "func" in kind else bcc.BPF.KPROBE)
