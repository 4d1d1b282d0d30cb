"""No rule by content takes noise or other protocols' bytes: a wrong guess costs more than none."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from captures import conversation, write
from conftest import Tshark
from protocol_samples import SAMPLES

from unixsock_bpf.record import Flag, Record, SocketType

MEGABYTE = 1 << 20
ODD = b"/tmp/odd/name"


def _words(chance: random.Random) -> bytes:
    words = (
        "the",
        "Status",
        "of",
        "GETTING",
        "set",
        "x=1;",
        "{",
        "}",
        "#",
        "OK.",
        "error:",
        "-e",
        "<13",
        "HTTP",
    )
    return " ".join(chance.choice(words) for _ in range(MEGABYTE // 4)).encode()


def _numbers(chance: random.Random, form: str) -> bytes:
    return b"".join(
        struct.pack(form, chance.choice((0, 1, 2, chance.randrange(4096)))) for _ in range(MEGABYTE // 4)
    )


NOISE: dict[str, Callable[[random.Random], bytes]] = {
    "random": lambda chance: chance.randbytes(MEGABYTE),
    "ascii": lambda chance: bytes(chance.choices(range(32, 127), k=MEGABYTE)),
    "words": _words,
    "base64": lambda chance: base64.b64encode(chance.randbytes(MEGABYTE * 3 // 4)),
    "little-endian": lambda chance: _numbers(chance, "<I"),
    "big-endian": lambda chance: _numbers(chance, ">I"),
    "zeros": lambda _: bytes(MEGABYTE),
}


def apart(records: list[Record], number: int, known: bool) -> Iterator[Record]:
    """The same in a conversation of its own, seen from its start or not."""
    high = (number + 1) << 32
    for one in records:
        flags = one.flags if known else one.flags & ~Flag.FROM_START
        yield replace(one, src_sock=high | one.src_sock, dst_sock=high | one.dst_sock, flags=flags)


def payload_protocol(frame_protocols: str) -> str:
    """The protocol that took the payload, or nothing."""
    rest = frame_protocols.split(":unixsock", 1)[1]
    names = [name for name in rest.split(":") if name not in ("", "tcp", "udp", "unixsock_payload", "data")]
    return names[0] if names else ""


@pytest.mark.parametrize("kind", [SocketType.STREAM, SocketType.DGRAM], ids=["stream", "datagram"])
@pytest.mark.parametrize("name", NOISE)
def test_noise_is_no_protocol(tshark: Tshark, tmp_path: Path, name: str, kind: SocketType) -> None:
    """A megabyte in first messages of many lengths, from clients and servers."""
    chance = random.Random(name)
    data = NOISE[name](chance)
    records: list[Record] = []
    at = number = 0
    while at < len(data):
        size = chance.choice((5, 9, 16, 24, 40, 280, 2048, 8192))
        turns = [(number % 3 > 0, data[at : at + size])]
        records += apart(conversation(ODD, turns, kind, close=False), number, number % 2 > 0)
        at, number = at + size, number + 1
    rows = tshark.fields(write(tmp_path / "c.pcapng", records), "frame.protocols", "unixsock.payload")
    wrong = [row for row in rows if payload_protocol(row[0])]
    assert wrong == []


def test_other_protocols_are_not_taken_for_it(tshark: Tshark, tmp_path: Path) -> None:
    """Each message of each sample, as a conversation's first, is what it is at its own path, or nothing."""
    said: list[tuple[str, list[Record]]] = []
    for name, sample in SAMPLES.items():
        for turn in sample.turns:
            said.append((name, conversation(b"", [turn], sample.kind, close=False)))
    for known in (True, False):
        records, own = [], []
        for number, (name, one) in enumerate(said):
            records += apart([replace(r, src_name=b"", dst_name=ODD) for r in one], number, known)
            own += apart([replace(r, src_name=b"", dst_name=SAMPLES[name].path) for r in one], number, known)
        found = tshark.fields(write(tmp_path / "odd.pcapng", records), "frame.protocols", bugs=True)
        expected = tshark.fields(write(tmp_path / "own.pcapng", own), "frame.protocols", bugs=True)
        for (name, _), (one,), (right,) in zip(said, found, expected):
            taken = payload_protocol(one)
            # The first message at its path may be none that Wireshark's own dissector takes alone.
            assert taken in ("", payload_protocol(right)) or name in ALIKE.get(taken, ()), (
                name,
                known,
                taken,
            )


#: What is spoken at the sample's path by more than one dissector.
ALIKE = {
    "unixsock_json": ("varlink", "json-by-preference"),
}
