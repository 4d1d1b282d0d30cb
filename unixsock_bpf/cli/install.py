"""``unixsock install`` and ``unixsock uninstall``."""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

from unixsock_bpf.cli.errors import Failure, reason
from unixsock_bpf.install.installer import install, install_right, uninstall
from unixsock_bpf.install.manifest import InstallError
from unixsock_bpf.install.package import Package, installed
from unixsock_bpf.install.places import demand_roots_own, system_places, user_places
from unixsock_bpf.install.rights import granted, revoke
from unixsock_bpf.privilege import launch
from unixsock_bpf.privilege.policy import PolicyError, check_group
from unixsock_bpf.wireshark import folders


def add(commands: Any) -> None:
    """Add the two subcommands and their arguments."""
    for name, text, run in (
        ("install", "install interface, dissector and profile where Wireshark finds them", run_install),
        ("uninstall", "remove what install put there", run_uninstall),
    ):
        parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--user", action="store_true", help="for this user (the default)")
        where.add_argument("--system", action="store_true", help="for all users; needs root")
        if name == "install":
            group = parser.add_mutually_exclusive_group()
            group.add_argument(
                "--group",
                metavar="GROUP",
                help="with --system: let members of this group capture without root; use a dedicated group,"
                " such as unixsock; a later installation keeps it",
            )
            group.add_argument("--no-group", action="store_true", help="with --system: withdraw that right")
            parser.add_argument(
                "--yes",
                action="store_true",
                help="with --group: give the right to the group's present members without asking",
            )
        parser.set_defaults(run=run)


def _demand_root() -> None:
    if os.geteuid() != 0:
        raise Failure("--system needs root: run it with sudo")


def _group(arguments: argparse.Namespace, before: str | None) -> str | None:
    """Return the group that may capture from now on; ``before``: that of an earlier installation."""
    group = before if arguments.group is None and not arguments.no_group else arguments.group
    try:
        return None if group is None else check_group(group)
    except PolicyError as error:
        raise Failure(str(error)) from None


def run_install(arguments: argparse.Namespace) -> int:
    """Install.  Raise Failure."""
    if not arguments.system and (arguments.group is not None or arguments.no_group):
        option = "--no-group" if arguments.no_group else "--group"
        raise Failure(f"{option} needs --system: only a system's administrator gives others rights", 2)
    package = installed()
    try:
        if package and (arguments.system or package.is_this):
            _install_into_package(arguments, package)
        elif arguments.system:
            _install_for_everybody(arguments)
        else:
            places = user_places()
            demand_roots_own(places)
            install(places, print)
    except InstallError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot look into {error.filename}: {reason(error)}") from None
    if os.geteuid() == 0:
        _compile_ahead()
    _tell_other_versions()
    if not arguments.system and os.geteuid() == 0:
        print(
            "note: Wireshark 4.4 and later, run as root, ignore personal Lua plugins; use --system for that"
        )
    return 0


def _install_for_everybody(arguments: argparse.Namespace) -> None:
    """Raise Failure, InstallError."""
    _demand_root()
    os.umask(0o022)  # readable by all, writable by root only, whatever root's umask
    if arguments.no_group:
        revoke(print)
    try:
        places = system_places()
    except InstallError as error:
        if not arguments.no_group:
            raise
        print(f"note: the rest of the installation is as it was: {error}")
        return
    before = granted()
    group = _group(arguments, before)
    if group:
        _have_group(group, agreed=arguments.yes or group == before)
    install(replace(places, group=group), print)
    if before and before != group:
        print(f"group {before} may not capture any more")


def _install_into_package(arguments: argparse.Namespace, package: Package) -> None:
    """Give or withdraw the right to capture; all else is the package's.  Raise Failure, InstallError."""
    if not package.is_this:
        raise Failure(
            f"{launch.LIBRARY} belongs to the {package.name}: remove that first with 'sudo {package.remove}',"
            " or use --user"
        )
    if not arguments.system:
        raise Failure(f"this is the {package.name}, which is there for all users: --user has nothing to add")
    _demand_root()
    os.umask(0o022)
    if arguments.no_group:
        revoke(print)
    before = granted()
    group = _group(arguments, before)
    if group:
        _have_group(group, agreed=arguments.yes or group == before)
        install_right(group, print)
        if before and before != group:
            print(f"group {before} may not capture any more")
    _tell_debconf(group is not None)
    print(f"installed: all other files by the {package.name}")


def _tell_debconf(captures: bool) -> None:
    """Have Debian's package keep the answer at its next configuration, unless it is itself that calls."""
    if shutil.which("debconf-communicate") and "DPKG_MAINTSCRIPT_NAME" not in os.environ:
        answer = f"SET unixsock/group-captures {str(captures).lower()}\n"
        with contextlib.suppress(OSError):
            subprocess.run(
                ["debconf-communicate", "unixsock"], input=answer, text=True, capture_output=True, check=False
            )


def _tell_other_versions() -> None:
    with contextlib.suppress(folders.FoldersError, OSError):  # 'unixsock check' says what is wrong with them
        for path in folders.other_versions():
            print(
                f"note: {path} is of another version, and Wireshark loads only one of them:"
                " run 'unixsock install' for the same users again, or remove it"
            )


def _compile_ahead() -> None:
    """Compile the probe, so that captures, also by members of the group, have nothing to compile."""
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.probe.program_set import compile_ahead

    try:
        compile_ahead()
        print(f"compiled: the probe for kernel {os.uname().release}")
    except ProbeError as error:
        print(f"note: the probe could not be compiled now; each capture will do it. {error}")


def _have_group(group: str, agreed: bool) -> None:
    """Make the group if there is none; ask before its present members get the right.  Raises Failure.

    ``agreed``: don't ask.
    """
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        _make_group(group)
        return
    members = sorted({*entry.gr_mem, *(one.pw_name for one in pwd.getpwall() if one.pw_gid == entry.gr_gid)})
    if not members:
        return
    print(f"group: {group} already has members: {', '.join(members)}")
    if agreed:
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure(
            f"each member of group {group} could read the traffic of root's programs: "
            "run it again with --yes if they all may, or name a group of its own, such as unixsock"
        )
    if input(
        "Each of them will be able to read the traffic of root's programs, passwords included.  Go on? [y/N] "
    ).strip() not in (*("y", "Y", "yes"),):
        raise Failure("nothing was installed")


def _make_group(group: str) -> None:
    """Raise Failure."""
    try:
        done = subprocess.run(["groupadd", "--system", group], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = f"groupadd: {reason(error)}"
    if problem:
        raise Failure(f"group {group} does not exist and cannot be created: {problem}")
    print(f"group: {group} was created")


def run_uninstall(arguments: argparse.Namespace) -> int:
    """Remove.  Raise Failure."""
    try:
        package = installed()
        if package and (arguments.system or package.is_this):
            raise Failure(f"this is the {package.name}: remove it with 'sudo {package.remove}'")
        if arguments.system:
            _demand_root()
            uninstall(print)
        else:
            places = user_places()
            demand_roots_own(places)
            uninstall(print, places)
    except InstallError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot look into {error.filename}: {reason(error)}") from None
    return 0
