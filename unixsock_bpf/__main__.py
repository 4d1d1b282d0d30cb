"""``python3 -m unixsock_bpf``: the ``unixsock`` command, from a checkout too."""

import signal
import sys

if __name__ == "__main__":  # no traceback for Ctrl-C while importing
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .command import main

if __name__ == "__main__":
    sys.exit(main())
