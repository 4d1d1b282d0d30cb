"""A dataset as the output of a dump: what ``Output`` is for files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from unixsock_bpf.cli.arguments import limits
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.formats.base import Format
from unixsock_bpf.formats.pcapng import Block, is_packet, packet_of

#: The format's name; it has a folder, so it is not among the writers of formats/registry.py.
PARQUET = "parquet"


class _Blocks:
    """Passes packets on as they are."""

    def header(self) -> list[Block]:
        return []

    def pieces(self, blocks: Sequence[Block]) -> list[Block]:
        return [block for block in blocks if is_packet(block)]

    def trailer(self, time_ns: int, captured: int, lost: int, comment: str = "") -> list[Block]:
        return []


def parquet_format(arguments: argparse.Namespace) -> Format:
    """Return the format.  Raises Failure without a folder, and ImportError without pyarrow."""
    import unixsock_bpf.dataset.writer  # noqa: F401  a capture shall not begin without it

    if arguments.output in (None, "-"):
        raise Failure("format parquet writes many files: give -w FOLDER", 2)
    return Format(PARQUET, lambda _: _Blocks(), binary=True)


class DatasetOutput:
    """A folder of Parquet files."""

    is_pipe = is_terminal = False
    fd = None

    def __init__(self, path: str, arguments: argparse.Namespace) -> None:
        """Make the folder.  Raises Failure."""
        from unixsock_bpf.dataset.writer import DatasetWriter

        self._host = arguments.host or os.uname().nodename
        try:
            self._writer = DatasetWriter(path, self._host, limits(arguments))
        except UnixsockError as error:
            raise Failure(str(error)) from None
        self._writer.rotate_by_age()

    def write(self, pieces: Sequence[Block]) -> None:
        """Add packets.  Raises Failure."""
        try:
            for block in pieces:
                packet = packet_of(block)
                self._writer.add(packet.time_ns, packet.data, self._host)
        except UnixsockError as error:
            raise Failure(str(error)) from None

    def close(self) -> None:
        """Close all files.  Raises Failure."""
        try:
            self._writer.close()
        except UnixsockError as error:
            raise Failure(str(error)) from None
