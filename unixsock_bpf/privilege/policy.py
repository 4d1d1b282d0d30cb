"""Files that make sudo and polkit let a group run the privileged helper, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from unixsock_bpf.privilege.launch import HELPER

SUDOERS = Path("/etc/sudoers.d/unixsock")
ACTION = Path("/usr/share/polkit-1/actions/org.unixsock.capture.policy")
RULE = Path("/usr/share/polkit-1/rules.d/50-unixsock.rules")
ACTION_ID = "org.unixsock.capture"

#: What useradd(8) takes; nothing in it has a meaning for sudoers, JavaScript or XML.
_GROUP_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class PolicyError(ValueError):
    """A group that can't be given the right; the text says why."""


def check_group(group: str) -> str:
    """Return ``group`` if its name is safe to write into the files.  Raises PolicyError."""
    if not _GROUP_NAME.fullmatch(group):
        raise PolicyError(
            "a group's name has lower-case letters, digits, - and _, and begins with a letter or _, "
            f"unlike {group[:40]!r}"
        )
    return group


def sudoers(group: str) -> str:
    """Return the drop-in for sudo.

    ``""``: no arguments.  Nothing of the caller's environment is kept, whatever sudoers says
    elsewhere, and only stdin, stdout and stderr are handed over.
    """
    return f"""\
# Written by 'unixsock install --system --group {group}', removed by 'unixsock uninstall --system'.
# Members of {group} may start the privileged helper of unixsock, without arguments.
Defaults!{HELPER} env_reset, !setenv, !use_pty, !requiretty, !lecture, closefrom=3, !closefrom_override
%{group} ALL=(root:root) NOPASSWD: NOSETENV: {HELPER} ""
"""


def action() -> str:
    """Return the polkit action: its message, and who may authenticate where no rule applies."""
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <action id="{ACTION_ID}">
    <description>Capture Unix sockets</description>
    <message>Wireshark wants to capture the Unix-socket traffic of all programs, secrets included</message>
    <defaults>
      <allow_any>no</allow_any>
      <allow_inactive>no</allow_inactive>
      <allow_active>auth_admin</allow_active>
    </defaults>
    <annotate key="org.freedesktop.policykit.exec.path">{HELPER}</annotate>
  </action>
</policyconfig>
"""


def rule(group: str) -> str:
    """Return the polkit rule: members of the group need no password."""
    return f"""\
// Written by 'unixsock install --system --group {group}', removed by 'unixsock uninstall --system'.
polkit.addRule(function(action, subject) {{
    if (action.id == "{ACTION_ID}" && subject.isInGroup("{group}")) {{
        return polkit.Result.YES;
    }}
}});
"""
