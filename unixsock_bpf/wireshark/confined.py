"""Root's tshark: a process of user nobody that can write no file.

Wireshark's dissectors work on bytes that every local process can choose, and the Lua may be another
user's, so that neither is run with a right of root's.  tshark.py starts this module as root; it gives
everything up, and becomes tshark.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from unixsock_bpf.linux import sandbox

#: Where the confined process finds the dissector: user nobody may not be able to read its own folder.
_FOLDER = Path("/dev/shm")


def main() -> int:
    """Arguments: the dissector's main file, tshark, and tshark's arguments.  Return if that fails."""
    source, tshark, *arguments = sys.argv[1:]
    main_file = Path(source)
    try:
        files = {
            str(path.relative_to(main_file.parent)): path.read_bytes()
            for path in [main_file, *(main_file.parent / "unixsock").rglob("*.lua")]
        }
        if sandbox.freeze_files(_FOLDER, files):
            main_file = _FOLDER / main_file.name
        # Where a container forbids that, a file can still be made by this, but nothing written to it.
        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(limit, (0, 0))
        sandbox.give_up_privileges(sandbox.NOBODY)
        main_file.open("rb").close()
        os.execv(tshark, [tshark, "-n", "-X", f"lua_script:{main_file}", *arguments])
    except sandbox.SandboxError as error:
        said = error.strerror or str(error)
    except OSError as error:
        said = (
            f"{error.filename} cannot be used by tshark, which runs as nobody for root "
            f"({(error.strerror or '').lower()}): run 'unixsock install --system'"
        )
    os.write(2, f"{said}\n".encode(errors="replace"))
    return 1
