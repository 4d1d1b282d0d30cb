"""User lands of other Debian releases, for guests and for their Wireshark: ``.cache/roots/SUITE``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vm.debian import CACHE, SetupError, run, say, source
from vm.kernels import Kernel

#: What the tests in a guest use there.  Python packages are Debian's, as its Python is another than ours.
PACKAGES = (
    *("python3-bpfcc", "python3-lark", "python3-seccomp", "python3-pytest", "python3-hypothesis"),
    *("tshark", "curl", "dbus", "iproute2", "kmod", "procps", "udev", "busybox-static"),
    *("wireshark", "xvfb", "xdotool", "openbox", "x11-utils", "fonts-dejavu-core"),
    *("at-spi2-core", "gir1.2-atspi-2.0", "python3-gi", "python3-pil"),
)


def build(suite: str) -> Path:
    """The root directory of a Debian release.  Raises SetupError."""
    root = CACHE / "roots" / suite
    if not root.exists():
        if os.geteuid() != 0:
            raise SetupError("Making another Debian release's user land needs root: run this as root")
        say(f"Making a root directory of Debian {suite} (a minute or two, once)")
        making = root.with_name(f"{root.name}.part")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        run(
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=APT::Sandbox::User "root"',
            f"--include={','.join(PACKAGES)}",
            suite,
            making,
            source(suite),
        )
        making.rename(root)
    return root


def build_for(kernel: Kernel) -> Path:
    """The same of ``kernel``'s own Debian release, with its modules in it."""
    root = build(kernel.suite)
    modules = root / "usr/lib/modules" / kernel.release
    if not modules.exists():
        shutil.copytree(kernel.modules, modules)
    return root


def bcc_version(root: Path | None) -> str:
    """Which bcc a user land has, as Debian counts; ``None`` is this machine's."""
    admin = ["--admindir", str(root / "var/lib/dpkg")] if root else []
    query = ["--show", "--showformat=${source:Upstream-Version}", "python3-bpfcc"]
    return run("dpkg-query", *admin, *query).partition("+")[0]
