"""Import of ``strace -f -xx -yy`` logs: what the system calls on Unix sockets tell.

A message that both ends' calls show is taken once, from its sender's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from unixsock_bpf.foreign.conversations import Positions
from unixsock_bpf.formats.pcapng import Buffer
from unixsock_bpf.formats.reader import LAST_NS
from unixsock_bpf.record import Event, Flag, Record, Role, SocketType

#: A longer line, or one that was begun and not ended, is passed over.
_LONGEST = 8 << 20
_UNFINISHED = 4096
_SOCKETS = 1 << 17

#: Numbers are as long as they may be, so that what is read of them fits into a record.
_PID = rb"(?:\[pid +)?(\d{1,9})(?:<([^<>\n]*)>)?\]? +"
_TIME = rb"(?: *(\d{1,10}\.\d{1,9}|\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?: \(\+ *[\d.]+\))? +)?"
_LINE = re.compile(rb"(?:" + _PID + rb")?" + _TIME + rb"([a-z_0-9]+)\((.*)\) += (.*)", re.DOTALL)
_BEGIN = re.compile(rb"(?:" + _PID + rb")?" + _TIME + rb"(?:[a-z_0-9]+\(|(?:---|\+\+\+|<\.\.\.) )")
_BEGUN = re.compile(
    rb"(?:" + _PID + rb")?" + _TIME + rb"([a-z_0-9]+)\((.*?) ?<unfinished \.\.\.>\s*$", re.DOTALL
)
_RESUMED = re.compile(rb"(?:" + _PID + rb")?" + _TIME + rb"<\.\.\. ([a-z_0-9]+) resumed>,? ?(.*)", re.DOTALL)
_SOCKET = re.compile(
    rb'(\d{1,9})<UNIX(?:-(STREAM|DGRAM|SEQPACKET))?:\[(\d{1,19})(?:->(\d{1,19}))?(?:,(@?)"((?:\\x[0-9a-f]{2}|[^"\\])*)")?\]>'
)
_ADDRESS = re.compile(rb'sun_path=(@?)"((?:\\x[0-9a-f]{2}|[^"\\])*)"')
_STRING = re.compile(rb'"((?:\\x[0-9a-f]{2}|\\.|[^"\\])*)"(\.\.\.)?')
_IOVECS = re.compile(rb'iov_base="((?:\\x[0-9a-f]{2}|\\.|[^"\\])*)"(\.\.\.)?')
_RESULT = re.compile(rb"(\d{1,9})(?:[^\d]|$)")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_ESCAPED = re.compile(rb"(?:\\x[0-9a-f]{2})*")
_SENDS = {b"write", b"writev", b"send", b"sendto", b"sendmsg", b"sendmmsg"}
_RECEIVES = {b"read", b"readv", b"recv", b"recvfrom", b"recvmsg", b"recvmmsg"}
#: Calls with parts of a message.
_VECTORS = {b"sendmsg", b"recvmsg", b"readv", b"writev", b"sendmmsg", b"recvmmsg"}
_MESSAGE_LENGTH = re.compile(rb"\bmsg_len=(\d{1,9})(?!\d)")
_CALLS = (
    _SENDS
    | _RECEIVES
    | {b"socket", b"socketpair", b"connect", b"bind", b"accept", b"accept4", b"shutdown", b"close"}
)
_TYPES = {
    b"SOCK_STREAM": SocketType.STREAM,
    b"SOCK_DGRAM": SocketType.DGRAM,
    b"SOCK_SEQPACKET": SocketType.SEQPACKET,
}


def recognise(head: bytes) -> bool:
    """Tell whether a file that begins like this may be a log of strace."""
    return any(_BEGIN.match(line) for line in head.split(b"\n", 50)[:50])


def _bytes(escaped: bytes) -> bytes:
    if b"\\x" not in escaped:
        return escaped
    if _ESCAPED.fullmatch(escaped):
        return bytes.fromhex(escaped.replace(b"\\x", b"").decode())
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), escaped)


@dataclass
class _Socket:
    """What is known of a socket, by its inode."""

    inode: int
    type: int = 0
    peer: int = 0
    name: bytes = b""
    accepted: bool = False
    connected: bool = False
    pid: int = 0
    comm: bytes = b""


@dataclass
class _Call:
    """One system call that has ended."""

    pid: int
    comm: bytes
    time_ns: int
    name: bytes
    arguments: bytes
    result: bytes


def _time(text: bytes | None, last: int) -> int:
    """Return a time in ns; of day only: since 1970-01-01; since the last: from there; none: 1 µs later."""
    if text is None:
        return last + 1000
    if b":" in text:
        clock, _, fraction = text.partition(b".")
        hours, minutes, seconds = map(int, clock.split(b":"))
        whole = hours * 3600 + minutes * 60 + seconds
    else:
        digits, _, fraction = text.partition(b".")
        whole = int(digits)
    time_ns = whole * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9] or b"0")
    return time_ns + last if b":" not in text and len(digits) < 9 else time_ns


def _lines(data: Buffer, tick: Callable[[int], bool]) -> Iterator[bytes]:
    at, size = 0, len(data)
    while at < size:
        end = data.find(b"\n", at)  # type: ignore[union-attr]
        end = size if end < 0 else end
        if tick(at):
            return
        if end - at <= _LONGEST:
            yield bytes(data[at:end])
        at = end + 1


def _calls(data: Buffer, tick: Callable[[int], bool]) -> Iterator[_Call]:
    """Yield the calls in the order in which they ended."""
    begun: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
    last = 0
    for line in _lines(data, tick):
        if b"UNIX" not in line and b"resumed>" not in line and b"AF_UNIX" not in line:
            continue
        if (found := _BEGUN.match(line)) and b"<unfinished" in line:
            pid, _, _, name, arguments = found.groups()
            if len(begun) >= _UNFINISHED:
                begun.clear()
            if name in _CALLS:
                begun[int(pid or 0), name] = name, arguments
            continue
        if found := _RESUMED.match(line):
            pid, comm, stamp, name, rest = found.groups()
            head = begun.pop((int(pid or 0), name), None)
            if head is None:
                continue
            joined = head[1] + (b", " if head[1] and not head[1].rstrip().endswith(b",") else b" ") + rest
            end = re.match(rb"(.*)\) += (.*)", joined, re.DOTALL)
            if not end:
                continue
            arguments, result = end.groups()
        elif found := _LINE.match(line):
            pid, comm, stamp, name, arguments, result = found.groups()
            if name not in _CALLS:
                continue
        else:
            continue
        last = min(_time(stamp, last), LAST_NS)
        yield _Call(int(pid or 0), comm or b"", last, name, arguments, result)


def _senders(data: Buffer, tick: Callable[[int], bool]) -> set[int]:
    """Return the inodes of the sockets that the log shows sending."""
    found = set()
    for call in _calls(data, tick):
        if call.name in _SENDS and (at := _SOCKET.match(call.arguments)) and call.result[:1].isdigit():
            found.add(int(at[3]))
            if len(found) > _SOCKETS:
                break
    return found


def _result(call: _Call) -> int:
    """Return the number that a call returned; 0 for what is none."""
    found = _RESULT.match(call.result)
    return int(found[1]) if found else 0


def _messages(call: _Call, descriptor: bytes) -> Iterator[_Call]:
    """Yield a call of several messages as a call for each; others as they are."""
    if not call.name.endswith(b"mmsg"):
        yield call
        return
    at = len(descriptor)
    for number, found in enumerate(_MESSAGE_LENGTH.finditer(call.arguments, at)):
        if number == _result(call):  # the others were not sent
            return
        yield replace(call, arguments=descriptor + call.arguments[at : found.start()], result=found[1])
        at = found.end()


class _Importer:
    """Follows sockets through a log."""

    def __init__(self, senders: set[int]) -> None:
        self._senders = senders
        self._sockets: dict[int, _Socket] = {}
        self._by_name: dict[bytes, int] = {}
        self._positions = Positions()

    def _socket(self, inode: int) -> _Socket:
        if inode not in self._sockets and len(self._sockets) >= _SOCKETS:
            del self._sockets[next(iter(self._sockets))]
        return self._sockets.setdefault(inode, _Socket(inode))

    def _seen(self, found: re.Match[bytes]) -> _Socket:
        """Return the socket of a descriptor as -yy shows it, with what that tells."""
        _, kind, inode, peer, abstract, name = found.groups()
        one = self._socket(int(inode))
        if kind:
            one.type = SocketType[kind.decode()]
        if name is not None:
            one.name = (b"\0" if abstract else b"") + _bytes(name)
        if peer:
            one.peer = int(peer)
            other = self._socket(one.peer)
            other.peer = one.inode
            other.type = other.type or one.type
        return one

    def take(self, call: _Call) -> Iterator[Record]:
        """Yield the records that a call tells."""
        if not _RESULT.match(call.result):  # it failed, or the log ends in it
            return
        if call.name in (b"socket", b"socketpair"):
            self._made(call)
            return
        found = _SOCKET.match(call.arguments)
        if not found:
            return
        one = self._seen(found)
        one.pid, one.comm = call.pid or one.pid, call.comm or one.comm
        if call.name in (b"connect", b"bind"):
            self._named(call, one)
        elif call.name in (b"accept", b"accept4"):
            if accepted := _SOCKET.match(call.result):
                new = self._seen(accepted)
                new.accepted, new.pid, new.comm, new.name = True, call.pid, call.comm, new.name or one.name
        elif call.name in (b"close", b"shutdown"):
            yield from self._ended(call, one)
        elif call.name in _SENDS or one.peer not in self._senders:
            for message in _messages(call, found[0]):
                yield from self._data(message, one, sends=call.name in _SENDS)

    def _made(self, call: _Call) -> None:
        kind = next((value for name, value in _TYPES.items() if name in call.arguments), None)
        for found in _SOCKET.finditer(call.result if call.name == b"socket" else call.arguments):
            one = self._seen(found)
            if kind:
                one.type = kind
            one.pid, one.comm = call.pid, call.comm

    def _named(self, call: _Call, one: _Socket) -> None:
        address = _ADDRESS.search(call.arguments)
        name = (b"\0" if address[1] else b"") + _bytes(address[2]) if address else b""
        if call.name == b"bind":
            one.name = name
            if len(self._by_name) < _SOCKETS:
                self._by_name[name] = one.inode
        else:
            one.connected = True
            if one.peer:
                self._socket(one.peer).name = name
            elif one.type == SocketType.DGRAM:
                one.peer = self._by_name.get(name, 0)

    def _record(self, src: _Socket, dst: _Socket) -> Record:
        role = Role.UNKNOWN
        if src.accepted or dst.connected:
            role = Role.SRC_IS_SERVER
        elif dst.accepted or src.connected:
            role = Role.DST_IS_SERVER
        return Record(
            type=src.type or dst.type, role=role, src_pid=src.pid, dst_pid=dst.pid, src_comm=src.comm[:15],
            dst_comm=dst.comm[:15], src_name=src.name[:108], dst_name=dst.name[:108], src_inode=src.inode,
            dst_inode=dst.inode, src_sock=src.inode, dst_sock=dst.inode,
        )  # fmt: skip

    def _data(self, call: _Call, one: _Socket, *, sends: bool) -> Iterator[Record]:
        pattern = _IOVECS if call.name in _VECTORS else _STRING
        length = _result(call)
        descriptor = _SOCKET.match(call.arguments)  # which may hold a name, in quotes as the payload is
        payload, cut = b"", False
        for found in pattern.finditer(call.arguments, descriptor.end() if descriptor else 0):
            payload += _bytes(found[1])
            if found[2]:  # what follows is not behind these bytes
                cut = True
                break
            if pattern is _STRING:
                break
        payload = payload[:length]
        if not sends and not length and not cut:  # the end of a stream
            return
        other = self._socket(one.peer) if one.peer else None
        if other is None and sends and (address := _ADDRESS.search(call.arguments)):
            name = (b"\0" if address[1] else b"") + _bytes(address[2])
            other = self._socket(self._by_name[name]) if name in self._by_name else _Socket(0, name=name)
        if not sends and other is None and one.type != SocketType.STREAM and one.name:
            return  # who sent it is not told, and its sending may be in the log
        src, dst = (one, other or _Socket(0)) if sends else (other or _Socket(0), one)
        yield from self._positions.records(self._record(src, dst), payload, length)

    def _ended(self, call: _Call, one: _Socket) -> Iterator[Record]:
        if not one.peer:
            return
        record = self._record(one, self._socket(one.peer))
        record.event = Event.CLOSE
        if call.name == b"shutdown":
            record.event = Event.SHUTDOWN
            record.how = (
                0 if b"SHUT_RD)" in call.arguments + b")" else 1 if b"SHUT_WR" in call.arguments else 2
            )
            if b"SHUT_RDWR" in call.arguments:
                record.how = 2
        record.seq, record.ack = self._positions.of(record)
        record.flags &= ~Flag.FROM_START
        yield record


def records(data: Buffer, tick: Callable[[int], bool]) -> Iterator[tuple[int, Record]]:
    """Yield time and record of each message and end that the log tells of."""
    size = len(data)
    importer = _Importer(_senders(data, lambda at: tick(at // 2)))
    for call in _calls(data, lambda at: tick((size + at) // 2)):
        for record in importer.take(call):
            yield call.time_ns, record
