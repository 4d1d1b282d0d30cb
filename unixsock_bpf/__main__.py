"""``python3 -m unixsock_bpf``: the ``unixsock`` command, from a checkout too."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
