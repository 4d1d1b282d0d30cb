"""The usual packets of a capture as TCP segments, many at once with numpy, as ``tcp`` makes them one by one.

A run is consecutive blocks with our packets, of one interface.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import chain
from typing import Any, Protocol

import numpy as np

from unixsock_bpf.formats.pcapng import EPB, PACKET_PREFIX, Buffer
from unixsock_bpf.record import HEADER, HEADER_LEN, VERSION, Event, Flag, SocketType

#: Blocks that are looked at together.
_MOST = 4096
_LENGTH = struct.Struct("<I")
_BLOCK = [("kind", "<u4"), ("length", "<u4"), ("interface", "<u4"), ("high", "<u4"), ("low", "<u4")]
_HEAD = np.dtype(
    [
        *_BLOCK,
        ("block_caplen", "<u4"),
        ("block_len", "<u4"),
        ("prefix", f"S{len(PACKET_PREFIX)}"),
        *((name, "<" + {"B": "u1", "H": "u2", "I": "u4", "Q": "u8"}[fmt]) for name, fmt, _ in HEADER),
    ]
)
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
        self._data = data
        offsets = _offsets(data, at)
        self.count = 0
        if not offsets:
            return
        self._at = np.array(offsets, "i8")
        whole = np.frombuffer(data, "u1")
        head = _windows(whole, _HEAD.itemsize)[self._at].view(_HEAD)[:, 0]
        ends = self._at + head["length"]
        trailers = _windows(whole, 4)[np.minimum(ends, len(whole)) - 4].view("<u4")[:, 0]
        size = head["header_len"].astype("i8") + head["caplen"]
        usual = (head["kind"] == EPB) & (head["interface"] == head["interface"][0])
        usual &= (ends <= len(whole)) & (head["length"] % 4 == 0) & (trailers == head["length"])
        usual &= head["prefix"] == PACKET_PREFIX.rstrip(b"\0")
        usual &= head["block_caplen"].astype("i8") + 32 <= head["length"]
        usual &= head["high"] < 1_000_000_000  # before 2106
        usual &= (head["version"] == VERSION) & (head["header_len"] >= HEADER_LEN)
        usual &= size + len(PACKET_PREFIX) <= head["block_caplen"]
        usual &= (head["event"] == Event.DATA) & (head["type"] == SocketType.STREAM)
        usual &= (head["flags"] & Flag.OOB.value == 0) & (head["caplen"] > 0) & (head["caplen"] <= longest)
        self.count = len(offsets) if usual.all() else int(usual.argmin())
        self._head, self._ends = head[: self.count], ends
        keys = self._head["src_sock"] * np.uint64(0x9E3779B97F4A7C15) ^ self._head["dst_sock"]
        _, first, self._flow = np.unique(keys, return_index=True, return_inverse=True)
        pairs = [(int(self._head["src_sock"][at]), int(self._head["dst_sock"][at])) for at in first]
        self._pairs = pairs
        for name, side in (("src_sock", 0), ("dst_sock", 1)):
            if (np.array([pair[side] for pair in pairs], "u8")[self._flow] != self._head[name]).any():
                self.count = 0  # two conversations of one hash

    @property
    def interface(self) -> int:
        """The number of the blocks' interface in its section."""
        return int(self._head["interface"][0])

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
        data = self._data
        payloads = [data[begin:end] for begin, end in zip(begins.tolist(), ends.tolist())]
        sums = np.array([int.from_bytes(payload, "big") % 65535 for payload in payloads], "u8")
        table = self._table(known)
        out: Any = np.empty(count, _SEGMENT)
        time = head["high"].astype("u8") << np.uint64(32) | head["low"]
        out["second"], out["rest"] = time // np.uint64(1_000_000_000), time % np.uint64(1_000_000_000)
        size = head["caplen"].astype("u8") + np.uint64(20)
        out["caplen"] = out["length"] = size + np.uint64(40)
        out["version"], out["size"], out["next"], out["hops"] = 0x60000000, size, 6, 64
        for name in ("addresses", "source", "target"):
            out[name] = table[name][flow]
        position = head["seq"] + head["offset"]
        seq = position + np.uint64(1) & np.uint64(0xFFFFFFFF)
        ack = head["ack"] + np.uint64(1) + table["ended"][flow] & np.uint64(0xFFFFFFFF)
        out["seq"], out["ack"] = seq, ack
        out["control"], out["window"], out["urgent"] = 0x5018, 65535, 0
        sums = np.where(head["caplen"] % 2 == 1, sums * np.uint64(256), sums)
        total = table["sum"][flow] + np.uint64(0x5018 + 65541) + size + seq + ack + sums
        out["checksum"] = np.uint64(65535) - total % np.uint64(65535)
        last = np.empty(len(known), "i8")
        last[flow] = np.arange(count)
        for number in set(flow.tolist()):
            way, at = known[number], int(last[number])
            assert way is not None
            way.seen = int(head["seq"][at]) + int(head["offset"][at]) + int(head["caplen"][at])
        heads, width = out.tobytes(), _SEGMENT.itemsize
        pieces = (heads[at : at + width] for at in range(0, count * width, width))
        return b"".join(chain.from_iterable(zip(pieces, payloads))), count, int(self._ends[count - 1])

    def _table(self, known: list[Way | None]) -> Any:
        """Return what is the same in all packets of each direction."""
        kinds = [("addresses", "V32"), ("source", "u2"), ("target", "u2"), ("sum", "u8"), ("ended", "u8")]
        table = np.zeros(len(known), kinds)
        for number, way in enumerate(known):
            if way is not None and not way.ipv4:
                row = (way.addresses, *way.ports, way.fixed_sum % 65535, int(way.other.ended))
                table[number] = row
        return table


def _windows(whole: Any, size: int) -> Any:
    """Return a view of each ``size`` consecutive bytes."""
    return np.lib.stride_tricks.as_strided(whole, (len(whole) - size + 1, size), (1, 1), writeable=False)


def _offsets(data: Buffer, at: int) -> list[int]:
    """Return where the next blocks may begin: each is where the one before says that it ends."""
    found = []
    unpack, last = _LENGTH.unpack_from, len(data) - _HEAD.itemsize - 4
    for _ in range(_MOST):
        if at > last:
            break
        found.append(at)
        at += unpack(data, at + 4)[0]
    return found


def run(
    data: Buffer, at: int, interface: bytes, longest: int, ways: Mapping[tuple[int, int], Way]
) -> tuple[bytes, int, int]:
    """Return the packets of the usual blocks from ``at`` on, their number, and where they end."""
    found = Run(data, at, longest)
    if not found.count or found.interface != int.from_bytes(interface, "little"):
        return b"", 0, 0
    return found.segments(ways)
