"""``unixsock query``: ask a dataset in SQL; the hits as a table, JSON, CSV, or back in Wireshark."""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

from unixsock_bpf.cli.errors import Failure, say
from unixsock_bpf.cli.long_work import LongWork
from unixsock_bpf.cli.output import Output
from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.formats.text import harmless

_EXAMPLES = """\
examples:
  unixsock query "SELECT host, path, count(*) FROM messages GROUP BY ALL ORDER BY 3 DESC" /data/unix
  unixsock query "SELECT * FROM messages WHERE path LIKE '%docker.sock' AND text LIKE 'DELETE %'" \\
      /data/unix -w found.pcapng
"""
#: Characters of a cell in a table.
_WIDEST = 80
#: Rows by which the widths of a table's columns are chosen.
_SAMPLE = 1000


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    text = "ask a dataset in SQL (DuckDB)"
    parser = commands.add_parser(
        "query",
        help=text,
        description=text + ": the views are records, and messages for those that carry data",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sql", metavar="SQL", help="a SELECT")
    parser.add_argument("folder", metavar="DIR", help="what dump or export wrote with --format parquet")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    parser.add_argument(
        "-w", "--output", metavar="FILE", help="write the conversations of the hits to a pcapng file"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask.  Raises Failure."""
    from unixsock_bpf.dataset.query import Dataset

    try:
        dataset = Dataset(arguments.folder)
        for name in dataset.skipped:
            say(f"unixsock: left out {name}: it is not a whole Parquet file")
        with LongWork("asking DuckDB", "") as work, _Watch(work, dataset):
            try:
                if arguments.output:
                    return _save(dataset, arguments.sql, arguments.output)
                columns, pieces = dataset.rows(arguments.sql)
                first = next(pieces, [])
                work.clear()
                _print(arguments.format, columns, first, pieces)
            except UnixsockError:
                if not work.stopped:
                    raise
                work.clear()
                raise Failure("stopped", 130) from None
    except UnixsockError as error:
        raise Failure(str(error)) from None
    return 0


class _Watch:
    """Shows progress while DuckDB works in the main thread, and interrupts it on a signal."""

    def __init__(self, work: LongWork, dataset: Any) -> None:
        self._work, self._dataset = work, dataset
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="unixsock query", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            part = self._dataset.progress()
            if self._work.show(max(0, int(part)), 100 if part > 0 else 0):
                self._dataset.interrupt()


def _save(dataset: Any, sql: str, path: str) -> int:
    output: Output | None = None
    count = 0
    for blocks in dataset.conversations(sql):
        output = output or Output(path, dataset.files)
        output.write(blocks)
        count += len(blocks)
    if output:
        output.close()
    if count <= 1:
        say("unixsock: no record was found")
    return 0


def _print(form: str, columns: list[str], first: list[tuple[Any, ...]], rest: Iterator[Any]) -> None:
    output = Output("-")

    def pieces() -> Iterator[list[tuple[Any, ...]]]:
        yield first
        yield from rest

    {"json": _json, "csv": _csv, "table": _table}[form](output, columns, pieces())
    output.close()


def _plain(value: Any) -> Any:
    """Return a value that JSON has: bytes in base64, others as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value)


def _json(output: Output, columns: list[str], pieces: Iterator[list[tuple[Any, ...]]]) -> None:
    for rows in pieces:
        lines = [json.dumps(dict(zip(columns, map(_plain, row)))) + "\n" for row in rows]
        output.write(["".join(lines).encode()])


def _csv(output: Output, columns: list[str], pieces: Iterator[list[tuple[Any, ...]]]) -> None:
    head: list[Any] = [columns]
    for rows in pieces:
        text = io.StringIO()
        csv.writer(text).writerows(head + [list(map(_plain, row)) for row in rows])
        head = []
        output.write([text.getvalue().encode("utf-8", "backslashreplace")])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    data = (
        bytes(value)
        if isinstance(value, (bytes, bytearray, memoryview))
        else str(value).encode("utf-8", "replace")
    )
    text = harmless(data[: 4 * _WIDEST])
    return text if len(text) <= _WIDEST and len(data) <= 4 * _WIDEST else text[: _WIDEST - 1] + "…"


def _table(output: Output, columns: list[str], pieces: Iterator[list[tuple[Any, ...]]]) -> None:
    line = ""
    for rows in pieces:
        cells = [list(map(_cell, row)) for row in rows]
        if not line:
            sample = [list(map(_cell, columns)), *cells[:_SAMPLE]]
            line = "  ".join(f"{{:{max(map(len, column))}}}" for column in zip(*sample))
            cells.insert(0, sample[0])
        output.write(["".join(line.format(*row).rstrip() + "\n" for row in cells).encode("utf-8", "replace")])
