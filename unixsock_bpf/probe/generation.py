"""The probe's programs for one filter: compiled, loaded and attached through bcc.

The first generation makes the maps and is attached.  A later one, for another filter,
shares the maps and takes over through the gates that hooks.h tells of.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unixsock_bpf.probe import cache, code
from unixsock_bpf.probe.errors import ProbeError

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.code import Code

_HERE = Path(__file__).parent

#: A hook in the C, by the function: ON_ENTRY(function, body), EVENT_ON_RETURN(function, body, ...).
_HOOK = re.compile(
    r"^(?:(MESSAGE|EVENT|NEWS|MOMENT)_)?ON_(?:EVERY_)?(?:ENTRY|RETURN)\((\w+), \w+", re.MULTILINE
)
#: A hook's working memory.
_SLOT = re.compile(r"^#define SLOT_(\w+) (\w+)$", re.MULTILINE)
#: A map that generations share.
_SHARED = re.compile(r"^EXPORT\((\w+)\);", re.MULTILINE)
#: Flags that make the compiler faster and the code no worse: bcc optimises by itself after clang, and
#: nobody reads the debugging information.
_CHEAPER = [*("-O1", "-g0", "-Xclang", "-disable-llvm-passes"), "-Wno-unused-function", "-Wno-unused-label"]
#: A program's name, as bcc wants it.
_PROGRAM = re.compile(r"(kfunc|kretfunc|kprobe|kretprobe|raw_tracepoint)__(?:vmlinux__)?(\w+)")
#: Functions that tell of messages and that a thread may lose its processor in.
_INTERRUPTIBLE = ("skb_copy_datagram_from_iter", "skb_splice_from_iter")
#: The function whose program runs itself again: AGAIN_ON_RETURN in hooks.h.
_AGAIN = "__scm_send"


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


def _source(name: str) -> str:
    """A C file with our own headers in place: bcc translates map calls in the main file only."""
    lines = (_HERE / name).read_text().splitlines(keepends=True)
    return "".join(_source(line.split('"')[1]) if line.startswith('#include "') else line for line in lines)


@contextlib.contextmanager
def _stderr_kept() -> Iterator[list[str]]:
    """Keeps what libbcc and libbpf write to stderr, which Wireshark would show as an error.

    LLVM ends the whole process when it gives up; a child that waits for that says why.
    """
    said: list[str] = []
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        alive, done = os.pipe()
        watcher = os.fork()
        if watcher == 0:
            os.close(done)
            finished = os.read(alive, 1)
            kept.seek(0)
            if not finished and (reason := kept.read().decode(errors="replace").strip()):
                os.write(saved, f"The capture filter can't be compiled: {reason[-300:]}\n".encode())
            os._exit(0)
        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.write(done, b"k")
            os.close(done)
            os.close(alive)
            os.waitpid(watcher, 0)
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            said.append(kept.read().decode(errors="replace"))


class Generation:
    """Programs for ``settings``, loaded but not attached.  Raises ProbeError.

    ``macros``: layouts and sizes.  ``way``: fentry or kprobe.  ``number``: from 1 on.  ``attached``:
    programs of earlier generations.  ``suffix``: of the names of shared maps.
    """

    def __init__(
        self,
        settings: Settings,
        macros: dict[str, int],
        way: str,
        number: int,
        attached: frozenset[Program],
        suffix: str,
    ) -> None:
        self.number = number
        #: Programs that are attached.
        self.attached: set[Program] = set()
        self._suffix = suffix
        text = _source("probe.c")
        slots = {match[1]: int(match[2], 0) for match in _SLOT.finditer(text)}
        hooks = [(match[1], match[2]) for match in _HOOK.finditer(text)]
        #: Functions whose hooks have a gate, and the name of what belongs behind it.
        self._behind = _behind_gates(hooks, settings.events)
        there = {program.function for program in attached}
        macros = macros | _settings_macros(settings) | {"GENERATION": number}
        flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
        functions = [function for _, function in hooks]
        flags += [f"-DHOOK_{name}={'static' if name in there else ''}" for name in functions]
        flags += _CHEAPER
        if way == "fentry":
            flags.append("-DATTACH_FENTRY")
        text = _renamed("#include <linux/types.h>\n" + settings.filter.to_c() + text, suffix)
        with _errors_told():
            self._bpf, self._code = _compiled(text, flags, functions)
            self._maps = code.map_fds(self._bpf)
            self._programs = self._load()
            self._gated = {
                program.function: self._behind_gate(program, slots)
                for program in {**dict.fromkeys(attached), **self._programs}
                if program.has_gate and self._behind.get(program.function) in self._code
            }
        if settings.filter.tables:
            table = self._bpf["filter_tables"]
            table[0] = table.Leaf.from_buffer_copy(
                settings.filter.tables.ljust(ctypes.sizeof(table.Leaf), b"\0")
            )

    def _load(self) -> dict[Program, int]:
        """The hooks that no earlier generation has, and their descriptors."""
        import bcc

        loaded = {}
        for name, compiled in self._code.items():
            match = _PROGRAM.fullmatch(name)
            if not match:
                continue
            alone = match[1] != "kprobe" or f"kretprobe__{match[2]}" not in self._code
            program = Program(name, match[1], match[2], alone)
            fd = code.load(self._bpf, name, _bpf_type(program.kind), compiled.linked(self._maps))
            self._bpf.funcs[name.encode()] = bcc.BPF.Function(self._bpf, name.encode(), fd)
            loaded[program] = fd
            if program.function == _AGAIN and program.has_gate:
                again = self._bpf["again"]
                again[again.Key(0)] = again.Leaf(fd)
        return loaded

    def _behind_gate(self, program: Program, slots: dict[str, int]) -> int:
        """What belongs behind the gate of ``program``, for its slot, as a program on the same function."""
        compiled = self._code[self._behind[program.function]]
        for_slot = compiled.with_value(slots["HERE"], slots[program.function])
        return code.load(self._bpf, program.name, _bpf_type(program.kind), for_slot.linked(self._maps))

    def skipped(self) -> int:
        """Messages at most that its hooks missed: their programs ran already on that processor.

        That happens where the kernel may take the processor from a thread while it fills an
        sk_buff.  Others than Unix sockets fill them, too, so that it may be fewer.
        """
        return sum(
            code.skipped(fd) for program, fd in self._programs.items() if program.function in _INTERRUPTIBLE
        )

    def take_over(self, first: Generation) -> None:
        """Goes behind the gates of ``first``, which made them, and of others."""
        for function, program in self._gated.items():
            gate = first.table(f"gate_{function}")
            gate[gate.Key(0)] = gate.Leaf(program)

    def attach(self) -> None:
        """Attaches the hooks that no earlier generation has.  Raises ProbeError."""
        with _errors_told():
            # Entries first, so that no return is seen without its entry.
            for program in sorted(self._programs, key=lambda program: "ret" in program.kind):
                name = program.name.encode()
                if program.kind == "kfunc":
                    self._bpf.attach_kfunc(fn_name=name)
                elif program.kind == "kretfunc":
                    self._bpf.attach_kretfunc(fn_name=name)
                elif program.kind == "kprobe":
                    self._bpf.attach_kprobe(event=program.function, fn_name=name)
                elif program.kind == "raw_tracepoint":
                    self._bpf.attach_raw_tracepoint(tp=program.function.encode(), fn_name=name)
                else:
                    self._bpf.attach_kretprobe(event=program.function, fn_name=name)
                self.attached.add(program)

    def detach(self) -> None:
        """Takes the hooks out."""
        for name in list(self._bpf.kfunc_entry_fds):
            self._bpf.detach_kfunc(name)
        for name in list(self._bpf.kfunc_exit_fds):
            self._bpf.detach_kretfunc(name)
        for event in list(self._bpf.kprobe_fds):
            self._bpf.detach_kprobe_event(event)
        for tracepoint in list(self._bpf.raw_tracepoint_fds):
            self._bpf.detach_raw_tracepoint(tracepoint)

    def close(self) -> None:
        """Frees it, once another generation took over from it."""
        self.close_gated()
        self._bpf.cleanup()

    def close_gated(self) -> None:
        """Lets go of what lies behind the gates, which hold it as long as they need it."""
        for program in self._gated.values():
            os.close(program)
        self._gated.clear()

    def table(self, name: str) -> Any:
        """A shared map."""
        return self._bpf[_renamed(name, self._suffix)]


def _behind_gates(hooks: list[tuple[str | None, str]], events: bool) -> dict[str, str]:
    """By function, the program behind its gate.  ``hooks``: what a hook tells of, and its function."""
    behind = {function: kind.lower() for kind, function in hooks if kind}
    if not events:  # where a function has a hook without a gate too, that one is compiled
        behind = {function: kind for function, kind in behind.items() if (None, function) not in hooks}
    moment = "event" if events else "news"
    return {function: moment if kind == "moment" else kind for function, kind in behind.items()}


def _bpf_type(kind: str) -> int:
    import bcc

    if kind == "raw_tracepoint":
        return int(bcc.BPF.RAW_TRACEPOINT)
    return int(bcc.BPF.TRACING if "func" in kind else bcc.BPF.KPROBE)


def _settings_macros(settings: Settings) -> dict[str, int]:
    pages = settings.buffer_mib * 2**20 // mmap.PAGESIZE
    macros = {
        "RING_PAGES": max(1, 1 << (pages - 1).bit_length()),
        "SNAPLEN": settings.snaplen or 0x7FFFFFFF,
    }
    if settings.events:
        macros["WITH_EVENTS"] = 1
    if settings.include_capture_processes:
        macros["WITH_CAPTURERS"] = 1
    return macros


def _renamed(text: str, suffix: str) -> str:
    """``text`` with ``suffix`` after the names of shared maps."""
    if not suffix:
        return text
    names = "|".join(_SHARED.findall(_source("probe.c")))
    return re.sub(rf"\b({names})(_table_t)?\b", rf"\1_{suffix}\2", text).replace("gate_", f"gate{suffix}_")


def _compiled(text: str, flags: list[str], functions: list[str]) -> tuple[Any, dict[str, Code]]:
    """The maps of ``text``, as a bcc module, and its programs, compiled now or earlier."""
    import bcc

    name = cache.key(bcc.__version__, *flags, text)
    programs = cache.get(name)
    if programs is None:
        bpf = _module(text, [*flags, "-DPROGRAM="])
        programs = code.programs(bpf)
        cache.keep(name, programs)
        return bpf, programs
    # Functions that nobody can call cost next to nothing.
    flags = [flag for flag in flags if not flag.startswith("-DHOOK_")]
    return _module(
        text, [*flags, "-DPROGRAM=static", *(f"-DHOOK_{name}=static" for name in functions)]
    ), programs


def _module(text: str, flags: list[str]) -> Any:
    """``text`` compiled.  bcc would attach by name at once."""
    import bcc

    class Unattached(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            pass

    return Unattached(text=text.encode(), cflags=flags, debug=int(os.environ.get("UNIXSOCK_DEBUG", "0")) & ~1)


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    """What bcc raises, and what it writes to stderr, as ProbeError."""
    failure = ""
    with _stderr_kept() as said:
        try:
            yield
        except Exception as error:
            failure = str(error)
    if os.environ.get("UNIXSOCK_DEBUG"):
        os.write(2, said[0].encode())
    if failure:
        detail = [line for line in said[0].splitlines() if line.strip()]
        raise ProbeError(f"{failure} ({detail[-1].strip()[:200]})" if detail else failure)
