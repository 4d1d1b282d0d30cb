"""The extcap as on a kernel without the newer functions: with what it hooks instead of them.

``python3 older.py EXTCAP OPTION...``; for ``Live(through=OLDER)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

OLDER = ["/usr/bin/python3", __file__]

#: Functions that some kernels lack.
NEWER = (
    *("security_unix_stream_connect", "security_sock_graft"),
    *("__unix_dgram_recvmsg", "unix_prepare_fpl"),
)

if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1]).resolve().parents[1]))
    from unixsock_bpf.extcap.main import main
    from unixsock_bpf.probe.kernel import Kernel

    has = Kernel.has
    Kernel.has = lambda self, fact: fact not in NEWER and has(self, fact)
    sys.exit(main(sys.argv[2:]))
