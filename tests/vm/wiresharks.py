"""Wiresharks to test with: this machine's, and those in newer Debian releases' user lands (``vm.rootfs``)."""

from __future__ import annotations

import os
from pathlib import Path

from vm import rootfs
from vm.debian import CHECKOUT

#: Wireshark version and the Debian release that has it.
SUITES = {"4.4": "trixie", "4.6": "sid"}

#: Where Debian's Wireshark looks for everybody's Lua plugins.
PLUGINS = "usr/lib/x86_64-linux-gnu/wireshark/plugins"


def wanted(variable: str) -> list[str]:
    """The versions that the environment's ``variable`` lists: "local", 4.4, 4.6, or "all"; else "local".

    Others, such as 4.2, need a root directory of that name under .cache/roots and .cache/wireshark.
    """
    words = os.environ.get(variable, "local")
    return ["local", *SUITES] if words == "all" else words.split(",")


def root(version: str) -> Path | None:
    """The root directory with a Wireshark of this version; None for this machine's.  Raises SetupError."""
    return None if version == "local" else rootfs.build(SUITES.get(version, version))


_SCRIPT = """\
set -e
mkdir -p {root}{checkout}
mount --bind {checkout} {root}{checkout}
mount --bind {checkout}/dissector {root}/{plugins}
for folder in proc sys dev tmp; do mount --rbind /$folder {root}/$folder; done
exec chroot {root} "$@"
"""


def inside(root: Path, command: list[str], uid: int | None = None) -> list[str]:
    """``command`` in ``root``, with this machine's /proc, /sys, /dev, /tmp, the checkout and the dissector.

    Mounts are the command's own.  ``uid``: as this user, without rights.
    """
    script = _SCRIPT.format(root=root, checkout=CHECKOUT, plugins=PLUGINS)
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    return ["unshare", "--mount", "sh", "-c", script, "sh", *who, *command]
