"""The bench's way of capturing: extcap, fifo and dumpcap capture or count what its generator sends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks import measure, workloads
from benchmarks.observers import Ours
from benchmarks.workloads import WORKLOADS

from unixsock_bpf import record
from unixsock_bpf.formats import pcapng

pytestmark = pytest.mark.thorough


@pytest.fixture
def observer() -> Iterator[Ours]:
    workloads.build()
    observer = Ours("fentry")
    observer.start()
    try:
        yield observer
    finally:
        if observer.processes:
            observer.stop()
        observer.forget()


def test_the_bench_captures_or_counts_what_is_sent(observer: Ours) -> None:
    began = observer.position()
    sent = 0
    for workload in (one for one in WORKLOADS if one.key in ("many", "dgram", "blast30k")):
        row = measure.one(observer, workload, 0.2)
        assert row["messages"] > row["lost"], workload.title
        sent += row["messages"]
    # Only now all has been written: on a busy machine a capture may pause for longer than the bench waits.
    observer.stop()
    captured, _ = observer.seen(began, 1)
    packets = pcapng.packets(observer.output.read_bytes())
    counted = sum(one.lost[0] for one in (record.decode(packet.data) for packet in packets) if one.lost)
    assert captured <= sent <= captured + counted
