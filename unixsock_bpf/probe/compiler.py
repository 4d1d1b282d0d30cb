"""Compile C to programs and the maps that they use, through bcc, or take them from the cache."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.probe import bytecode, cache, maps
from unixsock_bpf.probe.bytecode import Bytecode
from unixsock_bpf.probe.compiler_process import CompilerProcess, with_last_line
from unixsock_bpf.probe.maps import Shape

_BPF = Path(__file__).parents[1] / "bpf"

#: Flags that make the compiler faster and the code no worse: bcc optimises by itself after clang, and
#: the debugging information is not used.
_CHEAPER = ["-O1", "-g0", "-Xclang", "-disable-llvm-passes"]
_WARNINGS = ["-Wno-unused-function", "-Wno-unused-label", "-Werror=implicit-function-declaration"]
#: Make bcc's own bpf.h and helpers.h empty: see kernel/bpf_helpers.h.
_NOT_READ = ["-D_UAPI__LINUX_BPF_H__", "-D__BPF_HELPERS_H"]
FLAGS = [*_CHEAPER, *_WARNINGS, *_NOT_READ]


@dataclass(frozen=True)
class Compiled:
    """Programs by the names of their C functions, and the maps that they name."""

    programs: dict[str, Bytecode]
    maps: dict[str, Shape]


@functools.cache
def source(name: str) -> str:
    """Return a C file with our own headers in place: bcc translates map calls in the main file only.

    Read once: a capture goes on with the C that it began with.
    """
    lines = (_BPF / name).read_text().splitlines(keepends=True)
    return "".join(source(line.split('"')[1]) if line.startswith('#include "') else line for line in lines)


def compiled(sources: Sequence[tuple[str, list[str]]]) -> list[Compiled]:
    """Compile ``sources``, each a C text and its flags, in parallel.  Raises ProbeError."""
    import bcc

    names = [cache.key(bcc.__version__, *flags, *FLAGS, text) for text, flags in sources]
    found = [_kept(name) for name in names]
    with contextlib.ExitStack() as stack:
        #: All of them begin before the first one is waited for.
        jobs = [
            None if kept else stack.enter_context(CompilerProcess(functools.partial(_compiled_now, *one)))
            for kept, one in zip(found, sources)
        ]
        for at, job in enumerate(jobs):
            if job:
                made = job.result()
                found[at] = _from_json(made)
                cache.keep(names[at], made)
    return [one for one in found if one]


def _compiled_now(text: str, flags: list[str]) -> dict[str, Any]:
    """Compile now; return programs and maps as ``_to_json`` has them."""
    import bcc

    class Unattached(bcc.BPF):
        def _trace_autoload(self) -> None:
            """Attach nothing: bcc would attach by name at once."""

    debug = int(os.environ.get("UNIXSOCK_DEBUG", "0")) & ~1
    bpf = Unattached(text=text.encode(), cflags=[*flags, *FLAGS], debug=debug)
    return _to_json(Compiled(bytecode.programs(bpf), maps.shapes(bpf)))


def _kept(name: str) -> Compiled | None:
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return _from_json(cache.get(name) or {})
    return None


def _to_json(found: Compiled) -> dict[str, Any]:
    return {
        "programs": {name: [one.instructions.hex(), one.maps] for name, one in found.programs.items()},
        "maps": {name: vars(shape) for name, shape in found.maps.items()},
    }


def _from_json(kept: dict[str, Any]) -> Compiled:
    """Decode what ``_to_json`` gave.  Raises KeyError, TypeError or ValueError for anything else."""
    return Compiled(
        {
            name: Bytecode(bytes.fromhex(instructions), {int(at): to for at, to in names.items()})
            for name, (instructions, names) in kept["programs"].items()
        },
        {name: Shape(**shape) for name, shape in kept["maps"].items()},
    )


@contextlib.contextmanager
def bcc_errors() -> Iterator[None]:
    """Turn what bcc raises, and what it writes to stderr, into ProbeError."""
    failure = ""
    with _stderr_kept() as output:
        try:
            yield
        except Exception as error:
            failure = str(error)
    if os.environ.get("UNIXSOCK_DEBUG"):
        os.write(2, output[0].encode())
    if failure:
        raise ProbeError(with_last_line(failure, output[0]))


@contextlib.contextmanager
def _stderr_kept() -> Iterator[list[str]]:
    """Capture what libbcc and libbpf write to stderr, which Wireshark would show as an error."""
    output: list[str] = []
    with open(os.memfd_create("stderr"), "w+b") as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield output
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            output.append(kept.read().decode(errors="replace"))
