"""Memory barriers for memory that the kernel reads and writes at the same time.

x86-64 keeps the order of a processor's loads, and of its stores after them; arm64 does neither.  Python has
no barrier of its own, but membarrier(2) has one for the thread that calls it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux import libc

#: The number of membarrier(2) where it is needed; a confined process may not ask for the machine's name.
_MEMBARRIER = {"aarch64": 283}.get(os.uname().machine)
#: MEMBARRIER_CMD_GLOBAL_EXPEDITED: a barrier here, and in processes that have registered for it.
_GLOBAL_EXPEDITED = 2


def needed_barrier() -> Callable[[], None] | None:
    """Return what keeps all memory accesses before a call of it before those after it.

    None where the processor keeps that order by itself.  Raises ProbeError on a kernel without.
    """
    if _MEMBARRIER is None:
        return None
    try:
        _barrier()
    except OSError as error:
        raise ProbeError(
            f"This kernel has no membarrier(2) ({error.strerror}), which captures need on arm64: use one "
            "built with CONFIG_MEMBARRIER."
        ) from None
    return _barrier


def _barrier() -> None:
    libc.call("syscall", _MEMBARRIER, _GLOBAL_EXPEDITED, 0, 0)
