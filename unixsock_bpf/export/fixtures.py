"""Formats ``json``, ``python``, ``go``, ``rust`` and ``hexstring``: fixtures of table-driven tests."""

from __future__ import annotations

from collections.abc import Iterator

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.formats.fixtures import LANGUAGES, fixtures, source
from unixsock_bpf.formats.reader import SavedCapture


def _format(language: str) -> ExportFormat:
    def pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
        return (text.encode() for text in source(fixtures(one.record for one in capture), language))

    return ExportFormat(language, pieces)


FORMATS = tuple(map(_format, LANGUAGES))
