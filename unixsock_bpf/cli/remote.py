"""Captures on other hosts, by the arguments of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.formats.pcapng import Host

if TYPE_CHECKING:
    from unixsock_bpf.capture.base import CaptureSource
    from unixsock_bpf.options import Settings
    from unixsock_bpf.remote.capture import HostsCapture


def add_ways(parser: argparse._ActionsContainer) -> None:
    """Add what leads to other hosts."""
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="capture on HOST, as ssh names it; again for more hosts, whose records are merged",
    )
    parser.add_argument(
        "--via",
        action="append",
        default=[],
        metavar="COMMAND",
        help="capture where COMMAND runs what follows it: 'docker exec -i c', 'ssh host sudo'",
    )
    parser.add_argument(
        "--remote-priv",
        choices=("sudo", "doas", "none"),
        default="sudo",
        help="how to become root on HOST, without a password; default: sudo",
    )
    parser.add_argument(
        "--control",
        nargs="?",
        const="",
        metavar="PIDS",
        help="be the other end: take settings from standard input, which another host's unixsock sends;"
        " PIDS: where the pids in them mean something",
    )


def remote_source(
    arguments: argparse.Namespace, settings: Settings, report: Callable[[str], None]
) -> HostsCapture | None:
    """Return the capture on other hosts that is asked for; None if none is.  Raises Failure."""
    if not arguments.host and not arguments.via:
        return None
    from unixsock_bpf.remote.capture import HostsCapture
    from unixsock_bpf.remote.way import WayError, by_command, by_ssh

    try:
        ways = [by_ssh(host, privilege=arguments.remote_priv) for host in arguments.host]
        ways += [by_command(command) for command in arguments.via]
    except WayError as error:
        raise Failure(str(error), 2) from None
    return HostsCapture(settings, ways, lambda text: report(f"unixsock: {text}"))


def hosts_of(source: CaptureSource) -> tuple[Host, ...]:
    """Return the other hosts of a capture; none if it is of this one."""
    return tuple(Host(one.way.name, one.clock_text) for one in getattr(source, "hosts", ()))
