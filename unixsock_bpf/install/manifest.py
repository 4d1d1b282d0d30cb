"""The manifest of an installation: every file with its hash.

Only files that it lists are ever removed, and only while they are as they were installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.install import profile
from unixsock_bpf.privilege import policy
from unixsock_bpf.version import __version__


class InstallError(UnixsockError):
    """A failed installation or removal; the text is one sentence."""


@dataclass
class Item:
    """One file to install: a copy, a text, or a link."""

    target: Path
    source: Path | None = None
    text: str | None = None
    link: Path | None = None
    mode: int = 0o644

    def state(self) -> str:
        """Return what ``state_of`` will find."""
        if self.link is not None:
            return f"-> {self.link}"
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        return self.source.read_bytes() if self.source else (self.text or "").encode()

    @property
    def _staged(self) -> Path:
        return self.target.with_name(f".{self.target.name}.new")

    def stage(self) -> None:
        """Write the file beside its place.  Raises OSError with the place, and leaves nothing then."""
        try:
            self._staged.unlink(missing_ok=True)
            if self.link is not None:
                self._staged.symlink_to(self.link)
            else:
                self._staged.touch(0o600)
                self._staged.write_bytes(self._content())
                self._staged.chmod(self.mode)
        except OSError as error:  # a full disk's has no name
            self.discard()
            raise OSError(error.errno, error.strerror, str(self.target)) from None

    def discard(self) -> None:
        """Remove what ``stage`` wrote."""
        with contextlib.suppress(OSError):
            self._staged.unlink(missing_ok=True)

    def commit(self) -> None:
        """Put what ``stage`` wrote into its place at once: a running Wireshark sees the old or the new."""
        self._staged.replace(self.target)

    def put(self) -> None:
        """Write the file.  Raises OSError."""
        self.stage()
        self.commit()


def is_profile(path: Path) -> bool:
    """Return whether ``path`` is one of the profile's files, which users change."""
    return path.parent.name == profile.NAME and path.name in profile.FILES


@dataclass
class Manifest:
    """Installed files with their SHA-256, links with ``-> target``, and folders that were made."""

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    #: While an installation is under way, the state of files that it has not replaced yet.
    earlier: dict[str, str] = field(default_factory=dict)

    def knows(self, path: str, state: str) -> bool:
        """Return whether the file at ``path`` was installed."""
        return state in (self.files.get(path), self.earlier.get(path))

    @staticmethod
    def path(library: Path) -> Path:
        return library / "manifest.json"

    @classmethod
    def load(cls, library: Path) -> Manifest:
        """Read the manifest of an installation, empty if there is none.  Raises InstallError.

        Root follows only one that root alone can write; and no user follows one that names files which
        ``install`` does not make.
        """
        path = cls.path(library)
        if os.geteuid() == 0:
            demand_root_alone_writes(path)
        try:
            read = json.loads(path.read_text())
            files, folders, earlier = (
                dict(read["files"]),
                list(read["folders"]),
                dict(read.get("earlier", {})),
            )
            wrong = [name for name in files if not _may_be_ours(Path(name), library)]
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InstallError(f"{path} cannot be read: {error}") from None
        if wrong:
            raise InstallError(f"{path} cannot be read: {wrong[0]!r} is no file of an installation")
        return cls(files, folders, earlier)

    def save(self, library: Path) -> None:
        text = json.dumps({"version": __version__, **asdict(self)})
        Item(self.path(library), text=text + "\n").put()


def _may_be_ours(path: Path, library: Path) -> bool:
    """Return whether ``install`` makes such a file: in the library, or under a name of its own elsewhere."""
    return (
        path.is_absolute()
        and ".." not in path.parts
        and (
            library in path.parents
            or path.name in ("unixsock", "unixsock.lua")
            or path.parent.name == profile.NAME
            or path in (policy.SUDOERS, policy.ACTION, policy.RULE)
        )
    )


def state_of(path: Path) -> str | None:
    """Return the state of the file at ``path`` in the manifest's words; None if there is none."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "something else" if path.exists() else None


def demand_root_alone_writes(path: Path) -> None:
    """Raise InstallError if others than root could put something else at ``path``."""
    for start in {Path(os.path.abspath(path)), Path(os.path.realpath(path))}:
        for place in (start, *start.parents):
            try:
                status = place.lstat()
            except FileNotFoundError:
                continue
            except OSError as error:  # such as a home on NFS, where root is nobody
                raise InstallError(
                    f"root cannot look into {place}: {(error.strerror or '').lower()}"
                ) from None
            shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or (shared and not stat.S_ISLNK(status.st_mode)):
                raise InstallError(
                    f"root installs nothing by way of {place}, which others than root can write: "
                    "run it as the user whose home it is, or with --system for everybody"
                )
