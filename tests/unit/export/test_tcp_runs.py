"""Packets that are taken many at once come out as those that are taken one by one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from dissector.captures import conversation, side, write
from exports.big_capture import write as write_big

from unixsock_bpf.export import tcp, tcp_runs
from unixsock_bpf.export.base import Options
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.record import Event, Flag, Record, encode

CAPTURES = sorted((Path(__file__).parents[2] / "dissector/captures").glob("*.pcapng"))


def exported(path: Path) -> tuple[bytes, str, int]:
    capture = SavedCapture(str(path), forgiving=True)
    data = b"".join(tcp._pieces(capture, Options(str(path))))
    return data, capture.problem, capture.count


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch):
    """Compares both ways, with a run looked for after each packet; gives how many packets runs had."""
    taken = []
    original = tcp_runs.Run.segments

    def segments(self: tcp_runs.Run, ways):
        found = original(self, ways)
        taken.append(found[1])
        return found

    def check(path: Path) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(tcp, "_run", lambda: None)
            expected = exported(path)
        taken.clear()
        with monkeypatch.context() as patch:
            patch.setattr(tcp, "_FEW", 0)
            patch.setattr(tcp, "_LONGEST_WAIT", 0)
            patch.setattr(tcp_runs.Run, "segments", segments)
            assert exported(path) == expected
        return sum(taken)

    return check


def test_real_captures(same) -> None:
    assert sum(map(same, CAPTURES)) > 100


def test_a_large_one(same, tmp_path: Path) -> None:
    assert same(write_big(tmp_path / "a.pcapng", 12_000, conversations=5)) > 11_900


def mixture(seed: int) -> list[Record | bytes]:
    """Conversations that mingle, with losses, ends, odd lengths, records of other kinds, and nonsense."""
    chance = random.Random(seed)
    records: list[Record | bytes] = []
    for number in range(6):
        turns = [
            (chance.random() < 0.5, chance.randbytes(chance.choice((0, 1, 1, 7, 7, 200, 200, 33_000))))
            for _ in range(40)
        ]
        for one in conversation(chance.choice((b"/run/x", b"/run/mysql.sock")), turns):
            moved = replace(one, src_sock=one.src_sock + 5 * number, dst_sock=one.dst_sock + 5 * number)
            if chance.random() < 0.05:
                moved.flags |= Flag.OOB
            if chance.random() < 0.05:
                moved.seq = (1 << 64) - chance.randrange(1, 99)
            if chance.random() < 0.95:
                records.append(moved)
        records.append(replace(side(True, b"/x"), event=Event.SHUTDOWN, how=1))
    chance.shuffle(records)
    records.insert(chance.randrange(len(records)), b"\x01\x00\x70\x00" + bytes(20))
    return records


@pytest.mark.parametrize("seed", range(2))
def test_mixtures(same, seed: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", mixture(seed))
    same(path)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for number in range(12):
        odd = bytearray(data)
        at = chance.randrange(300, len(data)) // 4 * 4
        odd[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x06\0\0\0", b"\x01\0\0\0"))
        if number % 3 == 0:
            del odd[chance.randrange(300, len(odd)) :]
        path.write_bytes(odd)
        same(path)


def test_files_that_end_anywhere(same, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", conversation(b"/run/x", [(True, b"x" * 9), (False, b"y" * 8)] * 2))
    whole = path.read_bytes()
    for end in range(len(whole) - 500, len(whole)):
        path.write_bytes(whole[:end])
        same(path)


def test_interfaces_of_other_units(same, tmp_path: Path) -> None:
    """A run ends where another interface's packets begin."""
    parts = [pcapng.section_header("", "", ""), pcapng.interface("x", "", 0), pcapng.interface("y", "", 0)]
    microseconds = pcapng.block(pcapng.IDB, b"\xfc\0\0\0\0\0\0\0")
    parts.append(microseconds)
    for number, one in enumerate(conversation(b"/run/x", [(True, b"x" * at) for at in range(1, 60)])):
        parts.append(pcapng.packet(number * 1000, encode(one), number // 7 % 3))
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(parts))
    assert same(path) > 20
