"""Compiling before the first capture."""

from __future__ import annotations

from unixsock_bpf.probe import hook_programs, kernel
from unixsock_bpf.probe.compiler import compiled, errors_told
from unixsock_bpf.probe.program_set import sources


def compile_ahead() -> None:
    """Compile for the running kernel, into the cache; captures compile nothing then.  Raises ProbeError."""
    here = kernel.kernel()
    plan = hook_programs.plan(here, "fentry", here.has_sessions)
    with errors_told():
        compiled(sources(here.macros, plan))
