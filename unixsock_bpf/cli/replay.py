"""``unixsock replay``: a server that answers from a capture."""

from __future__ import annotations

import argparse
from typing import Any

from unixsock_bpf.cli.errors import Failure, reason, say
from unixsock_bpf.cli.long_work import LongWork
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.formats.reader import SavedCapture, SavedError
from unixsock_bpf.wireshark.tshark import frame_numbers

_EXAMPLES = """\
examples:
  unixsock replay docker.pcapng /tmp/docker.sock
  curl --unix-socket /tmp/docker.sock http://docker/_ping
"""


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    text = "be a server that answers as the recorded one did"
    parser = commands.add_parser(
        "replay",
        help=text,
        description=text + ", for integration tests of clients",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="a pcapng or pcap file")
    parser.add_argument("path", metavar="PATH", help="where to listen; @ begins an abstract name")
    parser.add_argument(
        "--name", metavar="NAME", help="the recorded server's socket; default: PATH, or the only one"
    )
    parser.add_argument(
        "-Y", "--display-filter", metavar="DISPLAY_FILTER", help="answer from packets that match"
    )
    parser.add_argument(
        "--match",
        choices=("any", "bytes", "order"),
        default="any",
        help="find the recorded request by its bytes, by its order, or by either (any, the default)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer until stopped.  Raises Failure."""
    from unixsock_bpf.replay.server import Script, Server, dialogues

    file = arguments.file
    try:
        with LongWork(f"reading {file}") as work:
            chosen = None
            if arguments.display_filter is not None:
                chosen = frame_numbers(file, arguments.display_filter)
            capture = SavedCapture(file, chosen, lambda at: work.show(at.at, len(at.data)), forgiving=True)
            recorded, kind, missing = dialogues(capture, arguments.path, arguments.name)
        if work.stopped:
            return 130
        if capture.problem:
            say(f"unixsock: answering from what is whole of {file}: {capture.problem}")
        if missing:
            say(f"unixsock: {missing} bytes are missing in the capture, and so in the answers")
        server = Server(arguments.path, kind, Script(recorded), arguments.match)
    except OSError as error:
        raise Failure(f"cannot read {file}: {reason(error)}") from None
    except SavedError as error:
        raise Failure(f"cannot use {file}: {error}") from None
    except UnixsockError as error:
        raise Failure(str(error)) from None
    with LongWork("answering") as work:
        say(f"unixsock: answering at {arguments.path} from {len(recorded)} conversations; Ctrl-C ends")
        try:
            server.run(lambda: work.stopped)
        finally:
            server.close()
    say(f"unixsock: {server.answered} answers sent")
    return 0
