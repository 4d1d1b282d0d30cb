"""python tests/dissector/real [NAME…]: capture real programs in a guest, into .cache/real/all.pcapng.

The user land .cache/roots/real with the programs is made on first use (some minutes, 2 GB).
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from vm import guest, kernels  # noqa: E402
from vm.__main__ import show  # noqa: E402
from vm.debian import run, source  # noqa: E402

USER_LAND = ROOT / ".cache/roots/real"

kernel = kernels.fetched("bookworm") or kernels.fetch("bookworm")
if not USER_LAND.exists():
    packages = Path(__file__).with_name("debian-packages").read_text().split()
    making = USER_LAND.with_name("real.part")
    sandbox = '--aptopt=APT::Sandbox::User "root"'
    run("mmdebstrap", "--variant=minbase", sandbox, f"--include={','.join(packages)}", "bookworm", making,
        source("bookworm"))  # fmt: skip
    shutil.copytree(kernel.modules, making / "usr/lib/modules" / kernel.release)
    making.rename(USER_LAND)
command = "sh tests/dissector/real/record.sh " + shlex.join(sys.argv[1:])
with guest.boot(kernel, command, root=USER_LAND) as running:
    show(running, 1500)
    sys.exit(running.wait(1))
