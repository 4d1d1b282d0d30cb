"""``unixsock install`` and ``unixsock uninstall``."""

from __future__ import annotations

import argparse
import os
from typing import Any

from unixsock_bpf.install import InstallError, Places, install, system_places, uninstall, user_places

from .failure import Failure


def add(commands: Any) -> None:
    """The two subcommands' arguments."""
    for name, text, run in (
        ("install", "put interface, dissector and profile where Wireshark finds them", run_install),
        ("uninstall", "remove what install put there", run_uninstall),
    ):
        parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--user", action="store_true", help="for this user (the default)")
        where.add_argument("--system", action="store_true", help="for everybody; needs root")
        parser.set_defaults(run=run)


def _places(arguments: argparse.Namespace) -> Places:
    if not arguments.system:
        return user_places()
    if os.geteuid() != 0:
        raise Failure("--system needs root: run it with sudo")
    try:
        return system_places()
    except InstallError as error:
        raise Failure(str(error)) from None


def run_install(arguments: argparse.Namespace) -> int:
    """Installs.  Raises Failure."""
    if arguments.system:  # for everybody to read, whatever root's umask
        os.umask(0o022)
    try:
        install(_places(arguments), print)
    except InstallError as error:
        raise Failure(str(error)) from None
    if not arguments.system and os.geteuid() == 0:
        print(
            "note: Wireshark 4.4 and later, run as root, ignore personal Lua plugins; use --system for that"
        )
    return 0


def run_uninstall(arguments: argparse.Namespace) -> int:
    """Removes.  Raises Failure."""
    try:
        uninstall(_places(arguments), print)
    except InstallError as error:
        raise Failure(str(error)) from None
    return 0
