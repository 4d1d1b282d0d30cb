"""When the ring is read, on a machine whose clocks the test sets."""

from __future__ import annotations

import pytest

from unixsock_bpf.capture.read_scheduler import LATEST, LITTLE, LOOK, REST, IdleTime, ReadScheduler

SIZE = 64 << 20
#: Bytes that a burst leaves in the ring.
MUCH = 4_000_000


class Machine:
    """Time passes as told, of which ``spare`` processors are idle."""

    def __init__(self, spare: float, processors: int = 2) -> None:
        self.time, self.idle, self.spare = 100.0, 0.0, spare
        self.pace = ReadScheduler(SIZE, lambda: self.idle, lambda: self.time, processors)

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.idle += seconds * self.spare

    def reads(self, size: int, took: float, left: int = 0) -> None:
        began = self.time
        self.passes(took)
        self.pace.done(began, size + left, size, left)

    def left_alone(self, waiting: int, growing: int = 8) -> float:
        """Seconds until it says that ``waiting`` bytes should be read, and ``growing`` more at each look."""
        began = self.time
        while rest := self.pace.rest(waiting):
            assert rest > 0
            self.passes(max(rest, 1e-4))
            waiting += growing
            assert self.time < began + 10
        return self.time - began


@pytest.fixture
def busy() -> Machine:
    """All processors are in use, and the last batch was large."""
    machine = Machine(spare=0)
    machine.reads(100_000, 0.02)
    return machine


def test_the_first_message_is_read_at_once() -> None:
    assert Machine(spare=0).left_alone(300) == 0


def test_a_burst_waits_while_no_processor_is_idle_but_not_for_ever(busy: Machine) -> None:
    assert LATEST - 0.02 - LOOK < busy.left_alone(MUCH) < LATEST + LOOK


def test_a_burst_that_is_over_is_read_at_the_next_look(busy: Machine) -> None:
    assert busy.left_alone(MUCH, growing=0) < 0.06 + 2 * LOOK


def test_what_is_late_is_read_until_the_ring_is_empty(busy: Machine) -> None:
    busy.left_alone(MUCH)
    busy.reads(100_000, 0.02, left=MUCH)
    assert busy.left_alone(MUCH) == pytest.approx(0.06, abs=0.001)  # the usual rest
    busy.reads(100_000, 0.02)
    assert busy.left_alone(MUCH) > LATEST / 2


@pytest.mark.parametrize(("spare", "processors"), [(0.8, 1), (1.3, 2), (1.3, 8)])
def test_an_idle_processor_reads_after_the_usual_rest(spare: float, processors: int) -> None:
    machine = Machine(spare, processors)
    machine.reads(100_000, 0.02)
    assert machine.left_alone(MUCH) == pytest.approx(0.06, abs=0.001)
    machine.reads(100, 0.0001)
    assert machine.left_alone(MUCH) == pytest.approx(LOOK, abs=0.001)  # time enough to see that it is idle


def test_the_gaps_of_two_who_wait_for_each_other_are_none() -> None:
    machine = Machine(spare=1)
    machine.reads(100_000, 0.02)
    assert machine.left_alone(MUCH) > LATEST / 2


def test_a_ring_that_fills_up_is_read_at_once(busy: Machine) -> None:
    assert busy.left_alone(SIZE // 2 + 8) == 0


def test_a_ring_that_would_fill_up_before_the_next_look_is_read_at_once(busy: Machine) -> None:
    busy.passes(2 * LOOK)
    assert busy.pace.rest(SIZE // 3 - 8)
    assert not busy.pace.rest(SIZE // 3 + 8)


def test_a_little_is_read_without_asking() -> None:
    machine = Machine(spare=0)
    machine.reads(1000, 0.0001)
    assert machine.left_alone(1000) == pytest.approx(REST[0], abs=0.001)
    assert REST[0] * LITTLE > 0.0001


def test_the_kernel_tells_idle_time() -> None:
    idle = IdleTime()
    try:
        assert 0 <= idle() <= idle()
    finally:
        idle.close()
