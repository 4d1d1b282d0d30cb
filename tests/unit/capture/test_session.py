"""A capture's end: what is in the ring then, and what is still being written to it."""

from __future__ import annotations

from typing import Any

from unixsock_bpf.capture import session
from unixsock_bpf.capture.session import Capture


class Ring:
    """A ring whose batches are given beforehand; ``None``: the next record is not ended yet."""

    def __init__(self, batches: list[list[bytes] | None]) -> None:
        self.batches = batches
        self.released = 0

    def take(self, *_: object) -> list[bytes]:
        return (self.batches.pop(0) or []) if self.batches else []

    def release(self) -> None:
        self.released += 1

    @property
    def empty(self) -> bool:
        return not self.batches


def rest_of(ring: Ring) -> list[Any]:
    capture = Capture.__new__(Capture)
    capture._ring = ring  # type: ignore[assignment]
    return [list(batch) for batch in capture._rest()]


def test_what_comes_behind_a_record_in_the_making_is_taken_too() -> None:
    ring = Ring([[b"one"], None, None, [b"two", b"three"], None, [b"four"]])
    assert rest_of(ring) == [[b"one"], [b"two", b"three"], [b"four"]]
    assert ring.released == 3


def test_a_record_that_never_ends_is_not_waited_for(monkeypatch: Any) -> None:
    class Stuck(Ring):
        @property
        def empty(self) -> bool:
            return False

    monkeypatch.setattr(session, "LAST_RECORD_WAIT_S", 0.01)
    assert rest_of(Stuck([[b"one"]])) == [[b"one"]]
