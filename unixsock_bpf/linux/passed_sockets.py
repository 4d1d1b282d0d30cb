"""What a socket is whose inode alone is known: family or protocol, addresses, state."""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Callable, Iterator

from unixsock_bpf.linux import procfs
from unixsock_bpf.record import SocketType

#: Bytes of a list that are read: about 50,000 sockets.
_MOST = 8 << 20
#: A list is read again after so many seconds, and lists of so many processes are kept.
_FRESH_S, _REMEMBERED = 1.0, 64

#: include/net/tcp_states.h
_TCP_STATES = {
    **{1: "established", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait"},
    **{7: "unconnected", 8: "close-wait", 9: "last-ack", 10: "listening", 11: "closing", 12: "syn-recv"},
}
#: include/uapi/linux/netlink.h
_NETLINK = {
    **{
        0: "route",
        2: "usersock",
        4: "sock_diag",
        5: "nflog",
        6: "xfrm",
        7: "selinux",
        8: "iscsi",
        9: "audit",
    },
    **{10: "fib_lookup", 11: "connector", 12: "netfilter", 14: "dnrtmsg", 15: "kobject_uevent"},
    **{16: "generic", 18: "scsitransport", 19: "ecryptfs", 20: "rdma", 21: "crypto"},
}
_LISTENING = 1 << 16  # __SO_ACCEPTCON


class PassedSockets:
    """Describe sockets by inode, from the lists in a process' network namespace."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, dict[int, str]]] = {}

    def describe(self, pid: int, inode: int) -> str:
        """Return what a socket is that process ``pid`` has, such as ``TCP 127.0.0.1:80 listening``.

        Empty if it is gone, in another network namespace, or of a family without a list.
        """
        now = time.monotonic()
        read, sockets = self._known.get(pid, (-_FRESH_S, {}))
        if now - read >= _FRESH_S:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            sockets = dict(_listed(pid))
            self._known[pid] = now, sockets
        return sockets.get(inode, "")


def _listed(pid: int) -> Iterator[tuple[int, str]]:
    """Yield inode and description of each socket in the network namespace of a process."""
    for name, describe in _LISTS.items():
        lines = procfs.read(pid, f"net/{name}", _MOST).decode(errors="replace").split("\n")
        for line in lines[1:]:
            try:
                yield describe(line)
            except (ValueError, IndexError):  # the last, empty one, or one that was cut
                continue


def _inet(protocol: str) -> Callable[[str], tuple[int, str]]:
    def describe(line: str) -> tuple[int, str]:
        fields = line.split()
        local, remote, state = _address(fields[1]), _address(fields[2]), _TCP_STATES[int(fields[3], 16)]
        peer = "" if remote.endswith(":0") else f" to {remote}"
        return int(fields[9]), f"{protocol} {local}{peer} {state}"

    return describe


def _address(text: str) -> str:
    """Return ``address:port`` for its form in /proc: words of the machine's order, in hexadecimal."""
    words, _, port = text.partition(":")
    numbers = (int(words[at : at + 8], 16) for at in range(0, len(words), 8))
    raw = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
    address = ipaddress.ip_address(raw)
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{int(port, 16)}"


def _unix(line: str) -> tuple[int, str]:
    fields = line.split(None, 7)
    kind = SocketType(int(fields[4], 16)).name.lower()
    state = (
        "listening"
        if int(fields[3], 16) & _LISTENING
        else "connected"
        if fields[5] == "03"
        else "unconnected"
    )
    name = f" {fields[7]}" if len(fields) > 7 else ""
    return int(fields[6]), f"unix {kind}{name} {state}"


def _netlink(line: str) -> tuple[int, str]:
    fields = line.split()
    return int(fields[9]), f"netlink {_NETLINK.get(int(fields[1]), fields[1])}"


def _packet(line: str) -> tuple[int, str]:
    return int(line.split()[8]), "packet"


_LISTS = {
    **{name: _inet(name[:3].upper()) for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")},
    **{"unix": _unix, "netlink": _netlink, "packet": _packet},
}
