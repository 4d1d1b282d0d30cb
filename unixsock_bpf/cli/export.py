"""``unixsock export``: a saved capture in the form that another tool reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from unixsock_bpf.cli.arguments import add_limits, limits
from unixsock_bpf.cli.errors import Failure, reason, say
from unixsock_bpf.cli.long_work import LongWork
from unixsock_bpf.cli.output import Output
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.registry import FORMATS
from unixsock_bpf.formats.reader import SavedCapture, SavedError
from unixsock_bpf.wireshark.tshark import frame_numbers

_EXAMPLES = """\
examples:
  unixsock export db.pcapng --format tcp -w db.pcap
  unixsock export bus.pcapng -Y 'dbus.member' --format mermaid
  unixsock export web.pcapng --format raw -w streams/
"""


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    text = "turn a saved capture into what another tool reads, or into test fixtures"
    parser = commands.add_parser(
        "export",
        help=text,
        description=text,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="a pcapng or pcap file")
    parser.add_argument(
        "-Y", "--display-filter", metavar="DISPLAY_FILTER", help="export only packets that match"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="json", help="default: json")
    parser.add_argument(
        "-w", "--output", metavar="OUTPUT", default="-", help="a file, or a folder; default: standard output"
    )
    dataset = parser.add_argument_group("for parquet")
    dataset.add_argument("--host", metavar="NAME", help="the host that the capture is of, if it does not say")
    dataset.add_argument(
        "--dissect", action="store_true", help="add protocol, method, info and response time"
    )
    add_limits(dataset)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export.  Raises Failure."""
    form = FORMATS[arguments.format]
    into = form.into is not None and (
        form.pieces is None or arguments.output.endswith("/") or os.path.isdir(arguments.output)
    )
    if form.pieces is None and arguments.output == "-":
        raise Failure(f"format {form.name} writes many files: give -w FOLDER", 2)
    if form.binary and arguments.output == "-" and os.isatty(1):
        raise Failure(f"{form.name} is not for terminals: give -w FILE, or pipe it into another program", 2)
    options = Options(
        arguments.file, arguments.display_filter, arguments.host, arguments.dissect, limits(arguments)
    )
    with LongWork(f"exporting {arguments.file}") as work:
        try:
            chosen = None
            if options.display_filter is not None:
                chosen = frame_numbers(arguments.file, options.display_filter)
            capture = SavedCapture(
                arguments.file, chosen, lambda at: work.show(at.at, len(at.data)), forgiving=True
            )
            if into:
                assert form.into is not None
                form.into(capture, arguments.output, options)
            else:
                _write(form, capture, options, arguments.output)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"cannot read {arguments.file}: {reason(error)}") from None
        except SavedError as error:
            raise Failure(f"cannot use {arguments.file}: {error}") from None
        except UnixsockError as error:
            raise Failure(str(error)) from None
    work.tell_end()
    for note in options.notes:
        say(f"unixsock: {note}")
    if capture.problem:
        rest = f"; the {capture.count} records before that were exported" if capture.count else ""
        raise Failure(f"cannot use {arguments.file}: {capture.problem}{rest}")
    if not capture.count:
        say("unixsock: no message to export")
    return 0


def _write(form: ExportFormat, capture: SavedCapture, options: Options, path: str) -> None:
    """Write a format of one file; nothing is opened for a capture without a record that can be used."""
    assert form.pieces is not None
    waiting: list[bytes] = []
    output: Output | None = None
    size = 0
    pieces: Iterator[bytes] = form.pieces(capture, options)
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= 1 << 16 and capture.count:
            output = output or Output(path, [options.path])
            output.write(waiting)
            waiting, size = [], 0
    if output is None and capture.problem and not capture.count:
        return
    output = output or Output(path, [options.path])
    output.write(waiting)
    output.close()
