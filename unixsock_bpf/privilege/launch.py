"""Start the privileged helper through sudo or pkexec, or explain why that is not permitted."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

#: Where ``unixsock install --system`` puts what sudo and polkit permit to run.
LIBRARY = Path("/usr/lib/unixsock")
HELPER = LIBRARY / "libexec" / "unixsock-capture"
#: Beside it, the name of the group that may run it.
GROUP = LIBRARY / "group"

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_ASK_GROUP = "unixsock"


def commands(privilege: str) -> dict[str, list[str]]:
    """Return the commands that can start the helper, by program, in the order in which to try them.

    ``privilege`` is the option's value; ``auto``: both, where they are installed.  sudo mails the
    administrator about each user whom it refuses, so ``auto`` tries it for members of the group only.
    """
    ways = {
        "sudo": ["-n", "--", str(HELPER)],
        "pkexec": ["--disable-internal-agent", str(HELPER)],
    }
    found = {}
    for name, words in ways.items():
        program = shutil.which(name, path=_PATH)
        wanted = privilege == name or (privilege == "auto" and (name != "sudo" or _is_permitted()))
        if program and wanted:
            found[name] = [program, *words]
    return found


def launch(command: list[str], output: int) -> subprocess.Popen[bytes]:
    """Start the helper: requests go to its stdin, blocks to ``output``, reports come from its stderr."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={"PATH": _PATH, "LC_ALL": "C"},
        start_new_session=True,  # a terminal's Ctrl-C is for the client, which then asks it to stop
    )


def _group() -> str | None:
    """Read the group that may start the helper; None if none may."""
    try:
        return GROUP.read_text().strip() or None
    except OSError:
        return None


def _is_member(group: str) -> bool:
    """Return whether this process is in the group: membership takes effect at the next login."""
    try:
        return grp.getgrnam(group).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False


def _will_be_member(group: str) -> bool:
    """Return whether the user has been put into the group, be it after this login."""
    try:
        entry, user = grp.getgrnam(group), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return user.pw_name in entry.gr_mem or user.pw_gid == entry.gr_gid


def _is_permitted() -> bool:
    group = _group()
    return group is not None and _is_member(group)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def not_installed() -> str:
    """Explain how to set up capturing for unprivileged users."""
    return (
        "Capturing Unix sockets needs root. To let an unprivileged user capture, run once "
        f"'sudo unixsock install --system --group {_ASK_GROUP}' and "
        f"'sudo usermod -aG {_ASK_GROUP} {_user()}', then log in again."
    )


def not_permitted(refusals: list[str]) -> str:
    """Explain why this user may not start the helper; ``refusals``: what each program printed."""
    group = _group()
    if group is None:
        return not_installed()
    said = f" ({'; '.join(refusals)})" if refusals else ""
    if _is_member(group):
        return f"The privileged helper could not be started, though group {group} may{said}."
    if _will_be_member(group):
        return (
            f"User {_user()} has been put into group {group} since the last login: log in again, "
            f"or run 'newgrp {group}' in this terminal{said}."
        )
    return (
        f"User {_user()} may not capture Unix sockets: members of group {group} may, so run "
        f"'sudo usermod -aG {group} {_user()}' and log in again{said}."
    )


def not_there(privilege: str) -> str:
    """Explain that no program is installed that would start the helper."""
    if privilege == "auto" and shutil.which("sudo", path=_PATH):  # which is there for members
        return not_permitted([])
    wanted = "sudo or pkexec" if privilege == "auto" else privilege
    return (
        f"Capturing as an unprivileged user needs {wanted}, which is not installed: install it, or be root."
    )
