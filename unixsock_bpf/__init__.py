"""Unix sockets in Wireshark: capture AF_UNIX traffic with BPF and read it back.

Importing this package is cheap: bcc and pyshark are imported only
where a capture, a socket listing or a reader needs them.
"""

import sys

# Everything else would fail with a syntax error, or worse, later.
if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit("unixsock: Python 3.9 or later is needed; this is {}.{}".format(*sys.version_info))

__version__ = "0.1.0"

#: What the package offers, from ``api``, which is imported when it is first asked for.
_API = ("End", "Message", "Messages", "MessagesError", "live", "read")


def __getattr__(name: str) -> object:
    if name in _API:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
