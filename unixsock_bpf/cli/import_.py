"""``unixsock import``: files of other programs as a capture of ours."""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Callable, Iterator
from typing import Any

from unixsock_bpf.cli.errors import Failure, reason, say
from unixsock_bpf.cli.long_work import LongWork
from unixsock_bpf.cli.output import Output
from unixsock_bpf.foreign import sockdump, strace
from unixsock_bpf.foreign.conversations import ForeignError
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.pcapng import Buffer
from unixsock_bpf.record import Record, encode
from unixsock_bpf.version import __version__

_SOURCES: dict[str, Any] = {"sockdump": sockdump, "strace": strace}
#: Bytes of a file by which its kind is found.
_HEAD = 1 << 16
_BATCH = 1000


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    text = "turn files of sockdump or strace into a capture"
    parser = commands.add_parser(
        "import",
        help=text,
        description=text + ", as far as they tell: sockdump's pcaps, and logs of strace -f -xx -yy",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="what sockdump --format pcap or strace -o wrote")
    parser.add_argument(
        "--from", dest="source", choices=tuple(_SOURCES), help="default: what the file looks like"
    )
    parser.add_argument(
        "-w", "--output", metavar="OUTPUT", required=True, help="the pcapng file; - is standard output"
    )
    parser.set_defaults(run=run)


def _content(path: str) -> Buffer:
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            return file.read()


def run(arguments: argparse.Namespace) -> int:
    """Import.  Raises Failure."""
    try:
        data = _content(arguments.file)
    except OSError as error:
        raise Failure(f"cannot read {arguments.file}: {reason(error)}") from None
    head = bytes(data[:_HEAD])
    names = (
        [arguments.source]
        if arguments.source
        else [name for name in _SOURCES if _SOURCES[name].recognise(head)]
    )
    if not names or (names == ["sockdump"] and not sockdump.recognise(head)):
        what = (
            "a pcap of sockdump's" if arguments.source else "neither a pcap of sockdump's nor a log of strace"
        )
        raise Failure(f"cannot import {arguments.file}: it is {'not ' if arguments.source else ''}{what}")
    problem = ""
    count = 0
    with LongWork(f"importing {arguments.file}") as work:
        output: Output | None = None
        for pieces in _pieces(_SOURCES[names[0]].records, data, lambda at: work.show(at, len(data))):
            if isinstance(pieces, str):
                problem = pieces
                break
            if output is None:
                output = Output(arguments.output, [arguments.file])
                output.write([_file_header(names[0])])
            output.write(pieces)
            count += len(pieces)
        if output:
            output.close()
    work.tell_end()
    if problem:
        rest = f"; the {count} records before that were imported" if count else ""
        raise Failure(f"cannot import {arguments.file}: {problem}{rest}")
    if not count and not work.stopped:
        raise Failure(
            f"cannot import {arguments.file}: it has no message of a Unix socket; strace needs -yy -xx"
        )
    say(f"unixsock: {count} records imported")
    return 0


def _file_header(source: str) -> bytes:
    """Return a file's first blocks; the machine that the file is of is not known."""
    section = pcapng.section_header("", "", f"unixsock {__version__} import of {source}")
    return section + pcapng.interface("unixsock", "Unix sockets", 0)


def _pieces(
    records: Callable[[Buffer, Callable[[int], bool]], Iterator[tuple[int, Record]]],
    data: Buffer,
    tick: Callable[[int], bool],
) -> Iterator[list[bytes] | str]:
    """Yield blocks in batches; a text is the sentence on why there are no more."""
    batch: list[bytes] = []
    try:
        for time_ns, record in records(data, tick):
            batch.append(pcapng.packet(time_ns, encode(record)))
            if len(batch) >= _BATCH:
                yield batch
                batch = []
    except ForeignError as error:
        if batch:
            yield batch
        yield str(error)
        return
    if batch:
        yield batch
