"""What the probe sends through sockets of its own, and what follows from what its hooks saw."""

from __future__ import annotations

import socket

import pytest

from unixsock_bpf.probe import self_test
from unixsock_bpf.probe.hook_table import HOOKS, URGENT
from unixsock_bpf.probe.self_test import Proof


class Counter:
    """Stands for the probe: it sees ``seen`` bytes of each message."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seen: int) -> None:
        self.announced: list[int] = []
        self.bytes = 0
        self._seen = seen
        send, splice = self_test._write, self_test._splice

        def count(sender: socket.socket) -> int:
            self.bytes += self._seen
            return send(sender)

        def count_spliced(sender: socket.socket) -> int:
            self.bytes += self._seen
            return splice(sender)

        monkeypatch.setattr(self_test, "_write", count)
        monkeypatch.setattr(self_test, "_splice", count_spliced)

    def run(self, urgent: bool = False) -> list[Proof]:
        return list(self_test.proofs(self.announced.append, lambda: self.bytes, urgent))


WAYS = [f"{kind}, {way}" for kind in ("stream", "dgram", "seqpacket") for way in ("write", "splice")]


def test_all_types_are_written_to_and_spliced_into(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch, len(self_test._DATA))
    proofs = counter.run()
    assert [proof.way for proof in proofs] == WAYS
    assert all(proof.holds for proof in proofs)
    assert len(set(counter.announced)) == 4
    assert counter.announced[-1] == 0


@pytest.mark.parametrize("seen", [0, 1, 16])
def test_what_is_seen_in_part_or_twice_does_not_hold(monkeypatch: pytest.MonkeyPatch, seen: int) -> None:
    proofs = Counter(monkeypatch, seen).run(urgent=True)
    assert not any(proof.holds for proof in proofs)
    assert {proof.way for proof in proofs} == {*WAYS, URGENT}


def test_each_way_has_a_hook() -> None:
    named = {way for hook in HOOKS for way in hook.proves}
    assert named <= {*WAYS, URGENT}
