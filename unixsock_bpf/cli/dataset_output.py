"""A dataset as what a dump writes to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from unixsock_bpf.cli.arguments import limits
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.formats.pcapng import Block, Host, interface_of, is_packet, packet_of

#: The format's name; it has a folder, so it is not among the writers of formats/registry.py.
PARQUET = "parquet"


def check(arguments: argparse.Namespace) -> None:
    """Check before a capture begins.  Raises Failure without a folder, and ImportError without pyarrow."""
    import unixsock_bpf.dataset.writer  # noqa: F401

    if arguments.output in (None, "-"):
        raise Failure("format parquet writes many files: give -w FOLDER", 2)
    if arguments.ring_buffer:
        raise Failure("format parquet has no ring buffer of files (-b): use --rotate-size, --rotate-age", 2)


class DatasetRecording:
    """A folder of Parquet files."""

    pipe: int | None = None
    each_second: Callable[[], None] | None = None

    def __init__(self, path: str, arguments: argparse.Namespace, hosts: Sequence[Host]) -> None:
        """Make the folder.  ``hosts``: of the capture's interfaces; none: this one.  Raises Failure."""
        from unixsock_bpf.dataset.writer import DatasetWriter

        self._hosts = [host.name for host in hosts] or [os.uname().nodename]
        try:
            self._writer = DatasetWriter(path, self._hosts[0], limits(arguments))
        except UnixsockError as error:
            raise Failure(str(error)) from None
        self._writer.rotate_by_age()

    def write(self, blocks: Sequence[Block]) -> None:
        """Add packets.  Raises Failure."""
        try:
            for block in filter(is_packet, blocks):
                packet = packet_of(block)
                self._writer.add(packet.time_ns, packet.data, self._hosts[interface_of(block)])
        except UnixsockError as error:
            raise Failure(str(error)) from None

    def end(self, lost: int, left_out: str) -> None:
        """Close all files.  Raises Failure."""
        try:
            self._writer.close()
        except UnixsockError as error:
            raise Failure(str(error)) from None
