"""The bench's way of capturing: extcap, fifo and dumpcap lose nothing that its generator says."""

from __future__ import annotations

import pytest
from benchmarks import measure, workloads
from benchmarks.observers import Ours
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def observer() -> Ours:
    workloads.build()
    return Ours("fentry")


def test_the_bench_counts_what_was_said(observer: Ours) -> None:
    observer.start()
    try:
        for workload in (one for one in WORKLOADS if one.key in ("many", "dgram", "blast30k")):
            row = measure.one(observer, workload, 0.2)
            assert row["messages"] > 0
            assert (row["lost"], row["lost_bytes"]) == (0, 0), workload.title
    finally:
        observer.stop()
        observer.forget()
