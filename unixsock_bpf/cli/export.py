"""``unixsock export``: payloads of a saved capture as test fixtures."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from unixsock_bpf.cli.errors import Failure, reason
from unixsock_bpf.cli.output import Output
from unixsock_bpf.formats.fixtures import LANGUAGES, fixtures, source
from unixsock_bpf.formats.reader import SavedError, read
from unixsock_bpf.wireshark.tshark import TsharkError, frame_numbers


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    text = "turn the payloads of a saved capture into test fixtures"
    parser = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="a pcapng or pcap file")
    parser.add_argument(
        "-Y", "--display-filter", metavar="DISPLAY_FILTER", help="export only packets that match"
    )
    parser.add_argument("--format", choices=tuple(LANGUAGES), default="json", help="default: json")
    parser.add_argument("-w", "--output", metavar="OUTPUT", default="-", help="default: standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export.  Raises Failure."""
    try:
        saved = list(read(arguments.file))
        if arguments.display_filter is not None:
            chosen = frame_numbers(arguments.file, arguments.display_filter)
            saved = [one for one in saved if one.number in chosen]
    except OSError as error:
        raise Failure(f"cannot read {arguments.file}: {reason(error)}") from None
    except SavedError as error:
        raise Failure(f"cannot use {arguments.file}: {error}") from None
    except TsharkError as error:
        raise Failure(str(error)) from None
    found = list(fixtures(one.record for one in saved))
    output = Output(arguments.output)
    output.write([source(found, arguments.format).encode()])
    output.close()
    if not found:
        print("unixsock: no message to export", file=sys.stderr)
    return 0
