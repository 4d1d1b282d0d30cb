"""Running a module of this package in a Python process of its own."""

from __future__ import annotations

import os
import sys

from unixsock_bpf.own_files import ROOT


def command(module: str, *arguments: str) -> list[str]:
    """Return arguments that run ``main`` of ``module``, whose result is the exit status.

    The process imports this package from where this one did, and all else from the folders where this one
    may import from; neither the current directory nor a PYTHON* variable adds any.
    """
    path = [str(ROOT), *(folder for folder in sys.path if os.path.isabs(folder))]
    code = f"import sys; sys.path[:] = {path!r}; from {module} import main; sys.exit(main())"
    flags = "-BI" if os.geteuid() == 0 else "-I"
    return [sys.executable, flags, "-c", code, *arguments]
