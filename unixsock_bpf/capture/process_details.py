"""What /proc tells of the processes of a record: executable, command line, parent, user and passed sockets.

It is read when a process is first seen, and at most once a second, so that a process that has ended by then
has none; nor has one whose name is another by now, or that began after the record.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.linux import procfs
from unixsock_bpf.linux.passed_sockets import PassedSockets
from unixsock_bpf.record import HEADER_LEN, HEADER_OFFSETS, Element, FdKind, Flag, element

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings

#: Bytes of a command line that are kept.
CMDLINE_BYTES = 1024
#: PATH_MAX without its terminating NUL; a longer one is not known.
_EXE_BYTES = 4095
#: TASK_COMM_LEN without its terminating NUL
_COMM_BYTES = 15
#: A process is looked at again after so many seconds, and so many are remembered.
_FRESH_S, _REMEMBERED = 1.0, 4096

_RECORD = 28 + len(pcapng.PACKET_PREFIX)
_U16, _U32, _ELEMENT = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<HH")
_FD = struct.Struct("<IQ")


@dataclass(frozen=True)
class Details:
    """What is known of a process; ``began``: its start in clock ticks since boot."""

    comm: bytes
    began: int
    parent: int
    exe: bytes
    cmdline: bytes


class ProcessDetails:
    """Adds to records what is known of their processes, and process information blocks with ``blocks``."""

    def __init__(self, blocks: bool = False) -> None:
        self._blocks = blocks
        #: By process, with when it was looked at.
        self._known: dict[int, tuple[float, Details | None]] = {}
        self._users: dict[int, bytes] = {}
        #: When /etc/passwd had changed, and when it was looked at.
        self._users_read = 0, 0.0
        self._announced: dict[int, Details] = {}
        self._sockets = PassedSockets()

    def added(self, blocks: Sequence[Block]) -> list[Block]:
        """Return ``blocks`` with the details in each record."""
        return [each for block in blocks for each in self._of(block)]

    def _of(self, block: Block) -> Iterator[Block]:
        if not pcapng.is_packet(block) or len(block) < _RECORD + HEADER_LEN + 4:
            yield block
            return
        elements = []
        began_at = _ticks(pcapng.time_of(block))
        flags = _number(block, "flags", _U16)
        comms = _comms(block)
        for side, kinds, bit in (("src", _SRC, Flag.SRC_CREDS), ("dst", _DST, Flag.DST_CREDS)):
            user = self._user(_number(block, f"{side}_uid")) if flags & bit else b""
            pid = _number(block, f"{side}_pid")
            found = self._details(pid, comms.get(side, b""), began_at) if pid else None
            if found and self._blocks and self._announced.get(pid) != found:
                if len(self._announced) >= _REMEMBERED:
                    self._announced.clear()
                self._announced[pid] = found
                uid = _number(block, f"{side}_uid") if flags & bit else None
                yield pcapng.process_information(
                    pid, found.comm, found.exe, found.cmdline, found.parent, uid, user
                )
            values = (found.exe, found.cmdline, _U32.pack(found.parent)) if found else (b"", b"", b"")
            elements += [element(kind, value) for kind, value in zip(kinds, (*values, user)) if value]
        block = self._with_passed_sockets(block)
        yield pcapng.with_elements(block, b"".join(elements)) if elements else block

    def _with_passed_sockets(self, block: Block) -> Block:
        """Return a record that says what the sockets are that it passes."""
        pid = _number(block, "src_pid")
        places = [
            at
            for at, kind, length in _elements(block)
            if pid
            and kind == Element.FD
            and length == _FD.size
            and _FD.unpack_from(block, at)[0] == FdKind.SOCKET
        ]
        for at in reversed(places):
            _, inode = _FD.unpack_from(block, at)
            about = self._sockets.describe(pid, inode).encode("utf-8", "replace")
            if about:
                longer = bytearray(pcapng.with_elements(block, about + bytes(-len(about) % 4), at + _FD.size))
                _U16.pack_into(longer, at - 2, _FD.size + len(about))
                block = bytes(longer)
        return block

    def _details(self, pid: int, comm: bytes, at_ticks: float) -> Details | None:
        """Return what is known of a process that had the name ``comm`` at a time."""
        now = time.monotonic()
        looked_at, known = self._known.get(pid, (-_FRESH_S, None))
        if now - looked_at >= _FRESH_S or known is None or known.comm[:_COMM_BYTES] != comm:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = _read(pid, known)
            self._known[pid] = now, known
        if known is None or known.comm[:_COMM_BYTES] != comm or known.began > at_ticks:
            return None
        return known

    def _user(self, uid: int) -> bytes:
        """Return a user's name of /etc/passwd: other sources may keep a capture waiting."""
        now = time.monotonic()
        changed, read = self._users_read
        if now - read >= _FRESH_S or not read:
            try:
                stamp = os.stat("/etc/passwd").st_mtime_ns
            except OSError:
                stamp = 0
            if stamp != changed or not read:
                self._users = _users()
            self._users_read = stamp, now
        return self._users.get(uid, b"")


def details_of(settings: Settings) -> ProcessDetails | None:
    """Return what adds the details that a capture of this host is to have."""
    return ProcessDetails(settings.process_blocks) if settings.process_details else None


_SRC = (Element.SRC_EXE, Element.SRC_CMDLINE, Element.SRC_PARENT, Element.SRC_USER)
_DST = (Element.DST_EXE, Element.DST_CMDLINE, Element.DST_PARENT, Element.DST_USER)


def _read(pid: int, before: Details | None) -> Details | None:
    """Read a process from /proc; one that has ended is as it was ``before``."""
    status = procfs.status(pid)
    if status is None:
        return before
    comm, parent, began = status
    exe = os.fsencode(procfs.link(f"/proc/{pid}/exe"))
    cmdline = procfs.read(pid, "cmdline").rstrip(b"\0")[:CMDLINE_BYTES]
    after = procfs.status(pid)
    if after is None or (after[0], after[2]) != (comm, began):  # it became another program meanwhile
        return None
    return Details(comm, began, parent, exe if len(exe) <= _EXE_BYTES else b"", cmdline)


def _ticks(time_ns: int) -> float:
    """Return a record's time in clock ticks since boot, as processes' starts are counted."""
    age = time.time_ns() - time_ns
    since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - age
    return since_boot * os.sysconf("SC_CLK_TCK") / 1e9 + 1


def _number(block: Block, name: str, form: struct.Struct = _U32) -> int:
    return int(form.unpack_from(block, _RECORD + HEADER_OFFSETS[name])[0])


def _comms(block: Block) -> dict[str, bytes]:
    """Return the command names of a record's sides."""
    sides = {Element.SRC_COMM: "src", Element.DST_COMM: "dst"}
    return {
        sides[Element(kind)]: bytes(block[at : at + length])
        for at, kind, length in _elements(block)
        if kind in sides
    }


def _elements(block: Block) -> Iterator[tuple[int, int, int]]:
    """Yield place, type and length of each element's value."""
    at, end = _RECORD + HEADER_LEN, _RECORD + _number(block, "header_len", _U16)
    while at + _ELEMENT.size <= end:
        kind, length = _ELEMENT.unpack_from(block, at)
        yield at + _ELEMENT.size, kind, length
        at += _ELEMENT.size + length + -length % 4


def _users() -> dict[int, bytes]:
    """Return the names in /etc/passwd by number; of several, the first, as getpwuid(3)."""
    found: dict[int, bytes] = {}
    try:
        with open("/etc/passwd", "rb") as file:
            for line in file:
                name, _, uid, *_ = *line.split(b":", 3), b"", b"", b""
                if uid.isdigit() and name and len(name) <= 255:
                    found.setdefault(int(uid), name)
    except OSError:
        pass
    return found
