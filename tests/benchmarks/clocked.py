"""The extcap with a clock at each call into libbcc.

It imports nothing that the extcap itself does not: that would be measured, too.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: Commands of bpf(2), which is called as the C library's ``syscall``: BPF_PROG_LOAD.
COMMANDS = {5: "load"}
#: Functions of libbcc, and the part of a start that they are.
PARTS = {
    "bpf_module_create_c_from_string": "compile",
    "syscall": "",
    "bpf_attach_kfunc": "attach",
    "bpf_attach_kprobe": "attach",
}


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Timed:
    """A function of a C library that notes when it was called; all else goes to the real one."""

    def __init__(self, function: Any, part: str, file: str) -> None:
        self.__dict__.update(_function=function, _part=part, _file=file)

    def __call__(self, *arguments: Any) -> Any:
        begin = now()
        part = self._part or COMMANDS.get(getattr(arguments[1], "value", -1))
        try:
            return self._function(*arguments)
        finally:
            if part:
                self._note(part, begin)

    def _note(self, part: str, begin: float) -> None:
        with open(self._file, "a") as file:
            file.write(f"{part} {begin} {now()}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)


def _clocked(file: str) -> type[ctypes.CDLL]:
    """ctypes.CDLL with ``_Timed`` functions."""

    class Clocked(ctypes.CDLL):
        def __getitem__(self, name: Any) -> Any:
            function = super().__getitem__(name)
            return _Timed(function, PARTS[name], file) if name in PARTS else function

    return Clocked


def main(file: str, *arguments: str) -> int:
    """The extcap, timed."""
    with open(file, "a") as notes:
        notes.write(f"python {now()} {now()}\n")
    os.chmod(file, 0o666)  # compilers are nobody
    ctypes.CDLL = _clocked(file)  # type: ignore[misc]
    sys.path.insert(0, CHECKOUT)
    if os.environ.get("BENCH_IGNORE_REFUSAL"):
        from unixsock_bpf.probe import kernel

        kernel.tracing_refused = lambda: None
    from unixsock_bpf.extcap import main

    return main.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
