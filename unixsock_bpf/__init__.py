"""Unix sockets in Wireshark: capture AF_UNIX traffic with BPF and read it back.

Importing this package is cheap: bcc, pyroute2 and pyshark are imported only
where a capture, a socket listing or a reader needs them.
"""

__version__ = "0.1.0"
