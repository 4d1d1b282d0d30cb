"""Starting the privileged helper through sudo or pkexec, and the sentence for when that is not permitted."""

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
    """Ways to start the privileged helper, in the order in which they are tried, by program.

    ``privilege`` is a value of the option: with ``auto`` both, where they are installed.  sudo reports each
    user whom it refuses to the administrator, by mail, so that ``auto`` has it asked for members only.
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
    """Starts it: requests go to its stdin, blocks to ``output``, reports come from its stderr."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={"PATH": _PATH, "LC_ALL": "C"},
        start_new_session=True,  # a terminal's Ctrl-C is for us, who then ask it to stop
    )


def _group() -> str | None:
    """The group that may start it; None if no group may."""
    try:
        return GROUP.read_text().strip() or None
    except OSError:
        return None


def _is_member(group: str) -> bool:
    """Whether this process is in it: whoever was added has to log in again first."""
    try:
        return grp.getgrnam(group).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False


def _is_permitted() -> bool:
    group = _group()
    return group is not None and _is_member(group)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def not_installed() -> str:
    """The sentence where nothing was set up for unprivileged users."""
    return (
        "Capturing Unix sockets needs root; for an unprivileged user, have it set up once with "
        f"'sudo unixsock install --system --group {_ASK_GROUP}' and "
        f"'sudo usermod -aG {_ASK_GROUP} {_user()}', then log in again."
    )


def not_permitted(refusals: list[str]) -> str:
    """The sentence where this user may not start it; ``refusals``: what each program said."""
    group = _group()
    if group is None:
        return not_installed()
    said = f" ({'; '.join(refusals)})" if refusals else ""
    if _is_member(group):
        return f"The privileged helper could not be started, though group {group} may{said}."
    return (
        f"User {_user()} may not capture Unix sockets: members of group {group} may, so run "
        f"'sudo usermod -aG {group} {_user()}' and log in again{said}."
    )


def not_there(privilege: str) -> str:
    """The sentence where there is no program that would start it."""
    if privilege == "auto" and shutil.which("sudo", path=_PATH):  # which is there for members
        return not_permitted([])
    wanted = "sudo or pkexec" if privilege == "auto" else privilege
    return (
        f"Capturing as an unprivileged user needs {wanted}, which is not installed: install it, or be root."
    )
