"""Format ``pcapng``: a capture's blocks as they are, between a file's first and last blocks."""

from __future__ import annotations

from collections.abc import Sequence

from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.base import Format, Options
from unixsock_bpf.formats.pcapng import Block


class PcapngWriter:
    """Writes a file with an interface for each host; its statistics come last.

    Those of other hosts are among the blocks.
    """

    def __init__(self, options: Options) -> None:
        self._options = options

    def header(self) -> list[Block]:
        options = self._options
        return [pcapng.file_header(options.snaplen, options.capture_filter, options.hosts)]

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        return list(blocks)

    def trailer(self, time_ns: int, captured: int, lost: int, comment: str = "") -> list[Block]:
        if self._options.hosts:
            return []
        return [pcapng.statistics(time_ns, captured, lost, comment=comment)]


FORMAT = Format("pcapng", PcapngWriter, binary=True)
