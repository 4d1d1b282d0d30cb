"""The capture filter in the kernel: two places, of which the generation's number in settings names one.

A change fills the other place and then writes the number, which each program reads once for a message: so
each message goes by one filter or the other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter.encode import MAX_LANES
from unixsock_bpf.probe import bpf_syscall

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.probe.maps import Map


class FilterMaps:
    """Maps ``filters`` and ``filter_lanes``.  Raises ProbeError."""

    def __init__(self, filters: Map, lanes: Map) -> None:
        self._filters, self._lanes = filters, lanes
        self._waiting: int | None = None

    def fill(self, generation: int, filter_: Filter, events: bool) -> None:
        """Put a filter where programs will look for that of ``generation``.  Raises ProbeError.

        ``events``: whether records other than data and close are wanted.
        """
        place = generation & 1
        try:
            self._wait_for_programs()
            for number, lane in enumerate(filter_.lanes):
                bpf_syscall.update(self._lanes.fd, place * MAX_LANES + number, lane)
            bpf_syscall.update(self._filters.fd, place, filter_.head(events))
        except OSError as error:
            raise ProbeError(f"The kernel refused the capture filter: {error.strerror}.") from None

    def _wait_for_programs(self) -> None:
        """Wait until no program runs that began with an earlier generation's number.

        The kernel does so after each change of a map of maps, so that who changes one knows that all
        programs use the new map (maybe_wait_bpf_programs in kernel/bpf/syscall.c).
        """
        if self._waiting is None:
            self._waiting = bpf_syscall.array_of_maps(self._filters.fd)
        bpf_syscall.update(self._waiting, 0, self._filters.fd.to_bytes(4, "little"))

    def close(self) -> None:
        """Close what it holds besides the maps."""
        if self._waiting is not None:
            os.close(self._waiting)
            self._waiting = None
