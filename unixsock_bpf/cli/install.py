"""``unixsock install`` and ``unixsock uninstall``."""

from __future__ import annotations

import argparse
import grp
import os
import subprocess
from dataclasses import replace
from typing import Any

from unixsock_bpf.cli.errors import Failure, reason
from unixsock_bpf.install.installer import (
    InstallError,
    Places,
    granted,
    install,
    system_places,
    uninstall,
    user_places,
)
from unixsock_bpf.privilege.policy import PolicyError, check_group


def add(commands: Any) -> None:
    """Add the two subcommands and their arguments."""
    for name, text, run in (
        ("install", "put interface, dissector and profile where Wireshark finds them", run_install),
        ("uninstall", "remove what install put there", run_uninstall),
    ):
        parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--user", action="store_true", help="for this user (the default)")
        where.add_argument("--system", action="store_true", help="for everybody; needs root")
        if name == "install":
            group = parser.add_mutually_exclusive_group()
            group.add_argument(
                "--group",
                metavar="GROUP",
                help="with --system: let members of this group, such as wireshark, capture without root;"
                " an installation that is made again keeps it",
            )
            group.add_argument(
                "--no-group", action="store_true", help="with --system: take that right from the group again"
            )
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


def _group(arguments: argparse.Namespace, before: str | None) -> str | None:
    """Whose members may capture from now on; ``before``: those of an earlier installation."""
    group = before if arguments.group is None and not arguments.no_group else arguments.group
    try:
        return None if group is None else check_group(group)
    except PolicyError as error:
        raise Failure(str(error)) from None


def run_install(arguments: argparse.Namespace) -> int:
    """Installs.  Raises Failure."""
    if not arguments.system and (arguments.group is not None or arguments.no_group):
        option = "--no-group" if arguments.no_group else "--group"
        raise Failure(f"{option} needs --system: only a system's administrator gives others rights", 2)
    if arguments.system:  # for everybody to read, and nobody else to write, whatever root's umask
        os.umask(0o022)
    places = _places(arguments)
    try:
        before = granted(places) if arguments.system else None
        group = _group(arguments, before)
        if group:
            _have_group(group)
        install(replace(places, group=group), print)
    except InstallError as error:
        raise Failure(str(error)) from None
    if os.geteuid() == 0:
        _compile_ahead()
    if before and before != group:
        print(f"group {before} may not capture any more")
    if not arguments.system and os.geteuid() == 0:
        print(
            "note: Wireshark 4.4 and later, run as root, ignore personal Lua plugins; use --system for that"
        )
    return 0


def _compile_ahead() -> None:
    """So that the first capture compiles no more than its filter, as do those of the group's members."""
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.probe.ahead import compile_ahead

    try:
        compile_ahead()
        print(f"compiled: the probe for kernel {os.uname().release}")
    except ProbeError as error:
        print(f"note: the probe could not be compiled now; each capture will do it. {error}")


def _have_group(group: str) -> None:
    """Makes the group if there is none.  Raises Failure."""
    try:
        grp.getgrnam(group)
        return
    except KeyError:
        pass
    try:
        done = subprocess.run(["groupadd", "--system", group], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = f"groupadd: {reason(error)}"
    if problem:
        raise Failure(f"there is no group {group}, and it can't be made: {problem}")
    print(f"group: {group} was made")


def run_uninstall(arguments: argparse.Namespace) -> int:
    """Removes.  Raises Failure."""
    try:
        uninstall(_places(arguments), print)
    except InstallError as error:
        raise Failure(str(error)) from None
    return 0
