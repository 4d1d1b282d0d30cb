"""The usual packets of a capture as TCP segments, many at once with numpy, as ``tcp`` makes them one by one.

A run is consecutive blocks with our packets, of one interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from unixsock_bpf.formats.pcapng import EPB, PACKET_PREFIX, Buffer
from unixsock_bpf.record import HEADER, HEADER_LEN, VERSION, Event, Flag, SocketType

#: Bytes that are looked at together.
_MOST = 1 << 21
#: How the payload of our packets' blocks begins.
_PREFIX = int.from_bytes(PACKET_PREFIX[:4], "little")
#: A block from its time on; so that numpy needs no copies, 8-byte fields lie at multiples of 8.
_HEAD = np.dtype(
    [
        *((name, "<u4") for name in ("high", "low", "block_caplen", "block_len")),
        ("prefix", f"S{len(PACKET_PREFIX)}"),
        *((name, "<" + {"B": "u1", "H": "u2", "I": "u4", "Q": "u8"}[fmt]) for name, fmt, _ in HEADER),
    ]
)
_HEAD_AT = 12
#: As tcp's struct for a segment over IPv6.
_SEGMENT = np.dtype(
    [
        *((name, ">u4") for name in ("second", "rest", "caplen", "length", "version")),
        *(("size", ">u2"), ("next", "u1"), ("hops", "u1"), ("addresses", "V32")),
        *(("source", ">u2"), ("target", ">u2"), ("seq", ">u4"), ("ack", ">u4")),
        *(("control", ">u2"), ("window", ">u2"), ("checksum", ">u2"), ("urgent", ">u2")),
    ]
)


class Way(Protocol):
    """What is needed of a direction."""

    addresses: bytes
    ports: tuple[int, int]
    ipv4: bool
    fixed_sum: int
    ended: bool
    seen: int

    @property
    def other(self) -> Way:
        """The opposite direction."""


class Run:
    """Blocks from ``at`` on, of which ``count`` are as usual in all but their conversation."""

    def __init__(self, data: Buffer, at: int, longest: int) -> None:
        """Find the blocks; ``longest`` is the most payload of a segment."""
        self._bytes = data[at : at + _MOST]
        self._words = words = np.frombuffer(self._bytes, "<u4", len(self._bytes) // 4)
        self._at = starts = _starts(words)
        self.count = 0
        if not len(starts):
            return
        head = _windows(self._bytes, _HEAD.itemsize)[starts + _HEAD_AT].view(_HEAD)
        length, interface = words[starts // 4 + 1], words[starts // 4 + 2]
        self.interface = int(interface[0])
        self._ends = ends = starts + length
        trailers = words[np.minimum(ends // 4, len(words)) - 1]
        room = head["block_caplen"].astype("i8") - len(PACKET_PREFIX)
        usual = (interface == interface[0]) & (ends <= len(self._bytes)) & (trailers == length)
        usual &= head["prefix"] == PACKET_PREFIX.rstrip(b"\0")
        usual &= head["high"] < 1_000_000_000  # before 2106
        usual &= room + (len(PACKET_PREFIX) + 32) <= length
        usual &= room >= head["header_len"].astype("i8") + head["caplen"]
        usual &= (head["version"] == VERSION) & (head["header_len"] >= HEADER_LEN)
        usual &= (length | head["header_len"]) % 4 == 0
        usual &= (head["event"] == Event.DATA) & (head["type"] == SocketType.STREAM)
        usual &= (head["flags"] & Flag.OOB.value == 0) & (head["caplen"] - np.uint32(1) < longest)
        self.count = len(starts) if usual.all() else int(usual.argmin())
        self._head = head[: self.count]
        keys = self._head["src_sock"] * np.uint64(0x9E3779B97F4A7C15) ^ self._head["dst_sock"]
        _, first, self._flow = np.unique(keys, return_index=True, return_inverse=True)
        pairs = [(int(self._head["src_sock"][at]), int(self._head["dst_sock"][at])) for at in first]
        self._pairs = pairs
        for name, side in (("src_sock", 0), ("dst_sock", 1)):
            if (np.array([pair[side] for pair in pairs], "u8")[self._flow] != self._head[name]).any():
                self.count = 0  # two conversations of one hash

    def segments(self, ways: Mapping[tuple[int, int], Way]) -> tuple[bytes, int, int]:
        """Return the packets of the first blocks of known conversations, their number, and where they end."""
        known = [ways.get(pair) for pair in self._pairs]
        good = np.array([way is not None and not way.ipv4 for way in known], bool)[self._flow]
        count = len(good) if good.all() else int(good.argmin())
        if not count:
            return b"", 0, 0
        head, flow = self._head[:count], self._flow[:count]
        begins = self._at[:count] + 28 + len(PACKET_PREFIX) + head["header_len"]
        ends = begins + head["caplen"]
        heads, sums, ended = self._same(known)
        out = heads[flow].view(_SEGMENT)
        time = head["high"].astype("u8") << np.uint64(32) | head["low"]
        out["second"] = second = time // np.uint64(1_000_000_000)
        out["rest"] = time - second * np.uint64(1_000_000_000)
        size = head["caplen"].astype("u8") + np.uint64(20)
        out["size"] = size
        out["caplen"] = out["length"] = size + np.uint64(40)
        out["seq"] = seq = head["seq"] + head["offset"] + np.uint64(1) & np.uint64(0xFFFFFFFF)
        out["ack"] = ack = head["ack"] + ended[flow] & np.uint64(0xFFFFFFFF)
        total = sums[flow] + size + seq + ack + _sums(self._words, begins // 4, head["caplen"])
        out["checksum"] = np.uint64(65535) - total % np.uint64(65535)
        last = np.empty(len(known), "i8")
        last[flow] = np.arange(count)
        for number in set(flow.tolist()):
            way, at = known[number], int(last[number])
            assert way is not None
            way.seen = int(head["seq"][at]) + int(head["offset"][at]) + int(head["caplen"][at])
        # A segment's head is shorter than a record's: written over its end, it is in front of the payload.
        changed = bytearray(self._bytes)
        width = _SEGMENT.itemsize
        _windows(changed, width)[begins - width] = out.view(f"V{width}")
        whole = bytes(changed)
        packets = zip((begins - width).tolist(), ends.tolist())
        return b"".join([whole[begin:end] for begin, end in packets]), count, int(self._ends[count - 1])

    def _same(self, known: list[Way | None]) -> tuple[Any, Any, Any]:
        """Return what is the same in all packets of each direction: heads, sums, and what is added to ack."""
        count = len(known)
        head, sums, ended = np.zeros(count, _SEGMENT), np.zeros(count, "u8"), np.zeros(count, "u8")
        head["version"], head["next"], head["hops"] = 0x60000000, 6, 64
        head["control"], head["window"] = 0x5018, 65535
        for number, way in enumerate(known):
            if way is not None and not way.ipv4:
                head["addresses"][number] = way.addresses
                head["source"][number], head["target"][number] = way.ports
                sums[number] = way.fixed_sum % 65535 + 0x5018 + 65541
                ended[number] = 1 + way.other.ended
        return head.view(f"V{_SEGMENT.itemsize}"), sums, ended


def _windows(whole: Buffer | bytearray, size: int) -> Any:
    """Return a view of the ``size`` bytes from each byte on: numpy copies bytes faster than fields."""
    return np.ndarray((max(0, len(whole) - size + 1),), f"V{size}", whole, 0, (1,))


def _starts(words: Any) -> Any:
    """Return the bytes at which our packets' blocks begin, each where the one before says that it ends."""
    end = len(words) - (_HEAD_AT + _HEAD.itemsize) // 4 + 8  # of what may be a whole head
    found = np.flatnonzero(words[7 : max(7, end)] == _PREFIX)
    found = found[words[found] == EPB].astype("i8") * 4
    if not len(found) or found[0]:
        return found[:0]
    follows = found[:-1] + words[found[:-1] // 4 + 1] == found[1:]
    return found if follows.all() else found[: int(follows.argmin()) + 1]


def _sums(words: Any, first: Any, lengths: Any) -> Any:
    """Return the big-endian sums, modulo 65535, of the ``lengths`` bytes from each word ``first`` on.

    There, swapping the bytes of a sum multiplies it by 256.
    """
    last = first + lengths // 4
    borders = np.stack((first, last), 1).reshape(-1)
    sums = np.where(last > first, np.add.reduceat(words, borders, dtype="u8")[::2], np.uint64(0))
    rest = (np.uint64(1) << (lengths % 4).astype("u8") * np.uint64(8)) - np.uint64(1)
    return (sums + (words[last] & rest)) % np.uint64(65535) * np.uint64(256)


def run(
    data: Buffer, at: int, interface: bytes, longest: int, ways: Mapping[tuple[int, int], Way]
) -> tuple[bytes, int, int]:
    """Return the packets of the usual blocks from ``at`` on, their number, and how many bytes they took."""
    found = Run(data, at, longest)
    if not found.count or found.interface != int.from_bytes(interface, "little"):
        return b"", 0, 0
    return found.segments(ways)
