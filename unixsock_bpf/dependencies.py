"""What this package needs besides itself, and the sentence where it is missing, in the system's own words."""

from __future__ import annotations

import sys
from pathlib import Path

#: Where a system tells what it is: os-release(5).
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))

#: The command that installs, by package manager.
_INSTALL = {
    "apt": "apt install",
    "dnf": "dnf install",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "apk": "apk add",
}
#: Package managers by what os-release calls a system or what that is like.
_MANAGERS = {
    "debian": "apt",
    "ubuntu": "apt",
    "fedora": "dnf",
    "rhel": "dnf",
    "opensuse": "zypper",
    "suse": "zypper",
    "arch": "pacman",
    "alpine": "apk",
}
_SYSTEMS = {
    "apt": "Debian, Ubuntu",
    "dnf": "Fedora",
    "zypper": "openSUSE",
    "pacman": "Arch",
    "apk": "Alpine",
}
#: What each system calls what this package uses, in the order of ``_INSTALL``.
_NAMES = {
    "bcc": ("python3-bpfcc", "python3-bcc", "python3-bcc", "python-bcc", "py3-bcc"),
    "lark": ("python3-lark", "python3-lark", "python3-lark", "python-lark-parser", "py3-lark-parser"),
    "seccomp": (
        "python3-seccomp",
        "python3-libseccomp",
        "python3-seccomp",
        "python-libseccomp",
        "py3-libseccomp",
    ),
    "tshark": ("tshark", "wireshark-cli", "wireshark", "wireshark-cli", "tshark"),
    "wireshark": ("wireshark", "wireshark", "wireshark-ui-qt", "wireshark-qt", "wireshark"),
}

#: Python packages that a capture needs; ``unixsock check`` looks for them.
#: The only module that uses bcc, seccomp or pyshark reports its absence.
PACKAGES = ("lark",)
#: Those of datasets and queries only.
DATASET_PACKAGES = {
    "pyarrow": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or pyarrow and numpy)",
    "numpy": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or numpy)",
    "duckdb": "install the extra 'dataset' (pip install 'unixsock-bpf[dataset]', or duckdb)",
}


def package_manager() -> str | None:
    """Return the package manager of this system by its os-release; None if it is not known here."""
    import shlex

    for path in _OS_RELEASE:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        said = dict(line.partition("=")[::2] for line in lines)
        words: list[str] = []
        for key in ("ID", "ID_LIKE"):  # such as ID="opensuse-leap", ID_LIKE="suse opensuse"
            try:
                words += " ".join(shlex.split(said.get(key, ""))).split()
            except ValueError:
                continue
        return next((_MANAGERS[word] for word in words if word in _MANAGERS), None)
    return None


def how_to_install(need: str) -> str:
    """Return the remedy for a missing ``need``, one of ``_NAMES``: this system's package and command."""
    names = dict(zip(_INSTALL, _NAMES[need]))
    manager = package_manager()
    if manager:
        return f"install {names[manager]} ('sudo {_INSTALL[manager]} {names[manager]}')"
    systems: dict[str, list[str]] = {}
    for one, name in names.items():
        systems.setdefault(name, []).append(_SYSTEMS[one])
    return "install " + ", ".join(f"{name} ({', '.join(where)})" for name, where in systems.items())


def isolated() -> bool:
    """Return whether this Python is a virtual environment's that sees none of the system's packages."""
    if sys.prefix == sys.base_prefix:
        return False
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return all(path.startswith(sys.prefix) for path in folders)


def _remedy(name: str) -> str | None:
    if name not in PACKAGES:
        return DATASET_PACKAGES.get(name)
    if isolated():
        return f"install it into this environment ('{sys.executable} -m pip install {name}')"
    return how_to_install(name)


def sentence(error: ImportError) -> str | None:
    """Explain a failed import, with the remedy; None if it is a fault of this package."""
    name = (error.name or "").partition(".")[0]
    remedy = _remedy(name)
    if remedy:
        problem = "is missing" if isinstance(error, ModuleNotFoundError) else f"is of no use ({error})"
        return f"the Python package {name} {problem}: {remedy}"
    if name == "unixsock_bpf" and isinstance(error, ModuleNotFoundError):
        return f"this installation is incomplete, {error.name} is missing: install it again"
    return None


def remedies(names: list[str]) -> str:
    """Return what to do about missing Python packages, as a sentence without its end."""
    text = "; ".join(_remedy(name) or how_to_install(name) for name in names)
    return text[:1].upper() + text[1:]
