"""Wireshark's folders on this machine, and the dissector that belongs to this package."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unixsock_bpf import own_files
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.timeouts import TSHARK_FOLDERS_TIMEOUT_S


class FoldersError(UnixsockError):
    """A folder, or a file of this package, cannot be found; the text names the remedy."""


@dataclass(frozen=True)
class Folders:
    """The folders in which Wireshark looks for extcaps, Lua plugins and profiles."""

    extcap: tuple[Path, ...]
    plugins: Path
    profiles: Path


def data_home() -> Path:
    """Return the folder for this user's data (XDG)."""
    return Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share")


def _home() -> Path:
    return Path(os.path.expanduser("~"))


def personal() -> Folders:
    """Return this user's.  Wireshark 4.0 and 4.4 look for extcaps in different folders: both are given."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "wireshark"
    lib = _home() / ".local" / "lib" / "wireshark"
    return Folders((config / "extcap", lib / "extcap"), lib / "plugins", config / "profiles")


def system() -> Folders:
    """Return the system's folders.  Raises FoldersError where tshark does not print them."""
    printed = _printed()
    extcap = printed.get("Global Extcap path") or printed.get("Extcap path")
    plugins = printed.get("Global Lua Plugins") or printed.get("Global Plugins")
    config = printed.get("Global configuration")
    if not (extcap and plugins and config):
        raise FoldersError("'tshark -G folders' does not print Wireshark's folders: install tshark first")
    return Folders((extcap,), plugins, config / "profiles")


@cache
def _printed() -> dict[str, Path]:
    """Return what ``tshark -G folders`` prints, by title: nothing without tshark."""
    try:
        stdout = subprocess.run(
            ["tshark", "-G", "folders"],
            capture_output=True,
            text=True,
            timeout=TSHARK_FOLDERS_TIMEOUT_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.split(":", 1) for line in stdout.splitlines() if ":" in line)
    return {title.strip(): Path(path.strip()) for title, path in pairs}


def _all() -> Iterator[Folders]:
    yield personal()
    try:
        yield system()
    except FoldersError:
        return


def extcap_folders() -> list[Path]:
    """List the folders in which Wireshark may look for extcaps, personal ones first."""
    return [folder for folders in _all() for folder in folders.extcap]


def plugin_folders() -> list[Path]:
    """List the folders in which Wireshark may look for Lua plugins, the personal one first."""
    return [folders.plugins for folders in _all()]


def dissector_source() -> Path:
    """Find the main file of this package's dissector.  Raises FoldersError."""
    found = own_files.find("dissector/unixsock.lua")
    if found is None:
        raise FoldersError(
            f"the dissector is missing: there is no {own_files.ROOT / 'dissector' / 'unixsock.lua'}"
        )
    return found


def other_versions() -> list[Path]:
    """List the dissectors that Wireshark may load here and that differ from this package's.

    Raises FoldersError, OSError.
    """
    ours = dissector_source().read_bytes()
    found = [folder / "unixsock.lua" for folder in plugin_folders()]
    return [path for path in found if path.exists() and path.read_bytes() != ours]
