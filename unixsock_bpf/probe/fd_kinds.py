"""Files that no directory has, as descriptors refer to them: how the probe tells their kinds.

Magic numbers are those of include/uapi/linux/magic.h; names are what /proc/PID/fd shows after
``anon_inode:``.
"""

from __future__ import annotations

from unixsock_bpf.record import FdKind

_ANON_INODES = 0x09041934

#: (file system's magic number, name if it is anon_inodefs): kind.
PSEUDO_FILES: dict[tuple[int, bytes], FdKind] = {
    (0x50495045, b""): FdKind.PIPE,
    (0x534F434B, b""): FdKind.SOCKET,
    (0x444D4142, b""): FdKind.DMABUF,
    (0x50494446, b""): FdKind.PIDFD,  # Linux commit cb12fd8e0dab ("pidfd: add pidfs") (in v6.9)
    (_ANON_INODES, b"[pidfd]"): FdKind.PIDFD,
    (_ANON_INODES, b"[eventfd]"): FdKind.EVENTFD,
    (_ANON_INODES, b"[eventpoll]"): FdKind.EPOLL,
    (_ANON_INODES, b"[timerfd]"): FdKind.TIMERFD,
    (_ANON_INODES, b"[signalfd]"): FdKind.SIGNALFD,
    (_ANON_INODES, b"inotify"): FdKind.INOTIFY,
    (_ANON_INODES, b"[io_uring]"): FdKind.IO_URING,
    (_ANON_INODES, b"bpf-map"): FdKind.BPF,
    (_ANON_INODES, b"bpf-prog"): FdKind.BPF,
    (_ANON_INODES, b"bpf_link"): FdKind.BPF,
    (_ANON_INODES, b"btf"): FdKind.BPF,
}
