"""How long a test waits on the machine that it runs on, which may be emulated or do other work as well."""

from __future__ import annotations

import subprocess
import sys
import time

#: Seconds that a bare interpreter takes to start on an idle machine.
_BARE_START_S = 0.02


def soon(seconds: float) -> float:
    """Scale ``seconds``, which an idle machine needs, to what this one needs at this moment.

    A bare interpreter is started beside it three times: the slowest start says how slow the machine is.
    """
    slowest = 0.0
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        slowest = max(slowest, time.monotonic() - began)
    return seconds * max(1.0, slowest / _BARE_START_S)
