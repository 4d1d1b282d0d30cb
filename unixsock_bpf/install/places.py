"""Where an installation goes: for one user, or for everybody."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unixsock_bpf.install.manifest import InstallError, demand_root_alone_writes
from unixsock_bpf.privilege import launch
from unixsock_bpf.wireshark import folders

#: The command, where it is for everybody.
COMMAND = Path("/usr/local/bin/unixsock")


@dataclass(frozen=True)
class Places:
    """Where things go: the library, Wireshark's extcap and Lua plugin folders, its profiles.

    ``command``: where the ``unixsock`` command goes, for everybody; ``group``: whose members may capture.
    """

    library: Path
    extcap: tuple[Path, ...]
    plugins: Path
    profiles: Path
    command: Path | None = None
    group: str | None = None


def user_places() -> Places:
    """Return where things go for this user."""
    wireshark = folders.personal()
    return Places(folders.data_home() / "unixsock", wireshark.extcap, wireshark.plugins, wireshark.profiles)


def system_places() -> Places:
    """Return where things go for everybody.  Raises InstallError where Wireshark's folders are unknown."""
    try:
        wireshark = folders.system()
    except folders.FoldersError as error:
        raise InstallError(f"{error}, or use --user") from None
    # Not below /usr/local, which groups other than root's may write on some systems: part of it runs as root.
    return Places(launch.LIBRARY, wireshark.extcap, wireshark.plugins, wireshark.profiles, COMMAND)


def demand_roots_own(places: Places) -> None:
    """Raise InstallError if root would follow what another user arranged in its home: by sudo -E, say."""
    if os.geteuid() == 0:
        for folder in (places.library, *places.extcap, places.plugins, places.profiles):
            demand_root_alone_writes(folder)
