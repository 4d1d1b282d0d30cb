"""What a capture waits for, without a capture."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

import pytest
from patience import soon

from unixsock_bpf.capture.poller import Poller


class Waiter(Poller):
    """Waits as captures do."""

    def turn(self, seconds: float = 5.0) -> list[int]:
        return self._dispatch(self._poll.poll(seconds * 1000))

    def others(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def close(self) -> None:
        self._close()

    @property
    def stopped(self) -> bool:
        return self._stopped


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    one = Waiter()
    yield one
    one.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_callbacks_get_what_happened_and_others_are_told(waiter: Waiter, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    waiter.watch(pipe[1], select.POLLOUT, seen.append)
    waiter.others(pipe[0])
    os.write(pipe[1], b"x")
    assert waiter.turn() == [pipe[0]]
    assert seen == [select.POLLOUT]


def test_a_callback_may_end_its_own_watch_and_it_may_be_ended_twice(
    waiter: Waiter, pipe: tuple[int, int]
) -> None:
    seen: list[int] = []

    def once(happened: int) -> None:
        seen.append(happened)
        waiter.unwatch(pipe[1])

    waiter.watch(pipe[1], select.POLLOUT, once)
    assert waiter.turn() == waiter.turn(0) == []
    waiter.unwatch(pipe[1])
    assert seen == [select.POLLOUT]
    waiter.watch(pipe[1], select.POLLOUT, once)
    waiter.unwatch_all()
    waiter.unwatch(pipe[1])
    assert waiter.turn(0) == []
    assert len(seen) == 1


def test_watching_again_changes_what_is_looked_for(waiter: Waiter, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    waiter.watch(pipe[1], 0, seen.append)
    waiter.turn(0)
    assert seen == []
    waiter.watch(pipe[1], select.POLLOUT, seen.append)
    waiter.turn()
    assert seen == [select.POLLOUT]


def test_stop_ends_the_wait_from_another_thread(waiter: Waiter) -> None:
    threading.Timer(0.1, waiter.stop).start()
    began = time.monotonic()
    assert waiter.turn() == []
    assert time.monotonic() - began < soon(4)
    assert waiter.stopped
    for _ in range(100_000):  # more than the pipe holds
        waiter.wake_up()
    assert waiter.turn() == []


def test_each_second_is_called_about_once_a_second(waiter: Waiter) -> None:
    called: list[float] = []
    waiter.each_second = lambda: called.append(time.monotonic())
    while len(called) < 3:
        waiter.turn(0.02)
    assert called[1] - called[0] >= 1.0
    assert called[2] - called[1] >= 1.0
