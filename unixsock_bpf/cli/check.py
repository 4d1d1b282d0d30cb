"""``unixsock check``: whether a capture would work here, and what a filter would take."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from unixsock_bpf.cli.arguments import filter_of
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.sockets import processes_text, state_text
from unixsock_bpf.filter.near import bound_otherwise, near
from unixsock_bpf.filter.sockets import select
from unixsock_bpf.formats.text import name_text, type_name
from unixsock_bpf.install.checks import Check, checks
from unixsock_bpf.linux.sockets import SocketsError, sockets


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "check",
        help="check that this machine can capture; with --filter, list matching sockets",
        allow_abbrev=False,
    )
    parser.add_argument("--filter", metavar="FILTER", help="list the present sockets that FILTER matches")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each need; or for each socket that the filter matches.  Raises Failure."""
    if arguments.filter is not None:
        return _check_filter(arguments)
    found = []
    for check in checks():
        found.append(check)
        _write(_line(check))
        sys.stdout.flush()
    return 0 if all(check.met or not check.needed for check in found) else 1


def _line(check: Check) -> str:
    mark = "ok" if check.met else "MISSING" if check.needed else "note"
    return f"{mark:8}{check.name}: {check.found}" + (
        f". {check.remedy}" if check.remedy and not check.met else ""
    )


def _check_filter(arguments: argparse.Namespace) -> int:
    """Answers "why do I see no data?".  Exit status 1 if no present socket matches."""
    wanted = filter_of([arguments.filter])
    try:
        present = sockets()
    except SocketsError as error:
        raise Failure(str(error)) from None
    found = select(present, wanted)
    for one, always in found:
        _write(
            f"{type_name(one.type)} {state_text(one.state)} inode {one.inode or '-'} "
            f"{name_text(one.name) or '(unnamed)'} {processes_text(one)}"
            + ("" if always else " (depends on the message)")
        )
    _write(f"{len(found)} of {len(present)} present sockets match; others are captured when they appear")
    for sentence in (*bound_otherwise(wanted), *near(wanted, present)):
        _write(sentence)
    return 0 if found else 1


def _write(line: str) -> None:
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
