"""Ask a dataset questions in SQL, by DuckDB within this process.

The dataset is the view ``records``; ``messages`` is those that carry data.  Values and file names reach
DuckDB as values, never as SQL.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from typing import Any

import duckdb

from unixsock_bpf.dataset.batch import RowError, row_record
from unixsock_bpf.dataset.writer import DatasetError, sentence
from unixsock_bpf.formats import pcapng
from unixsock_bpf.version import __version__

_MAGIC = b"PAR1"
#: What a result has to have so that its conversations can be found.
_KEYS = ("host", "src_sock", "dst_sock")
_ROWS = 10_000
#: Characters of a host's name.
_HOST = 255
#: DuckDB's kinds of statements that change nothing; MULTI is PIVOT.
_ASKING = ("SELECT", "EXPLAIN", "MULTI")

_MESSAGES = "CREATE VIEW messages AS SELECT * FROM records WHERE event = 'data'"
_CONVERSATIONS = """
CREATE TEMP TABLE conversations AS
SELECT DISTINCT host, least(src_sock, dst_sock) AS one, greatest(src_sock, dst_sock) AS other FROM hits
"""
_WIDENED = """
SELECT r.* FROM records r SEMI JOIN conversations c
ON r.host IS NOT DISTINCT FROM c.host
AND least(r.src_sock, r.dst_sock) = c.one AND greatest(r.src_sock, r.dst_sock) = c.other
ORDER BY r.time_ns
"""


class Dataset:
    """A dataset that is open for questions, with its ``files``.

    ``skipped``: those that are no Parquet, or not whole.
    """

    def __init__(self, path: str) -> None:
        """Find the files.  Raises DatasetError."""
        self.files, self.skipped = _files(path)
        self._connection = duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        try:
            relation = self._connection.read_parquet(
                [*map(_pattern, self.files)], hive_partitioning=True, union_by_name=True
            )
            relation.create_view("records")
            self._connection.execute(_MESSAGES)
        except duckdb.Error as error:
            raise DatasetError(f"cannot read {path}: {sentence(error)}") from None

    def _check(self, sql: str) -> None:
        """Raise DatasetError if ``sql`` is not one statement that only asks."""
        try:
            kinds = [statement.type.name for statement in self._connection.extract_statements(sql)]
        except duckdb.Error as error:
            raise DatasetError(_why(error)) from None
        if len(kinds) != 1 or kinds[0] not in _ASKING:
            raise DatasetError("this is not one statement that asks: give a SELECT")

    def interrupt(self) -> None:
        """End the query that runs, from another thread or a signal handler."""
        self._connection.interrupt()

    def progress(self) -> float:
        """Return how many hundredths of the query are done; negative where DuckDB does not tell."""
        tell = getattr(self._connection, "query_progress", None)
        return float(tell()) if tell else -1.0

    def rows(self, sql: str) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
        """Run a query; return its columns, and its rows in pieces.  Raises DatasetError."""
        self._check(sql)
        try:
            result: Any = self._connection.execute(sql)
            columns = [str(column[0]) for column in (result and result.description) or ()]
        except duckdb.Error as error:
            raise DatasetError(_why(error)) from None
        if not columns:
            raise DatasetError("this statement has no result: give a SELECT")

        def pieces() -> Iterator[list[tuple[Any, ...]]]:
            try:
                while rows := result.fetchmany(_ROWS):
                    yield rows
            except duckdb.Error as error:
                raise DatasetError(_why(error)) from None

        return columns, pieces()

    def conversations(self, sql: str) -> Iterator[list[bytes]]:
        """Yield the blocks of a pcapng file with all conversations of which a query finds a record.

        Raises DatasetError.
        """
        self._check(sql)
        try:
            relation = self._connection.sql(sql)
            missing = [name for name in _KEYS if relation is None or name not in relation.columns]
            if relation is None or missing:
                raise DatasetError(
                    f"the result has no column {missing[0]}, by which conversations are found: SELECT *, or "
                    + ", ".join(_KEYS)
                )
            relation.create_view("hits")
            self._connection.execute(_CONVERSATIONS)
            result = self._connection.execute(_WIDENED)
            names = [str(column[0]) for column in result.description or ()]
            hosts: dict[str | None, int] = {}
            yield [pcapng.section_header("", "", f"unixsock {__version__}")]
            while rows := result.fetchmany(_ROWS):
                blocks: list[bytes] = []
                for row in rows:
                    values = dict(zip(names, row))
                    host = None if values["host"] is None else str(values["host"])[:_HOST]
                    if host not in hosts:
                        hosts[host] = len(hosts)
                        description = f"Unix sockets of {host}" if host else "Unix sockets"
                        blocks.append(pcapng.interface(host or "unixsock", description, 0))
                    blocks.append(pcapng.packet(*row_record(values), hosts[host]))
                yield blocks
        except duckdb.Error as error:
            raise DatasetError(_why(error)) from None
        except RowError as error:
            raise DatasetError(f"{error}: the dataset is of another program or version") from None


def _why(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.InterruptException):
        return "stopped"
    return f"DuckDB cannot answer: {sentence(error)}"


def _files(path: str) -> tuple[list[str], list[str]]:
    """Return a dataset's files, and those that are not usable.  Raises DatasetError."""
    if "://" in path:
        return [path.rstrip("/") + "/**/*.parquet"], []
    if not os.path.isdir(path):
        raise DatasetError(f"cannot read {path}: there is no such folder")
    found = sorted(glob.glob(os.path.join(glob.escape(path), "**", "*.parquet"), recursive=True))
    files: list[str] = []
    skipped: list[str] = []
    for name in found:
        (files if _is_whole(name) else skipped).append(name)
    if not files:
        raise DatasetError(f"{path} holds no dataset: there is no Parquet file in it that is whole")
    return files, skipped


def _pattern(name: str) -> str:
    """Return a file's name as DuckDB wants it, which takes * ? and [ for patterns; a URI as it is."""
    if "://" in name:
        return name
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _is_whole(name: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # opening a pipe would wait for its writer
            return False
        with open(name, "rb") as file:
            if file.read(4) != _MAGIC:
                return False
            file.seek(-8, os.SEEK_END)
            length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
            return magic == _MAGIC and length + 12 <= os.path.getsize(name)
    except OSError:
        return False
