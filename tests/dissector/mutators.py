# ruff: noqa: E501 (tables of bytes)
"""Hostile payloads made from the protocols' own messages: repetition, and numbers that are too large."""

from __future__ import annotations

import re
from collections.abc import Iterator

from captures import Turn

#: Payload bytes of a large record: what the probe copies of one message at most.
SIZE = 224 * 1024

#: What separates, opens or ends messages and their parts in some protocol.
UNITS = (
    b"\n", b"\0", b"\r\n", b" ", b"{", b"[", b"[1,", b'{"a":', b'{"a":1}\n', b'{"a":1}\0', b"*1\r\n", b"*0\r\n", b"+\r\n", b"+OK\r\n",
    b"$-1\r\n", b"A=\n", b"a", b"\xff", b"\xe2\x80", b"l\1\0\1", b"\x08\0\0\0", b"\0\0\0\1",
    b"\1\0\0\0\0\0\x0c\0\5\0\0\0\1\0\0\0\1\0\x0c\0\5\0\0\0",
)  # fmt: skip

#: In a double, in 64-bit integers, with and without a sign, and beyond any.
BOMBS = (2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64, 10**400)


def filled(unit: bytes, size: int = SIZE) -> bytes:
    """``unit`` again and again, ``size`` bytes."""
    return (unit * (size // len(unit) + 1))[:size]


def repetitions(turns: list[Turn]) -> Iterator[tuple[str, bytes]]:
    """Names and payloads of a large record: each of UNITS again and again, alone and after a first message; and
    each turn."""
    for unit in UNITS:
        yield f"unit {unit!r}", filled(unit)
    for number, (_, data) in enumerate(turns):
        yield f"turn {number}", filled(data)


def with_numbers(turns: list[Turn]) -> Iterator[tuple[str, bytes]]:
    """Names and payloads: a turn in which one number is one of BOMBS, in digits or in four or eight bytes."""
    for turn, (_, data) in enumerate(turns):
        for bomb in BOMBS:
            for digits in list(re.finditer(rb"\d+", data))[:4]:
                yield (
                    f"turn {turn}, {bomb:.3g} at {digits.start()}" if bomb < 2**65 else f"turn {turn}, huge",
                    data[: digits.start()] + b"%d" % bomb + data[digits.end() :],
                )
            for size in (2, 4, 8):
                if bomb >= 256**size:
                    continue
                for order in ("little", "big"):
                    for at in range(0, min(len(data) - size + 1, 16)):
                        yield (
                            f"turn {turn}, {bomb} of {size} {order}-endian bytes at {at}",
                            data[:at] + bomb.to_bytes(size, order) + data[at + size :],
                        )
