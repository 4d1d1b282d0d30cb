"""From C to programs and the maps that they use, through bcc, or from what was compiled before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unixsock_bpf.probe import cache, code, maps
from unixsock_bpf.probe.code import Code
from unixsock_bpf.probe.errors import ProbeError
from unixsock_bpf.probe.maps import Shape

_HERE = Path(__file__).parent

#: Flags that make the compiler faster and the code no worse: bcc optimises by itself after clang, and
#: nobody reads the debugging information.
_CHEAPER = [*("-O1", "-g0", "-Xclang", "-disable-llvm-passes"), "-Wno-unused-function", "-Wno-unused-label"]


@dataclass(frozen=True)
class Compiled:
    """Programs by the names of their C functions, and the maps that they name."""

    programs: dict[str, Code]
    maps: dict[str, Shape]


def source(name: str) -> str:
    """A C file with our own headers in place: bcc translates map calls in the main file only."""
    lines = (_HERE / name).read_text().splitlines(keepends=True)
    return "".join(source(line.split('"')[1]) if line.startswith('#include "') else line for line in lines)


def compiled(text: str, flags: list[str]) -> tuple[Compiled, dict[str, int]]:
    """``text`` compiled, and descriptors of its maps, which the caller has to close, if bcc made them for it.

    What was compiled before comes without maps: see maps.create.
    """
    import bcc

    name = cache.key(bcc.__version__, *flags, *_CHEAPER, text)
    kept = cache.get(name)
    if kept is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return _from_json(kept), {}

    class Unattached(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """bcc would attach by name at once."""

    debug = int(os.environ.get("UNIXSOCK_DEBUG", "0")) & ~1
    bpf = Unattached(text=text.encode(), cflags=[*flags, *_CHEAPER], debug=debug)
    found = Compiled(code.programs(bpf), maps.shapes(bpf))
    fds = {name: os.dup(fd) for name, fd in code.map_fds(bpf).items()}
    bpf.cleanup()
    cache.keep(name, _to_json(found))
    return found, fds


def _to_json(found: Compiled) -> dict[str, Any]:
    return {
        "programs": {name: [one.instructions.hex(), one.maps] for name, one in found.programs.items()},
        "maps": {name: vars(shape) for name, shape in found.maps.items()},
    }


def _from_json(kept: dict[str, Any]) -> Compiled:
    """Raises KeyError, TypeError or ValueError where that is not what ``_to_json`` gave."""
    return Compiled(
        {
            name: Code(bytes.fromhex(instructions), {int(at): to for at, to in names.items()})
            for name, (instructions, names) in kept["programs"].items()
        },
        {name: Shape(**shape) for name, shape in kept["maps"].items()},
    )


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
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
