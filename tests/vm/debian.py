"""Other Debian releases' packages, from the mirror that this machine's apt already uses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class SetupError(Exception):
    """A guest can't be prepared or started; the message says why."""


def say(text: str) -> None:
    """Tell of progress, at once and beside what a command prints."""
    print(f"== {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of ``command``.  Raises SetupError with the end of what it complained about."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise SetupError(f"{command[0]} is not installed: run tests/setup") from missing
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-600:]
        raise SetupError(f"'{' '.join(map(str, command))}' failed with status {done.returncode}: {told}")
    return done.stdout


def mirror() -> str:
    """Where this machine's apt gets Debian's main archive from."""
    listing = run("apt-get", "indextargets", "--format", "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)")
    for line in listing.splitlines():
        created_by, component, release, uri = line.split(maxsplit=3)
        if created_by == "Packages" and component == "main" and "-" not in release:
            return uri
    raise SetupError("apt on this machine knows no Debian archive: see /etc/apt/sources.list")


def source(suite: str) -> str:
    """The line for sources.list that gives ``suite``'s main component."""
    signed_by = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    return f"deb {signed_by}{mirror()} {suite} main"


class Apt:
    """apt for one suite and architecture, with lists and state of its own: the machine's stay as they are."""

    def __init__(self, suite: str, arch: str) -> None:
        self.home = CACHE / "apt" / f"{suite}-{arch}"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        (self.home / "sources.list").write_text(source(suite) + "\n")
        settings = {
            "Dir::State": self.home / "state",
            "Dir::State::status": self.home / "status",
            "Dir::Cache": self.home / "cache",
            "Dir::Etc::SourceList": self.home / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
            "APT::Architecture": arch,
            "APT::Architectures": arch,
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        run("apt-get", *self._options, "-q", "update")

    def needed(self, package: str, pattern: str) -> list[str]:
        """``package``'s dependencies, near and far, whose whole name matches ``pattern``."""
        told = run(
            "apt-cache",
            *self._options,
            "depends",
            "--recurse",
            *(
                f"--no-{kind}"
                for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
            ),
            package,
        )
        names = {line.strip() for line in told.splitlines() if not line.startswith((" ", "<"))}
        return sorted(name for name in names if re.fullmatch(pattern, name))

    def unpack(self, packages: list[str], target: Path) -> None:
        """Download ``packages`` and unpack them into the folder ``target``; the downloads are not kept."""
        downloads = self.home / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir()
        run("apt-get", *self._options, "-q", "download", *packages, cwd=downloads)
        for package in downloads.iterdir():
            run("dpkg-deb", "-x", package, target)
        shutil.rmtree(downloads)

    def forget(self) -> None:
        """Remove lists and state, some 100 MB."""
        shutil.rmtree(self.home)
