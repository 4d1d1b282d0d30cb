"""Compiling before the first capture what all filters share."""

from __future__ import annotations

from unixsock_bpf.options import Settings
from unixsock_bpf.probe import hook_programs, kernel
from unixsock_bpf.probe.compiler import compiled, errors_told
from unixsock_bpf.probe.program_set import sources


def compile_ahead() -> None:
    """For the running kernel, and for captures with and without events; it is kept (probe/cache.py).

    Then a capture has no more to compile than its filter.  Raises ProbeError.
    """
    here = kernel.kernel()
    plan = hook_programs.plan(here, "fentry", here.has_sessions)
    with errors_told():
        for events in (False, True):
            compiled(sources(Settings(events=events), here.macros, plan, plan.hooks(events)))
