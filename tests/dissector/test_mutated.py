"""Mutated captures through tshark with the dissector: no crash, no Lua error, no hang.

``UNIXSOCK_LONG`` (``make test-faults``) tries more; ``UNIXSOCK_HOSTILE_SEED`` other mutations.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from captures import conversation, write
from conftest import Tshark
from protocol_samples import SAMPLES

from unixsock_bpf.record import encode

ROUNDS = 40 if "UNIXSOCK_LONG" in os.environ else 2


def mutated(chance: random.Random, data: bytes) -> bytes:
    """``data`` with some bytes changed, removed or put in, or cut; now and then as it was."""
    out = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 8))):
        at = chance.randrange(len(out) + 1)
        cut = chance.choice((0, 1, 1, 1, 4))
        put = chance.choice(
            (b"", b"\0", b"\xff", b"\xff\xff\xff\x7f", chance.randbytes(1), chance.randbytes(4))
        )
        out[at : at + cut] = put
    return bytes(out[: chance.randrange(len(out) + 1)] if chance.random() < 0.05 else out)


def test_mutated_records(tshark: Tshark, tmp_path: Path) -> None:
    seed = int(os.environ.get("UNIXSOCK_HOSTILE_SEED", "7"))
    chance = random.Random(seed)
    begin = time.monotonic()
    packets = 0
    for number in range(ROUNDS):
        records = []
        for at, sample in enumerate(SAMPLES.values()):
            for one in conversation(sample.path, sample.turns, sample.kind):
                # Conversations of their own, or what one breaks would hide the others.
                one.src_sock, one.dst_sock = one.src_sock + at * 0x10000, one.dst_sock + at * 0x10000
                records += [mutated(chance, encode(one)) for _ in range(3)]
        packets += len(records)
        capture = write(tmp_path / f"{number}.pcapng", records)
        for options in (("-V",), ("-2", "-T", "json")):
            text = tshark.run(capture, *options, bugs=True)
            assert "\x1b" not in text
    print(f"seed {seed}: {packets} mutated records, read twice, in {time.monotonic() - begin:.0f} s")
