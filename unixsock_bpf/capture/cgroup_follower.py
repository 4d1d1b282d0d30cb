"""Keeping a capture's filter right about cgroups: units start again, containers are made anew."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.options import Settings


class Followed(Protocol):
    """A capture whose filter can change."""

    #: What it captures now.
    settings: Settings

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None: ...


class CgroupFollower:
    """Looks each second which cgroups a filter's units and containers have, and changes the filter.

    It looks in a thread: there may be thousands of cgroups, and a container's engine may be slow.
    """

    def __init__(self, capture: Followed) -> None:
        self._capture = capture
        self._looking: threading.Thread | None = None
        self._found: tuple[Filter, Filter] | None = None

    def look(self) -> None:
        """Take what was found, and look again.  Called each second in the capture's thread."""
        if self._looking and self._looking.is_alive():
            return
        settings = self._capture.settings
        found, self._found = self._found, None
        if found and found[0] is settings.filter and found[1] is not settings.filter:
            self._capture.replace(dataclasses.replace(settings, filter=found[1]), lambda _: None)
        elif settings.filter.asks_for_cgroups:
            self._looking = threading.Thread(target=self._look, args=[settings.filter], daemon=True)
            self._looking.start()

    def _look(self, wanted: Filter) -> None:
        from unixsock_bpf.filter.errors import FilterError

        try:
            self._found = wanted, wanted.renewed()
        except FilterError:  # too many cgroups to compare with: the filter stays as it is
            self._found = None
