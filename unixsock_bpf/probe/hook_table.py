"""Every function that the probe hooks: what for, on which kernels, and what is unknown without it.

The one place that names them.  The C has a function for each hook that looks at the arguments (``body``); the
programs around these, their tail calls and slots of working memory (``probe/hook_programs.py``) and, by
``make generate``, the table in docs/hooks.md come from here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class At(enum.Enum):
    """Where a program runs."""

    ENTRY = "entry"
    RETURN = "return"
    TRACEPOINT = "tracepoint"


class Purpose(enum.Enum):
    """Which program a hook goes on to; its number is the element of the tail-call map.

    EVENT: it writes an event where events are wanted, and updates the probe's state in any case.
    UPDATE: only that.  REFUSAL: it writes an event with the name that was asked for.  ITSELF: none.
    """

    MESSAGE = 0
    EVENT = 1
    UPDATE = 2
    REFUSAL = 3
    ITSELF = 4


class Need(enum.Enum):
    """What becomes of a capture without the hook.

    NEEDED: there is none.  ATTRIBUTION: records know less of sockets and processes.  OPTIONAL: what the
    hook tells is missing.
    """

    NEEDED = "needed"
    ATTRIBUTION = "attribution"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Hook:
    """A hooked function.

    ``body``: the function in the C.  At an entry it gets the slot and two arguments (without a purpose, no
    slot); at a return the slot, the arguments and the result; it returns true to go on to the program that
    the purpose names.
    ``wants``: for a return, the C function that says at the entry whether to look at the return at all.
    ``keep``: instead, the one that reduces the arguments to one number, which the body gets in their place;
    0 stands for no.
    ``facts``, ``lacks``: functions, and members of structures, that the kernel's BTF has to have or to
    lack.
    ``proves``: what the probe's test of itself sends through it (``self_test.py``); without any, all that no
    other row names.
    ``often``: called for each message or read, so that fentry is worth its slow detaching.
    ``sleeps``: threads may sleep, or be preempted, inside: too many for a kretprobe's instances.
    ``listing``: only until the reader has listed the sockets that exist.
    ``events``: only where events are wanted.
    ``tells``, ``without``: what it is for, and what a capture does not know without it.
    """

    function: str
    at: At
    purpose: Purpose
    need: Need
    body: str
    tells: str
    without: str
    proves: tuple[str, ...] = ()
    wants: str = ""
    keep: str = ""
    facts: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    often: bool = False
    sleeps: bool = False
    listing: bool = False
    events: bool = False

    def applies(self, has: Callable[[str], bool]) -> bool:
        """Whether a kernel that has these facts is hooked here."""
        return all(map(has, self.facts)) and not any(map(has, self.lacks))


#: What the probe's test of itself sends with MSG_OOB.
URGENT = "stream, MSG_OOB"

_INQ_LEN = "unix_sock.inq_len"
_NOT_CAPTURED = "no capture is possible"
_READER = "the receiving process is guessed"
_CONNECT = "no CONNECT events; whether a stream was captured from its first byte, and which end is the client"
_ACCEPT = "no ACCEPT events; which process reads an accepted socket, until it first does"
_FDS = "what passed descriptors refer to; how many there are is known"

HOOKS = (
    Hook(
        "skb_queue_tail",
        At.ENTRY,
        Purpose.MESSAGE,
        Need.NEEDED,
        "on_queue",
        "datagrams and seqpackets; streams before Linux 6.17",
        _NOT_CAPTURED,
        often=True,
    ),
    # Linux commit f4e1fb04c123 ("af_unix: Use cached value for SOCK_STREAM in unix_inq_len()."), v6.17,
    # queues streams in place.
    Hook(
        "skb_copy_datagram_from_iter",
        At.RETURN,
        Purpose.MESSAGE,
        Need.NEEDED,
        "on_copied",
        "streams from Linux 6.17 on",
        _NOT_CAPTURED,
        proves=("stream, write",),
        keep="keep_copied",
        facts=(_INQ_LEN,),
        sleeps=True,
    ),
    Hook(
        "skb_splice_from_iter",
        At.RETURN,
        Purpose.MESSAGE,
        Need.NEEDED,
        "on_spliced",
        "sendfile and splice into streams from Linux 6.17 on",
        _NOT_CAPTURED,
        proves=("stream, splice",),
        keep="keep_spliced",
        facts=(_INQ_LEN,),
        sleeps=True,
    ),
    # Linux commit a0dbf5f818f9 ("af_unix: Support MSG_SPLICE_PAGES"), v6.5, has them go through sendmsg.
    Hook(
        "skb_append_pagefrags",
        At.RETURN,
        Purpose.MESSAGE,
        Need.NEEDED,
        "on_appended",
        "sendfile and splice into streams before Linux 6.5",
        _NOT_CAPTURED,
        proves=("stream, splice",),
        wants="is_unix_skb",
        facts=("unix_stream_sendpage",),
    ),
    Hook(
        "sk_send_sigurg",
        At.ENTRY,
        Purpose.MESSAGE,
        Need.NEEDED,
        "on_urgent",
        "bytes sent with MSG_OOB",
        _NOT_CAPTURED,
        proves=(URGENT,),
        facts=("unix_sock.oob_skb",),
    ),
    Hook(
        "unix_stream_recvmsg",
        At.ENTRY,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_use",
        "which process reads a stream",
        _READER,
        often=True,
    ),
    Hook(
        "unix_stream_splice_read",
        At.ENTRY,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_use",
        "which process reads a stream by splice",
        _READER,
    ),
    # Linux commit 9825d866ce0d ("af_unix: Implement unix_dgram_bpf_recvmsg()"), v5.15, has both others call
    # it.
    Hook(
        "__unix_dgram_recvmsg",
        At.ENTRY,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_sock_use",
        "which process reads datagrams or seqpackets",
        _READER,
        facts=("__unix_dgram_recvmsg",),
    ),
    Hook(
        "unix_dgram_recvmsg",
        At.ENTRY,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_use",
        "which process reads datagrams, before Linux 5.15",
        _READER,
        lacks=("__unix_dgram_recvmsg",),
    ),
    Hook(
        "unix_seqpacket_recvmsg",
        At.ENTRY,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_use",
        "which process reads seqpackets, before Linux 5.15",
        _READER,
        lacks=("__unix_dgram_recvmsg",),
    ),
    Hook(
        "unix_bind",
        At.RETURN,
        Purpose.UPDATE,
        Need.ATTRIBUTION,
        "on_bind",
        "the directory that a relative name belongs to; which process binds",
        "the directory of relative names that are bound during the capture",
    ),
    # The last that can fail; many threads sleep in unix_stream_connect, none here.
    Hook(
        "security_unix_stream_connect",
        At.RETURN,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_connect",
        "connections, before the first byte goes through them",
        _CONNECT,
        facts=("security_unix_stream_connect",),
    ),
    Hook(
        "unix_stream_connect",
        At.RETURN,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_connected",
        "connections, without CONFIG_SECURITY_NETWORK",
        _CONNECT,
        lacks=("security_unix_stream_connect",),
        sleeps=True,
    ),
    # All that can fail is over; many threads sleep in unix_accept, none here.
    Hook(
        "security_sock_graft",
        At.ENTRY,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_graft",
        "accepted sockets",
        _ACCEPT,
        facts=("security_sock_graft",),
    ),
    Hook(
        "unix_accept",
        At.RETURN,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_accept",
        "accepted sockets, without CONFIG_SECURITY_NETWORK",
        _ACCEPT,
        lacks=("security_sock_graft",),
        sleeps=True,
    ),
    Hook(
        "unix_socketpair",
        At.RETURN,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_socketpair",
        "socket pairs, before the first byte goes through them",
        "no CONNECT events of socket pairs; whether they were captured from the first byte",
    ),
    Hook(
        "unix_release_sock",
        At.ENTRY,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_close",
        "closed sockets",
        "no CLOSE events: a conversation's end",
    ),
    Hook(
        "unix_sock_destructor",
        At.ENTRY,
        Purpose.ITSELF,
        Need.ATTRIBUTION,
        "on_free",
        "freed sockets, whose addresses the kernel uses again",
        "when a socket is gone, until the kernel uses its memory for another one",
    ),
    Hook(
        "unix_stream_sendmsg",
        At.RETURN,
        Purpose.EVENT,
        Need.ATTRIBUTION,
        "on_stream_sent",
        "the end of a write, from Linux 6.17 on, where several threads may write to a stream at once; "
        "stream sends that failed",
        "no SEND_ERROR events of streams; whether two threads wrote to a stream at once",
        keep="keep_first",
        facts=(_INQ_LEN,),
        often=True,
        sleeps=True,
    ),
    Hook(
        "unix_stream_sendmsg",
        At.RETURN,
        Purpose.EVENT,
        Need.OPTIONAL,
        "on_stream_sent",
        "stream sends that failed",
        "no SEND_ERROR events of streams",
        keep="keep_first",
        lacks=(_INQ_LEN,),
        often=True,
        sleeps=True,
        events=True,
    ),
    Hook(
        "unix_dgram_sendmsg",
        At.RETURN,
        Purpose.REFUSAL,
        Need.OPTIONAL,
        "on_dgram_sent",
        "datagram and seqpacket sends that failed",
        "no SEND_ERROR events of datagrams and seqpackets, and no REFUSED events of datagrams",
        keep="keep_addressed",
        often=True,
        sleeps=True,
        events=True,
    ),
    # Where this function has to tell of connections as well, it has one row, above.
    Hook(
        "unix_stream_connect",
        At.RETURN,
        Purpose.REFUSAL,
        Need.OPTIONAL,
        "on_connect_refused",
        "connects of streams and seqpackets that failed",
        "no REFUSED events of streams and seqpackets",
        facts=("security_unix_stream_connect",),
        sleeps=True,
        events=True,
    ),
    Hook(
        "unix_dgram_connect",
        At.RETURN,
        Purpose.REFUSAL,
        Need.OPTIONAL,
        "on_connect_refused",
        "connects of datagram sockets that failed",
        "no REFUSED events of connects of datagram sockets",
        sleeps=True,
        events=True,
    ),
    Hook(
        "unix_shutdown",
        At.RETURN,
        Purpose.EVENT,
        Need.OPTIONAL,
        "on_shutdown",
        "shutdown of one direction or both",
        "no SHUTDOWN events",
        events=True,
    ),
    # Linux commit 1fbfdfaa5902 ("af_unix: Allocate struct unix_vertex for each inflight AF_UNIX fd."), v6.10,
    # and in stable kernels.
    Hook(
        "unix_prepare_fpl",
        At.ENTRY,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_passed",
        "files behind passed descriptors",
        _FDS,
        facts=("unix_prepare_fpl",),
    ),
    Hook(
        "__scm_send",
        At.RETURN,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_scm_sent",
        "files behind passed descriptors, on older kernels",
        _FDS,
        lacks=("unix_prepare_fpl",),
    ),
    Hook(
        "__scm_destroy",
        At.ENTRY,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_passed_end",
        "the end of a send with descriptors, whose files need not be remembered any longer",
        "what passed descriptors refer to, once 256 threads have passed some; how many there are is known",
    ),
    Hook(
        "sock_diag_save_cookie",
        At.ENTRY,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_listing",
        "the directories of relative names that exist when the capture starts",
        "the directory of relative names that were bound before the capture",
        listing=True,
    ),
    Hook(
        "cgroup_mkdir",
        At.TRACEPOINT,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_cgroup_mkdir",
        "new cgroups and their paths",
        "the paths of cgroups that are made during the capture",
    ),
    Hook(
        "cgroup_release",
        At.TRACEPOINT,
        Purpose.ITSELF,
        Need.OPTIONAL,
        "on_cgroup_release",
        "removed cgroups",
        "the paths of new cgroups, once many were removed during the capture",
    ),
)
