"""Write a dataset: Parquet files, partitioned by date, closed atomically, rotated by size and age."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from unixsock_bpf.dataset.batch import Batch
from unixsock_bpf.dataset.limits import Limits
from unixsock_bpf.dataset.schema import schema
from unixsock_bpf.errors import UnixsockError

_DAY_NS = 86_400_000_000_000
#: Rows and bytes of records after which a row group is written.
_ROWS, _GROUP_BYTES = 1 << 17, 64 << 20
#: Days that are written to at a time: a clock that jumps begins new ones.
_DAYS = 4
#: zstd's level: higher ones cost more time than they save space.
_LEVEL = 3


class DatasetError(UnixsockError):
    """A dataset cannot be written or read: one sentence."""


def filesystem(path: str) -> tuple[fs.FileSystem, str, bool]:
    """Return the file system of a folder or URI, the path in it, and whether it is this machine's.

    Raises DatasetError.
    """
    if not re.match(r"[a-z][a-z0-9+.-]+://", path):
        return fs.LocalFileSystem(), os.path.abspath(path), True
    try:
        system, inner = fs.FileSystem.from_uri(path)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DatasetError(f"cannot use {path}: {sentence(error)}") from None
    return system, inner, isinstance(system, fs.LocalFileSystem)


def sentence(error: BaseException) -> str:
    """Return the first line of an engine's message, in one sentence."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@dataclass
class _Part:
    """A day's rows that wait, and the file that takes them."""

    day: int
    batch: Batch
    begun: float = 0.0
    writer: Any = None
    stream: IO[bytes] | Any = None
    temporary: str = ""
    final: str = ""
    used: int = field(default=0)


class DatasetWriter:
    """Writes records below a folder.  Close it, whatever happens: what was added is then in whole files."""

    def __init__(
        self,
        path: str,
        host: str,
        limits: Limits | None = None,
        *,
        dissected: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the folder, for us only.  Raises DatasetError."""
        self.path = path
        self._limits, self._dissected, self._clock = limits or Limits(), dissected, clock
        self._prefix = re.sub(r"[^A-Za-z0-9.-]+", "_", host)[:60] or "unknown"
        self._system, self._root, self._local = filesystem(path)
        self._parts: dict[int, _Part] = {}
        self._lock = threading.Lock()
        self._count = 0
        self.rows = 0
        self._ticks = threading.Event()
        self._failure: DatasetError | None = None  # of the thread that rotates
        self._make(self._root)

    def rotate_by_age(self, every_s: float = 5.0) -> None:
        """Close files that are old enough from now on, even while no record comes."""

        def rotate() -> None:
            while not self._ticks.wait(every_s):
                with self._lock:
                    try:
                        self._close_old()
                    except DatasetError as error:
                        self._failure = error

        threading.Thread(target=rotate, name="unixsock dataset", daemon=True).start()

    def _make(self, path: str) -> None:
        try:
            if self._local:
                os.makedirs(path, mode=0o700, exist_ok=True)
            else:
                self._system.create_dir(path, recursive=True)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"cannot write {self.path}: {sentence(error)}") from None

    def add(self, time_ns: int, data: bytes, host: str | None, extra: tuple[Any, ...] = ()) -> None:
        """Add a record.  Raises DatasetError, RecordError."""
        with self._lock:
            if self._failure:
                raise self._failure
            day = time_ns // _DAY_NS
            part = self._parts.get(day)
            if part is None:
                part = self._begin(day)
            batch = part.batch
            batch.add(time_ns, data, host, extra)
            self.rows += 1
            if len(batch) >= _ROWS or batch.size >= _GROUP_BYTES:
                self._write(part)

    def _begin(self, day: int) -> _Part:
        if len(self._parts) >= _DAYS:
            self._close(min(self._parts.values(), key=lambda part: part.used))
        self._count += 1
        part = self._parts[day] = _Part(day, Batch(self._dissected), self._clock(), used=self._count)
        return part

    def _open(self, part: _Part) -> None:
        try:
            date = datetime.fromtimestamp(part.day * 86_400, timezone.utc).strftime("%Y-%m-%d")
        except (OverflowError, ValueError, OSError):
            date = "unknown"
        folder = f"{self._root}/date={date}"
        self._make(folder)
        name = f"{self._prefix}-{uuid.uuid4().hex}.parquet"
        part.final = f"{folder}/{name}"
        try:
            if self._local:
                part.temporary = f"{folder}/.{name}.unfinished"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                part.stream = os.fdopen(os.open(part.temporary, flags, 0o600), "wb")
            else:  # an object that appears when it is closed
                part.stream = self._system.open_output_stream(part.final)
            part.writer = pq.ParquetWriter(
                part.stream,
                schema(self._dissected),
                compression="zstd",
                compression_level=_LEVEL,
                use_dictionary=[name for name, kind in self._fields() if pa.types.is_dictionary(kind)],
                column_encoding=None,
                write_statistics=[
                    name for name, _ in self._fields() if name not in ("payload", "text", "elements", "info")
                ],
            )
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"cannot write {folder}: {sentence(error)}") from None

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [(one.name, one.type) for one in schema(self._dissected)]

    def _write(self, part: _Part) -> None:
        """Write the rows that wait as a row group; rotate by size."""
        if not len(part.batch):
            return
        table = part.batch.table()
        part.batch.clear()
        if part.writer is None:
            self._open(part)
        try:
            part.writer.write_table(table, row_group_size=_ROWS)
            written = part.stream.tell()
        except (OSError, pa.ArrowException) as error:
            self._drop(part)
            raise DatasetError(f"cannot write {part.final}: {sentence(error)}") from None
        if written >= self._limits.size or self._clock() - part.begun >= self._limits.age_s:
            self._close(part)

    def _drop(self, part: _Part) -> None:
        """Forget a file that could not be written; those that were closed stay."""
        self._parts.pop(part.day, None)
        with suppress(OSError, pa.ArrowException):
            part.stream.close()
        if part.temporary:
            with suppress(OSError):
                os.unlink(part.temporary)
        part.writer = None

    def _close_old(self) -> None:
        for part in list(self._parts.values()):
            if self._clock() - part.begun >= self._limits.age_s:
                self._write(part)
                self._close(part)

    def _close(self, part: _Part) -> None:
        """Write the rest and the footer; only then does the file have its name."""
        self._write(part)
        if self._parts.pop(part.day, None) is None or part.writer is None:
            return  # closed by its size
        try:
            part.writer.close()
            if self._local:
                part.stream.flush()
                os.fsync(part.stream.fileno())
            part.stream.close()
            if part.temporary:
                os.rename(part.temporary, part.final)
        except (OSError, pa.ArrowException) as error:
            self._drop(part)
            raise DatasetError(f"cannot write {part.final}: {sentence(error)}") from None

    def close(self) -> None:
        """Close all files.  Raises DatasetError."""
        self._ticks.set()
        with self._lock:
            failure = self._failure
            for part in list(self._parts.values()):
                try:
                    self._close(part)
                except DatasetError as error:
                    failure = error
            if failure:
                raise failure
