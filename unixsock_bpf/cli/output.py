"""Output of a dump: a file or standard output, in pieces that are written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from unixsock_bpf.capture.own_processes import users
from unixsock_bpf.cli.errors import Failure, reason
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.linux.standard_streams import wait_writable
from unixsock_bpf.linux.write import drop_written

#: The most pieces that one writev takes (IOV_MAX).
_MOST = 1024


class Output:
    """A file descriptor to write to.

    If it is a regular file and a write fails, what is left of the last piece is taken
    back, so that the file holds whole pieces only.
    """

    def __init__(self, path: str, reading: Iterable[str] = ()) -> None:
        """Open ``path``; ``-`` is standard output.  Only this user can read the file.

        Raises Failure, also for one of the files in ``reading``, which would be destroyed.
        """
        self.name = "standard output" if path == "-" else path
        for name in reading:
            if _is_same(1 if path == "-" else path, name):
                raise Failure(f"cannot write {self.name}: it is {name}, which is read; choose another name")
        self._close = path != "-"
        if path == "-":
            self.fd = 1
        else:
            self.fd = _opened(path)
        mode = os.fstat(self.fd).st_mode
        self.is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._is_file = stat.S_ISREG(mode)
        if self._close and self._is_file:
            with suppress(OSError):
                os.fchmod(self.fd, 0o600)  # it may have been there before

    @property
    def is_terminal(self) -> bool:
        """Whether this is a terminal."""
        return os.isatty(self.fd)

    def write(self, pieces: Sequence[Block]) -> None:
        """Write all ``pieces``, in order.  Raises BrokenPipeError; Failure for other errors."""
        for at in range(0, len(pieces), _MOST):
            self._write(list(pieces[at : at + _MOST]))

    def _write(self, pieces: list[Block]) -> None:
        partial = 0  # bytes of the first piece that are written already
        while pieces:
            try:
                written = os.writev(self.fd, pieces)
            except BrokenPipeError:
                raise
            except BlockingIOError:
                wait_writable(self.fd)
                continue
            except OSError as error:
                self._take_back(partial)
                raise Failure(f"cannot write {self.name}: {reason(error)}") from None
            done, begun = drop_written(pieces, written)
            partial = begun if done else partial + begun

    def _take_back(self, count: int) -> None:
        if self._is_file and count:
            with suppress(OSError):
                os.ftruncate(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR) - count)

    def close(self) -> None:
        """Close the file.  Raises Failure if it could not be written."""
        if self._close:
            try:
                os.close(self.fd)
            except OSError as error:
                raise Failure(f"cannot write {self.name}: {reason(error)}") from None


def _is_same(file: str | int, other: str) -> bool:
    """Tell whether both are one regular file."""
    try:
        about = os.stat(file)
        return stat.S_ISREG(about.st_mode) and os.path.samestat(about, os.stat(other))
    except (OSError, ValueError):
        return False


def _opened(path: str) -> int:
    """Open an empty file to write to.  Raises Failure.

    Where others can write, they may have put something in its place beforehand: a link of either
    kind, so that we write over a file of ours, or a file or a pipe of theirs, so that they can read what
    we capture.
    """
    try:
        with suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # O_PATH opens nothing yet, which a pipe's reader would notice.
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISLNK(os.fstat(found).st_mode):
                _refuse_others(path, os.fstat(found), "it is a link that user {} made; name the file itself")
                os.close(found)
                found = -1
                try:
                    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except FileNotFoundError:
                    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            about = os.fstat(found)
            if not stat.S_ISCHR(about.st_mode):  # devices are root's to make
                _refuse_others(
                    path,
                    about,
                    "it belongs to user {}, who could read the capture; choose another name, or remove it",
                )
            if stat.S_ISREG(about.st_mode) and about.st_nlink > 1:
                raise Failure(
                    f"cannot write {path}: this file has another name too, so that both would change"
                )
            fd = os.open(f"/proc/self/fd/{found}", os.O_WRONLY | os.O_CLOEXEC)
        finally:
            if found >= 0:
                os.close(found)
        if stat.S_ISREG(about.st_mode):
            os.ftruncate(fd, 0)
    except OSError as error:
        raise Failure(f"cannot write {path}: {reason(error)}") from None
    return fd


def _refuse_others(path: str, about: os.stat_result, why: str) -> None:
    """Raise Failure for what is neither this user's, nor root's link."""
    allowed = users() | ({0} if stat.S_ISLNK(about.st_mode) else set())
    if about.st_uid not in allowed:
        raise Failure(f"cannot write {path}: {why.format(about.st_uid)}")
