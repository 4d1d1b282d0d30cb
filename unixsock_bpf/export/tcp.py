"""Format ``tcp``: a pcap of TCP and UDP, for tools that read nothing else.

A stream becomes a TCP connection with handshake, positions and end; what was not captured is a gap in
the sequence numbers.  Datagrams and seqpackets become UDP.  Sockets have their pseudo IPv6 addresses; those
of MySQL and memcached have IPv4 addresses, because pt-query-digest reads no others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.ports import server_port
from unixsock_bpf.formats.pcapng import PACKET_PREFIX, Skip, Span, endpoint_address
from unixsock_bpf.formats.reader import SavedCapture, SavedError
from unixsock_bpf.record import HEADER_LEN, Event, Flag, Record, Role, SocketType

#: Big-endian, nanoseconds, raw IP: then the whole head of a packet is in network byte order.
_FILE_HEADER = struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 0x40000, 101)
#: What is looked at in each record: event, header_len, type, flags, both sockets, positions, lengths.
_RECORD = struct.Struct("<xBH8xBxH24xQQ16xQQ4xIII")
_TCP6 = struct.Struct(">IIII IHBB32s HHIIHHHH")
_TCP4 = struct.Struct(">IIII HHHHBBH8s HHIIHHHH")
_UDP6 = struct.Struct(">IIII IHBB32s HHHH")
_UDP4 = struct.Struct(">IIII HHHHBBH8s HHHH")
_FIN, _SYN, _PSH_ACK, _ACK, _URG = 0x5001, 0x5002, 0x5018, 0x5010, 0x20
_WINDOW = 65535
#: The most payload of one packet: with all headers, tcpdump's old snapshot length of 65,535 is not reached.
_SEGMENT = 0x8000
_DATAGRAM = 65_000
_NEXT = 1 << 32
_BATCH = 2048
#: Bytes of a block and its prefix before a record.
_BLOCK_HEAD = 28 + len(PACKET_PREFIX)
#: Fewer packets and bytes than these are no run; the most to wait with looking for the next one.
_FEW, _LONG, _LONGEST_WAIT = 256, 1 << 19, 1 << 16
#: Ports whose tools know only IPv4.
_IPV4_PORTS = {3306, 11211}


def _run() -> Callable[..., tuple[bytes, int, int]] | None:
    """Return what takes many packets at once; None without numpy."""
    try:
        from unixsock_bpf.export.tcp_runs import run
    except ImportError:
        return None
    return run


def _skipped(spans: Generator[Span, Skip | None, None], skip: Skip) -> Span | None:
    """Return the span after those that were skipped."""
    try:
        return spans.send(skip)
    except StopIteration:
        return None


class _Way:
    """One direction of a conversation: addresses and ports as they stand in each packet."""

    __slots__ = ("addresses", "ended", "fixed_sum", "ipv4", "other", "ports", "seen")

    other: _Way

    def __init__(self, addresses: bytes, ports: tuple[int, int], ipv4: bool) -> None:
        self.addresses, self.ports, self.ipv4 = addresses, ports, ipv4
        self.fixed_sum = int.from_bytes(addresses, "big") + sum(ports)
        self.ended = False
        self.seen = 0  # the position after the last byte


class _Exporter:
    """Turns records into packets."""

    def __init__(self, capture: SavedCapture) -> None:
        self._capture = capture
        self._ways: dict[tuple[int, int], _Way] = {}
        self._connections = 0
        self._ipv4: dict[int, int] = {}
        self._out: list[bytes] = []
        self.cut = 0  # datagrams that no UDP datagram can hold
        self.stamp = 0, 0

    def pieces(self) -> Iterator[bytes]:
        """Yield the file in pieces.  Raises SavedError after all that is whole."""
        yield _FILE_HEADER
        try:
            yield from self._packets()
        except SavedError:
            yield b"".join(self._out)
            raise
        yield b"".join(self._out)

    def _packets(self) -> Iterator[bytes]:
        capture, data, unpack, ways, out = (
            self._capture,
            self._capture.data,
            _RECORD.unpack_from,
            self._ways,
            self._out,
        )
        pack, from_bytes = _TCP6.pack, int.from_bytes
        stream, event_data, urgent = SocketType.STREAM.value, Event.DATA.value, Flag.OOB.value
        spans = capture.spans()
        span = next(spans, None)
        run = _run() if capture.skips else None
        left = wait = 0  # packets until a run is looked for, and how many these were
        while span is not None:
            number, time_ns, begin, end, interface = span
            if end - begin < HEADER_LEN or data[begin] != 1:
                capture.decode(number, begin, end)  # says why not
            event, header_len, kind, flags, src, dst, seq, ack, _, offset, caplen = unpack(data, begin)
            way = ways.get((src, dst))
            if (
                way is None
                or event != event_data
                or kind != stream
                or caplen > _SEGMENT
                or way.ipv4
                or flags & urgent
            ):
                self._any(number, time_ns, begin, end)
            elif caplen:
                # The usual case, which decides how fast an export is.
                at = begin + header_len
                if at + caplen > end or header_len < HEADER_LEN:
                    capture.decode(number, begin, end)
                payload = data[at : at + caplen]
                seq += offset
                way.seen = seq + caplen
                seq = (seq + 1) % 4294967296
                ack = (ack + 1 + way.other.ended) % 4294967296
                size = 20 + caplen
                total = way.fixed_sum + 0x5018 + 65541 + size + seq + ack + (
                    from_bytes(payload, "big") << 8 if caplen & 1 else from_bytes(payload, "big")
                )  # fmt: skip
                source, target = way.ports
                second, rest = divmod(time_ns, 1000000000)
                out.append(
                    pack(
                        second,
                        rest,
                        size + 40,
                        size + 40,
                        0x60000000,
                        size,
                        6,
                        64,
                        way.addresses,
                        source,
                        target,
                        seq,
                        ack,
                        0x5018,
                        65535,
                        65535 - total % 65535,
                        0,
                    )
                )
                out.append(payload)
            if len(out) >= _BATCH:
                yield b"".join(out)
                out.clear()
            left -= 1
            if left >= 0 or run is None or capture.interfaces[interface].per_second != 1_000_000_000:
                span = next(spans, None)
                continue
            block = begin - _BLOCK_HEAD
            after = block + int.from_bytes(data[block + 4 : block + 8], "little")
            segments, many, taken = run(data, after, data[block + 8 : block + 12], _SEGMENT, ways)
            if many:
                yield b"".join([*out, segments])
                out.clear()
            # Where packets are not as usual, looking for a run costs more than it saves.
            wait = 0 if many >= _FEW or taken >= _LONG else min(max(_FEW, 2 * wait), _LONGEST_WAIT)
            left = wait
            span = _skipped(spans, (after + taken, number + many)) if many else next(spans, None)

    def _any(self, number: int, time_ns: int, begin: int, end: int) -> None:
        """Take a record of whichever kind, slowly."""
        one = self._capture.decode(number, begin, end)
        if not one.src_sock or not one.dst_sock:
            return
        self.stamp = divmod(time_ns, 1_000_000_000)
        way = self._ways.get((one.src_sock, one.dst_sock))
        if way is None:
            if one.event in (Event.CONNECT, Event.ACCEPT):  # the first bytes tell the port
                return
            way = self._begin(one)
        if one.type in (SocketType.DGRAM, SocketType.SEQPACKET):
            if one.event == Event.DATA:
                self._datagram(way, one)
            elif one.event == Event.CLOSE:
                self._forget(one)
        elif one.event == Event.DATA:
            at = one.seq + one.offset
            control = _PSH_ACK | (_URG if one.flags & Flag.OOB else 0)
            for first in range(0, len(one.payload), _SEGMENT):
                self._tcp(way, control, at + first, one.ack, one.payload[first : first + _SEGMENT])
            way.seen = at + len(one.payload)
        elif (one.event == Event.SHUTDOWN and one.how in (1, 2)) or one.event == Event.CLOSE:
            self._end(way, one)

    def _begin(self, one: Record) -> _Way:
        """Begin a conversation, with a handshake if the capture has it from the start."""
        src_serves = one.role == Role.SRC_IS_SERVER or (
            one.role != Role.DST_IS_SERVER and bool(one.src_name and not one.dst_name)
        )
        client, server = (one.dst_sock, one.src_sock) if src_serves else (one.src_sock, one.dst_sock)
        self._connections += 1
        port = server_port(one.name, one.payload), 32768 + self._connections % 28_000
        ipv4 = port[0] in _IPV4_PORTS
        to_server = _Way(self._address(client, ipv4) + self._address(server, ipv4), port[::-1], ipv4)
        to_client = _Way(self._address(server, ipv4) + self._address(client, ipv4), port, ipv4)
        to_server.other, to_client.other = to_client, to_server
        self._ways[client, server], self._ways[server, client] = to_server, to_client
        if one.type == SocketType.STREAM and one.flags & Flag.FROM_START and one.seq == 0 and one.ack == 0:
            self._tcp(to_server, _SYN, -1, -1)
            self._tcp(to_client, _SYN | _ACK, -1, 0)
            self._tcp(to_server, _ACK, 0, 0)
        return to_client if src_serves else to_server

    def _address(self, sock: int, ipv4: bool) -> bytes:
        if not ipv4:
            return endpoint_address(sock).packed
        number = self._ipv4.setdefault(sock, len(self._ipv4) + 1)
        return (0x0A000000 + number % 0xFFFFFF).to_bytes(4, "big")

    def _end(self, way: _Way, one: Record) -> None:
        if not way.ended:
            self._tcp(way, _FIN | _ACK, max(one.seq, way.seen), one.ack)
            way.ended = True
            if way.other.ended:
                self._tcp(way.other, _ACK, way.other.seen + 1, max(one.seq, way.seen))
        if way.other.ended and one.event == Event.CLOSE:
            self._forget(one)

    def _forget(self, one: Record) -> None:
        """Drop a conversation that is over, so that memory does not grow with their number."""
        self._ways.pop((one.src_sock, one.dst_sock), None)
        self._ways.pop((one.dst_sock, one.src_sock), None)

    def _tcp(self, way: _Way, control: int, seq: int, ack: int, payload: bytes = b"") -> None:
        """Add a segment; ``seq`` and ``ack`` are positions in the stream: -1 is the SYN's."""
        seq, size = (seq + 1) % _NEXT, 20 + len(payload)
        ack = (ack + 1 + way.other.ended) % _NEXT if control & 0x10 else 0
        urgent = len(payload) if control & _URG else 0
        control |= 0x5000
        checksum = _checksum(way.fixed_sum + 6 + size + control + _WINDOW + urgent + seq + ack, payload)
        rest = *way.ports, seq, ack, control, _WINDOW, checksum, urgent
        self._out.append((_TCP4 if way.ipv4 else _TCP6).pack(*self._head(way, 6, size), *rest))
        self._out.append(payload)

    def _datagram(self, way: _Way, one: Record) -> None:
        if one.offset:  # the rest of one that is cut already
            return
        payload = one.payload[:_DATAGRAM]
        self.cut += len(payload) < one.len
        size = 8 + len(payload)
        checksum = _checksum(way.fixed_sum + 17 + 2 * size, payload) or 0xFFFF
        rest = *way.ports, size, checksum
        self._out.append((_UDP4 if way.ipv4 else _UDP6).pack(*self._head(way, 17, size), *rest))
        self._out.append(payload)

    def _head(self, way: _Way, protocol: int, size: int) -> tuple[int | bytes, ...]:
        """Return a packet's head up to TCP or UDP, which has ``size`` bytes with its payload."""
        if not way.ipv4:
            return *self.stamp, size + 40, size + 40, 0x60000000, size, protocol, 64, way.addresses
        length = size + 20
        total = 0x4500 + length + 0x4000 + (64 << 8 | protocol) + int.from_bytes(way.addresses, "big")
        checksum = _checksum(total, b"")
        return *self.stamp, length, length, 0x4500, length, 0, 0x4000, 64, protocol, checksum, way.addresses


def _checksum(total: int, payload: bytes) -> int:
    """Return the Internet checksum of words whose sum is ``total``, and of ``payload``.

    2^16 is 1 modulo 65535, so a number of any length is congruent to the sum of its words.
    """
    total += int.from_bytes(payload, "big") << (8 if len(payload) % 2 else 0)
    return 65535 - total % 65535


def _pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
    exporter = _Exporter(capture)
    try:
        yield from exporter.pieces()
    except SavedError as error:
        capture.problem = str(error)
    if exporter.cut:
        options.notes.append(
            f"{exporter.cut} datagrams hold less than was sent: not all was captured, or it is more than"
            f" the {_DATAGRAM:,} bytes that UDP takes"
        )


FORMAT = ExportFormat("tcp", _pieces, binary=True)
