"""Unix sockets in Wireshark: capture AF_UNIX traffic with BPF and read it back.

Importing this package is cheap: bcc and pyshark are imported only
where a capture, a socket listing or a reader needs them.
"""

import sys

# Everything else would fail with a syntax error, or worse, later.
if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit("unixsock: Python 3.9 or later is needed; this is {}.{}".format(*sys.version_info))

from unixsock_bpf.version import __version__ as __version__

#: What the package offers, from ``api.messages``, which is imported when it is first asked for.
_API = ("End", "Message", "Messages", "MessagesError", "live", "read")


def __getattr__(name: str) -> object:
    if name in _API:
        from unixsock_bpf.api import messages

        return getattr(messages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
