"""Files below a folder of our own, for exports of more than one file."""

from __future__ import annotations

import os
import re
from collections import OrderedDict

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.linux.write import write_all

#: Files that are open at a time.
_OPEN = 64


class FolderError(UnixsockError):
    """A folder or a file below it cannot be written: one sentence."""


def reason(error: OSError) -> str:
    """Return the system's word for ``error``."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def file_name(name: bytes, most: int = 60) -> str:
    """Return a harmless part of a file name for a socket's name."""
    text = name.replace(b"\0", b"@").decode("latin-1").strip("/")
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", text)[-most:] or "unnamed"


class Folder:
    """A folder that only we can read, with files that are written bit by bit."""

    def __init__(self, path: str) -> None:
        """Make the folder, or take an empty one of ours.  Raises FolderError."""
        self._path = path
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._made: set[str] = set()
        try:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                about = os.lstat(path)
                if not os.path.isdir(path) or os.listdir(path):
                    raise FolderError(
                        f"{path} is not an empty folder: choose another, or remove it"
                    ) from None
                if about.st_uid != os.geteuid() or about.st_mode & 0o022:
                    raise FolderError(f"others can write to {path}: choose a folder of your own") from None
        except OSError as error:
            raise FolderError(f"cannot write {path}: {reason(error)}") from None

    def append(self, name: str, data: bytes) -> None:
        """Add ``data`` to a file.  Raises FolderError."""
        try:
            write_all(self._fd(name), data)
        except OSError as error:
            raise FolderError(f"cannot write {self._path}/{name}: {reason(error)}") from None

    def _fd(self, name: str) -> int:
        fd = self._fds.pop(name, None)
        if fd is None:
            if len(self._fds) >= _OPEN:
                os.close(self._fds.popitem(last=False)[1])
            new = 0 if name in self._made else os.O_CREAT | os.O_EXCL
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | new
            fd = os.open(os.path.join(self._path, name), flags, 0o600)
            self._made.add(name)
        self._fds[name] = fd
        return fd

    def close(self) -> None:
        """Close all files.  Raises FolderError if one could not be written."""
        try:
            while self._fds:
                os.close(self._fds.popitem()[1])
        except OSError as error:
            raise FolderError(f"cannot write {self._path}: {reason(error)}") from None
