"""What the probe tells the reader besides pcapng blocks: who is behind a pseudo address."""

from __future__ import annotations

import struct

from unixsock_bpf.record import display_name, display_process

#: The first word of an announcement (``struct announcement`` in probe/record.h).
ANNOUNCEMENT = 0x554E4958

_STRUCT = struct.Struct("<IIQII16s112s")


def endpoint_name(data: bytes | memoryview) -> tuple[int, str]:
    """A socket's identity and its name for people, such as ``dockerd[77] /run/docker.sock``."""
    _, _, sock, pid, name_len, comm, name = _STRUCT.unpack_from(data)
    who = display_process(comm.split(b"\0")[0], pid) if pid else b""
    text = b" ".join(part for part in (who, display_name(name[:name_len])) if part)
    return sock, "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
