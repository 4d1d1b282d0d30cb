"""unixsock where some functions cannot be hooked, or where their hooks see nothing.

``hooks_shim.py missing|blind FUNCTION,... COMMAND...``.  ``missing``: attaching fails as for a function that
the kernel lacks.  ``blind``: it succeeds at another function, as where a compiler has put a copy of the
function into its caller.
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
    from unixsock_bpf.cli.main import main
    from unixsock_bpf.probe import libbpf

    what, functions = sys.argv[1], sys.argv[2].split(",")
    os.environ["UNIXSOCK_ATTACH"] = "kprobe"

    def changed(attach: Callable[..., int]) -> Callable[..., int]:
        def attach_elsewhere(program: int, function: str, *rest: Any) -> int:
            if function in functions:
                if what == "missing":
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                function = "unix_ioctl"
            return attach(program, function, *rest)

        return attach_elsewhere

    for name in ("attach_kprobe", "attach_session", "attach_tracepoint"):
        setattr(libbpf, name, changed(getattr(libbpf, name)))
    sys.exit(main(sys.argv[3:]))
