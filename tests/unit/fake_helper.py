"""The privileged part, with a ring that the test fills in place of a probe: its path, and its size.

A snaplen of 13 is refused.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, ROOT)

from unixsock_bpf.capture import Capture  # noqa: E402
from unixsock_bpf.options import Settings  # noqa: E402
from unixsock_bpf.privilege import helper  # noqa: E402
from unixsock_bpf.probe.errors import ProbeError  # noqa: E402
from unixsock_bpf.ring import Ring  # noqa: E402

PATH, SIZE = sys.argv[1], int(sys.argv[2])


def attach(capture: Capture, settings: Settings) -> tuple[object, Ring]:
    if settings.snaplen == 13:
        raise ProbeError("Thirteen is refused.")
    probe = SimpleNamespace(
        settings=[0] * 8, totals=[0] * 16, detach=lambda: None, attached="fentry", maps_can_be_read=True
    )
    return probe, Ring(os.open(PATH, os.O_RDWR), SIZE)


def replace_now(capture: Capture, settings: Settings) -> str:
    return "Thirteen is refused." if settings.snaplen == 13 else ""


Capture._attach = attach  # type: ignore[method-assign,assignment]
Capture.replace_now = replace_now  # type: ignore[method-assign]
helper.main(65534)
