"""What repeats the output is left out, however it is passed on; what only looks like it is not."""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Callable

import pytest

from unixsock_bpf.capture.feedback import _CREDIT, Feedback
from unixsock_bpf.formats import pcapng, text
from unixsock_bpf.formats.base import Options
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.record import Event, Flag, Record, encode

START = 1_800_000_000_123_456_789
RELAY, OTHER = 55, 1234


def block(payload: bytes, at: int = START, src: int = 1, dst: int = 2, **more: int) -> bytes:
    fields = {"src_pid": 7, "src_uid": OTHER, "src_comm": b"talker", "dst_comm": b"hearer"} | more
    record = Record(
        flags=Flag.SRC_CREDS, src_sock=src, dst_sock=dst, type=1, len=len(payload), payload=payload, **fields
    )
    return pcapng.packet(at, encode(record))


def written(form: str, count: int = 3, payload: bytes = b"one message") -> tuple[Feedback, list[bytes]]:
    """A capture that has written so many records, and what it wrote for each."""
    feedback = Feedback(lambda: {RELAY})
    times = [START + 1_234_567_891 * at for at in range(count)]
    blocks = [block(payload, at) for at in times]
    assert feedback.kept(blocks) == blocks
    target = FORMATS[form].writer(Options())
    return feedback, [b"".join(map(bytes, target.pieces([one]))) for one in blocks]


def as_journald(said: bytes) -> bytes:
    return b"<30>Nov 30 13:00:00 host unixsock[7]: " + said.rstrip()


def as_json(said: bytes) -> bytes:
    return b'{"log":"' + said.replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'","stream":"stdout"}\n'


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("relayed", [bytes, as_journald, as_json, lambda said: b"\1\0\0\0\0\0\1\0" + said])
def test_a_repeated_record_is_left_out_at_once(form: str, relayed: Callable[[bytes], bytes]) -> None:
    feedback, said = written(form)
    assert feedback.kept([block(relayed(said[1]), START + 5, 3, 4, src_pid=RELAY)]) == []
    # So are the relay's other pieces, and its answers; but no other traffic.
    honest = block(b"honest", START + 8, 3, 5)
    rest = [block(b"...and so on", START + 6, 3, 4), block(b"ok", START + 7, 4, 3), honest]
    assert feedback.kept(rest) == [honest]
    size = len(relayed(said[1])) + len(b"...and so onok")
    assert (
        feedback.summary
        == f"3 records, {size} bytes, left out that repeat this output: talker[{RELAY}] to hearer[?]"
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("uid", [0, OTHER])
def test_any_relay_has_to_repeat_three(form: str, uid: int) -> None:
    feedback, said = written(form)
    times = itertools.count(START + 5)
    repeated = [block(one, next(times), 3, 4, src_uid=uid) for one in said]
    assert [len(feedback.kept([one])) for one in repeated] == [1, 1, 0]
    # The same one again and again shows nothing: it may have been guessed.
    feedback, said = written(form)
    for _ in range(9):
        assert feedback.kept([block(said[0], next(times), 3, 4)])


@pytest.mark.parametrize("size", [1, 7, 40])
def test_in_small_pieces(size: int) -> None:
    feedback, said = written("string", 1)
    pieces = [said[0][at : at + size] for at in range(0, len(said[0]), size)]
    kept = [
        bool(feedback.kept([block(one, START + 9 + at, 3, 4, src_pid=RELAY)]))
        for at, one in enumerate(pieces)
    ]
    assert kept.index(False) * size <= 40
    assert not any(kept[kept.index(False) :])


def test_tshark_tells_the_time_since_the_first() -> None:
    feedback, _ = written("string")
    line = b"    2 1.234567891 talker[7] -> hearer UNIXSOCK 11 Stream\n"
    assert feedback.kept([block(line, START + 9, 3, 4, src_pid=RELAY)]) == []


def test_what_was_not_written_is_kept() -> None:
    """The log of another capture, numbers, and honest repetition."""
    feedback, _ = written("string")
    others = (text.heading(START + 77, Record(payload=b"x")) + "\nx\n").encode()
    for said in (others, b"one message", b"1.000000001", b"%d" % START, gzip.compress(others), bytes(9999)):
        one = block(said, START + 9, 3, 4, src_pid=RELAY)
        assert feedback.kept([one]) == [one]


def test_guessing_hides_nothing() -> None:
    """All nanoseconds around a record, in one message or each in one of its own, again and again."""
    feedback, _ = written("string")
    guesses = [
        f"{(START + at) // 10**9 % 60}.{(START + at) % 10**9:09d} ".encode() for at in range(-4000, 4000)
    ]
    many = block(b"".join(guesses), START + 9, 3, 4)
    assert feedback.kept([many]) == [many]
    random.Random(1).shuffle(guesses)
    for at, guess in enumerate(guesses):
        one = block(guess, START + 10 + at * 5_000_000_019, 3, 4)
        assert feedback.kept([one]) == [one]


@pytest.mark.parametrize(("uid", "size"), [(0, 200), (OTHER, 1)])
def test_guessing_as_fast_as_one_can_hides_nothing(uid: int, size: int) -> None:
    """A message each ten microseconds: of all nanoseconds of the last tenth of a second, 10,000 are ours."""
    feedback = Feedback(lambda: {RELAY})
    chance = random.Random(1)
    now = START
    for _ in range(550):
        batch = []
        for _ in range(64):
            now += chance.randrange(5_000, 15_000)
            guess = now - chance.randrange(100_000_000)
            said = f"{guess // 10**9 % 60}.{guess % 10**9:09d}".encode().ljust(size)
            batch.append(block(said, now, 3, 4, src_uid=uid))
        assert feedback.kept(batch) == batch


def test_a_relay_may_have_had_other_stamps_to_pass_on() -> None:
    feedback, said = written("string", 40)
    times = itertools.count(START + 5)
    for at in range(100):
        assert feedback.kept([block(b"log %d.123456789" % at, next(times), 3, 4)])
    kept = [bool(feedback.kept([block(one, next(times), 3, 4)])) for one in said]
    assert kept.index(False) < 32
    assert not any(kept[kept.index(False) :])


def test_it_is_captured_again_when_it_repeats_no_more() -> None:
    feedback, said = written("string")
    told: list[str] = []
    feedback.report = told.append
    assert not feedback.kept([block(said[0], START + 9, 3, 4, src_pid=RELAY)])
    other = block(bytes(200_000), START + 10, 3, 4, src_pid=RELAY)
    turns = 0
    while not feedback.kept([other]):
        turns += 1
    assert turns * 200_000 <= _CREDIT + 200_000
    assert len(told) == 2
    assert f"talker[{RELAY}] to hearer[?]" in told[0]
    assert "no longer" in told[1]


def test_closes_of_what_is_left_out_are_left_out() -> None:
    feedback, said = written("string")
    assert not feedback.kept([block(said[0], START + 9, 3, 4, src_pid=RELAY)])
    assert not feedback.kept([block(b"", START + 10, 4, 3, event=Event.CLOSE)])


def test_a_busy_machine_is_looked_at_in_part() -> None:
    feedback, said = written("string", 40)
    batch = [block(b"x" * 64, START + at, 8, 9) for at in range(900)]
    assert feedback.kept(batch) == batch
    batch[400:430] = [block(one, START + at, 3, 4, src_pid=RELAY) for at, one in enumerate(said[:30])]
    assert len(feedback.kept(batch)) == 870
