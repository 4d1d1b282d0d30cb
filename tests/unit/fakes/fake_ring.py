"""A capture without a probe: its ring is a file that the test fills.  For programs that the tests start."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

sys.path.insert(0, os.path.abspath(__file__ + "/../../../.."))

from unixsock_bpf.capture.ringbuf import Ring
from unixsock_bpf.capture.session import Capture
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.options import Settings

_REFUSAL = "Thirteen is refused."


def probe() -> SimpleNamespace:
    """What Capture wants of a probe, without a hook."""
    return SimpleNamespace(
        settings=SimpleNamespace(clock_offset=0),
        totals=SimpleNamespace(lost_messages=0),
        skipped=lambda: 0,
        detach_messages=lambda: None,
        close=lambda: None,
        attached="fentry",
        maps_can_be_read=True,
        proofs=[],
        unattached=[],
        countable=set,
    )


def use(path: str, size: int) -> None:
    """From now on, captures read the ring at ``path``, of ``size`` bytes.

    A snaplen of 13 is refused; with 14, to attach takes a second.
    """

    def attach(capture: Capture, settings: Settings) -> tuple[object, Ring]:
        if settings.snaplen == 13:
            raise ProbeError(_REFUSAL)
        if settings.snaplen == 14:
            time.sleep(1)
        return probe(), Ring(os.open(path, os.O_RDWR), size)

    def replace_now(capture: Capture, settings: Settings) -> str:
        return _REFUSAL if settings.snaplen == 13 else ""

    Capture._attach = attach  # type: ignore[method-assign,assignment]
    Capture.replace_now = replace_now  # type: ignore[method-assign]
