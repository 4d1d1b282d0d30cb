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

from unixsock_bpf.probe.errors import ProbeError

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings

_HERE = Path(__file__).parent

#: A hook in the C: ON_ENTRY(function, body), ALWAYS_ON_RETURN(function, body, count).
_HOOK = re.compile(r"^(ALWAYS_)?ON_(?:ENTRY|RETURN)\((\w+), \w+", re.MULTILINE)
#: A map that generations share.
_SHARED = re.compile(r"^EXPORT\((\w+)\);", re.MULTILINE)
#: A program's name, as bcc wants it.
_PROGRAM = re.compile(r"(kfunc|kretfunc|kprobe|kretprobe|raw_tracepoint)__(?:vmlinux__)?(\w+)")
#: The function whose program runs itself again: AGAIN_ON_RETURN in hooks.h.
_AGAIN = "__scm_send"


@dataclass(frozen=True)
class Program:
    """One program: its name, its kind and what it hooks.

    Kinds are kfunc, kretfunc, kprobe, kretprobe and raw_tracepoint.
    """

    name: bytes
    kind: str
    function: str


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
    hooks of earlier generations.  ``suffix``: of the names of shared maps.
    """

    def __init__(
        self,
        settings: Settings,
        macros: dict[str, int],
        way: str,
        number: int,
        attached: frozenset[str],
        suffix: str,
    ) -> None:
        self.number = number
        #: Functions that this generation is attached to.
        self.attached: set[str] = set()
        self._before = attached
        self._suffix = suffix
        text = _source("probe.c")
        hooks = {match[2]: bool(match[1]) for match in _HOOK.finditer(text)}
        self._gated = {function for function, always in hooks.items() if not always}
        macros = (
            macros
            | _settings_macros(settings)
            | {f"ASKS_{function}": int(function not in attached) for function in self._gated}
            | {"GENERATION": number}
        )
        flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
        flags += ["-Wno-unused-function", "-Wno-unused-label"]
        if way == "fentry":
            flags.append("-DATTACH_FENTRY")
        text = _renamed("#include <linux/types.h>\n" + settings.filter.to_c() + text, suffix)
        with _errors_told():
            self._bpf = _module(text, flags)
            self._programs = self._load()
        if settings.filter.tables:
            table = self._bpf["filter_tables"]
            table[0] = table.Leaf.from_buffer_copy(
                settings.filter.tables.ljust(ctypes.sizeof(table.Leaf), b"\0")
            )

    def _load(self) -> dict[Program, Any]:
        """Programs that will be needed, and bcc's functions for them."""
        loaded = {}
        for name in self._names:
            match = _PROGRAM.fullmatch(name.decode())
            if not match:
                continue
            program = Program(name, match[1], match[2])
            if program.function in self._before and not self._goes_into_gate(program):
                continue
            loaded[program] = self._bpf.load_func(name, _bpf_type(program.kind))
            if program.function == _AGAIN and program.kind != "kprobe":
                again = self._bpf["again"]
                again[again.Key(0)] = again.Leaf(loaded[program].fd)
        return loaded

    def _goes_into_gate(self, program: Program) -> bool:
        """Whether an attached program of an earlier generation passes on to this one."""
        if program.function not in self._before or program.function not in self._gated:
            return False
        # The entry probe of a kretprobe only keeps arguments, and needs no successor.
        alone = b"kretprobe__" + program.function.encode() not in self._names
        return program.kind != "kprobe" or alone

    @property
    def _names(self) -> list[bytes]:
        """The programs that were compiled, in the order of the C."""
        import bcc

        count = bcc.lib.bpf_num_functions(self._bpf.module)
        return [bcc.lib.bpf_function_name(self._bpf.module, at) for at in range(count)]

    def take_over(self, first: Generation) -> None:
        """Goes into the gates that ``first`` and others left for it."""
        for program, function in self._programs.items():
            if self._goes_into_gate(program):
                gate = first.table(f"gate_{program.function}")
                gate[gate.Key(0)] = gate.Leaf(function.fd)

    def attach(self) -> None:
        """Attaches what no earlier generation is attached to.  Raises ProbeError."""
        with _errors_told():
            # Entries first, so that no return is seen without its entry.
            for program in sorted(self._programs, key=lambda program: "ret" in program.kind):
                if program.function in self._before:
                    continue
                if program.kind == "kfunc":
                    self._bpf.attach_kfunc(fn_name=program.name)
                elif program.kind == "kretfunc":
                    self._bpf.attach_kretfunc(fn_name=program.name)
                elif program.kind == "kprobe":
                    self._bpf.attach_kprobe(event=program.function, fn_name=program.name)
                elif program.kind == "raw_tracepoint":
                    self._bpf.attach_raw_tracepoint(tp=program.function.encode(), fn_name=program.name)
                else:
                    self._bpf.attach_kretprobe(event=program.function, fn_name=program.name)
                self.attached.add(program.function)

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
        self._bpf.cleanup()

    def table(self, name: str) -> Any:
        """A shared map."""
        return self._bpf[_renamed(name, self._suffix)]


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
