"""``python3 -m unixsock_bpf``: the ``unixsock`` command, from a checkout too."""

# Of what is in the interpreter itself: to import signal takes milliseconds.
import _signal  # type: ignore[import-not-found]

if __name__ == "__main__":  # no traceback for Ctrl-C while importing
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import sys

from unixsock_bpf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
