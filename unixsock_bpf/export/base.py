"""What an export format is: a generator that turns the records of a saved capture into pieces of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from unixsock_bpf.dataset.limits import Limits
from unixsock_bpf.formats.reader import SavedCapture


@dataclass
class Options:
    """What an export may depend on.

    ``path`` is the capture's, for tshark.  ``host``, ``dissect`` and ``limits`` are for datasets.
    ``notes`` collects sentences on what could not be exported.
    """

    path: str = ""
    display_filter: str | None = None
    host: str | None = None
    dissect: bool = False
    limits: Limits = field(default_factory=Limits)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportFormat:
    """An export format by its name: of one file, or of a folder.

    ``pieces`` yields the bytes of the file; it does no output itself.  ``into`` writes files below a folder.
    ``binary``: not for a terminal.
    """

    name: str
    pieces: Callable[[SavedCapture, Options], Iterator[bytes]] | None = None
    into: Callable[[SavedCapture, str, Options], None] | None = None
    binary: bool = False
