"""A distribution's package of unixsock, whose files are the package manager's to update and to remove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unixsock_bpf import own_files
from unixsock_bpf.privilege import launch


@dataclass(frozen=True)
class Package:
    """What the package is called, and the command that removes it."""

    name: str
    remove: str

    @property
    def is_this(self) -> bool:
        """Whether it is the package that this process runs from."""
        return (launch.LIBRARY / "unixsock_bpf").resolve() == (own_files.ROOT / "unixsock_bpf").resolve()


def marker() -> Path:
    """Return the file by which a package tells that it put the library there: ``NAME: COMMAND``."""
    return launch.LIBRARY / "package"


def installed() -> Package | None:
    """Return the package that is installed here, if one is."""
    try:
        name, _, remove = marker().read_text().partition(":")
    except OSError:
        return None
    return Package(name.strip(), remove.strip())
