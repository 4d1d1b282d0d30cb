"""unixsock where some functions cannot be hooked, or where their hooks see nothing.

``hooks_shim.py missing|blind|sessionless FUNCTION,... COMMAND...``.  ``missing``: attaching fails as for a
function that the kernel lacks.  ``blind``: it succeeds at another function, as where a compiler has put a
copy into the caller.  ``sessionless``: the kernel has no kprobe.session links.  COMMAND may begin
with the extcap's path.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from unixsock_bpf.probe import bpf_syscall
    from unixsock_bpf.probe.kernel import Kernel

    what, functions, command = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]

    def changed(attach: Callable[..., int]) -> Callable[..., int]:
        def attach_elsewhere(program: int, function: str, *rest: Any) -> int:
            if function in functions:
                if what == "missing":
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                function = "unix_ioctl"
            return attach(program, function, *rest)

        return attach_elsewhere

    if what == "sessionless":
        Kernel.has_sessions = property(lambda self: False)
    else:
        os.environ["UNIXSOCK_ATTACH"] = "kprobe"
        for name in ("attach_kprobe", "attach_session", "attach_tracepoint"):
            setattr(bpf_syscall, name, changed(getattr(bpf_syscall, name)))
    if command[0].endswith("/unixsock"):
        from unixsock_bpf.extcap.main import main

        command = command[1:]
    else:
        from unixsock_bpf.cli.main import main
    sys.exit(main(command))
