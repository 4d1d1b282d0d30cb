"""Other Debian releases' user lands, for guests and their Wireshark: ``.cache/roots/RELEASE[-ARCH]``."""

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
)
_WINDOWS = (
    *("wireshark", "xvfb", "xdotool", "openbox", "x11-utils", "fonts-dejavu-core"),
    *("at-spi2-core", "gir1.2-atspi-2.0", "python3-gi", "python3-pil"),
)
#: What Debian's installation always has, as nothing of it is installed for foreign processors.
_BASE = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "util-linux", "mount", "login", "passwd"),
    *("grep", "sed", "gawk", "findutils", "hostname", "libc-bin", "tar", "diffutils"),
)


def build(release: str, arch: str = "amd64") -> Path:
    """The root directory of a Debian release; without windows for another ``arch``.  Raises SetupError."""
    foreign = arch != "amd64"
    root = CACHE / "roots" / (f"{release}-{arch}" if foreign else release)
    if not root.exists():
        if os.geteuid() != 0:
            raise SetupError("Making another Debian release's user land needs root: run this as root")
        say(f"Making a root directory of Debian {release} {arch} (a minute or two, once)")
        making = root.with_name(f"{root.name}.part")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        # Programs for other processors don't run here, so that theirs is only unpacked.
        variant = ["--variant=extract", "--skip=check/qemu"] if foreign else ["--variant=minbase"]
        packages = (*PACKAGES, *_BASE) if foreign else (*PACKAGES, *_WINDOWS)
        run(
            "mmdebstrap",
            "--quiet",
            f"--arch={arch}",
            *variant,
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=APT::Sandbox::User "root"',
            f"--include={','.join(packages)}",
            release,
            making,
            source(release),
        )
        if foreign:
            _configure(making)
        making.rename(root)
    return root


def _configure(root: Path) -> None:
    """Do by hand what packages that are only unpacked would do when they are installed."""
    for name in ("passwd", "group"):
        text = (root / f"usr/share/base-passwd/{name}.master").read_text()
        (root / "etc" / name).write_text(text.replace("root:*:", "root::"))
    for name in ("fstab", "shadow"):
        (root / "etc" / name).touch()
    for name in ("mnt", "opt", "srv", "media", "tmp", "root", "proc", "sys", "dev", "run"):
        (root / name).mkdir(exist_ok=True)
    awk = root / "usr/bin/awk"
    if not awk.is_symlink():
        awk.symlink_to("gawk")


def build_for(kernel: Kernel) -> Path:
    """The same of ``kernel``'s own Debian release, with its modules in it."""
    root = build(kernel.suite.user_land, kernel.suite.arch)
    add_modules(root, kernel)
    return root


def add_modules(root: Path, kernel: Kernel) -> None:
    """Put ``kernel``'s modules where the system in ``root`` looks for them."""
    modules = root / "usr/lib/modules" / kernel.release
    if not modules.exists():
        shutil.copytree(kernel.modules, modules)


def bcc_version(root: Path | None) -> str:
    """Which bcc a user land has, as Debian counts; ``None`` is this machine's."""
    admin = ["--admindir", str(root / "var/lib/dpkg")] if root else []
    query = ["--show", "--showformat=${source:Upstream-Version}", "python3-bpfcc"]
    return run("dpkg-query", *admin, *query).partition("+")[0]
