"""python tests/wireshark/real [NAME…]: capture real programs in a guest, into .cache/real/all.pcapng.

The user land .cache/roots/real with the programs is made on first use (some minutes, 2 GB).
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from vm import guest, kernels  # noqa: E402
from vm.__main__ import show  # noqa: E402

kernel = kernels.fetched("bookworm") or kernels.fetch("bookworm")
command = "sh tests/wireshark/real/record.sh " + shlex.join(sys.argv[1:])
with guest.boot(kernel, command, root=ROOT / ".cache/roots/real") as running:
    show(running, 1500)
    sys.exit(running.wait(1))
