"""Format ``parquet``: a dataset below a folder, for engines that query it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.record import RecordError
from unixsock_bpf.wireshark.tshark import frame_values

#: Fields of which the first that a packet has is its method, and its response time.
_METHODS = (
    "http.request.method", "http2.headers.method", "dbus.member", "varlink.method", "pgsql.query",
    "mysql.query", "memcache.command",
)  # fmt: skip
_TIMES = ("http.time", "http2.time", "dbus.response_time", "varlink.time", "mysql.response_time")


@contextmanager
def _dissected(options: Options) -> Iterator[Iterator[tuple[int, tuple[Any, ...]]]]:
    """Give each frame's number and its protocol, method, packet list text and response time."""

    def parsed(frames: Iterator[tuple[int, str, str, list[str]]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for number, protocol, info, values in frames:
            method = next((value for value in values[: len(_METHODS)] if value), None)
            time = next((value for value in values[len(_METHODS) :] if value), None)
            try:
                seconds = float(time.split(",")[0]) if time else None
            except ValueError:
                seconds = None
            yield number, (protocol or None, method, info or None, seconds)

    with frame_values(options.path, options.display_filter, (*_METHODS, *_TIMES)) as frames:
        yield parsed(frames)


def _into(capture: SavedCapture, path: str, options: Options) -> None:
    from unixsock_bpf.dataset.writer import DatasetWriter

    default = options.host or None
    writer = DatasetWriter(
        path, default or os.path.basename(options.path), options.limits, dissected=options.dissect
    )
    try:
        if options.dissect:
            with _dissected(options) as frames:
                _copy(capture, writer, default, frames)
        else:
            _copy(capture, writer, default, None)
    except RecordError as error:
        capture.count -= 1
        capture.problem = capture.problem or str(error)
    finally:
        writer.close()


def _copy(capture: SavedCapture, writer: Any, default: str | None, frames: Any) -> None:
    data, add = capture.data, writer.add
    hosts: dict[int, str | None] = {}
    nothing = (None, None, None, None)
    frame, values = 0, nothing
    for number, time_ns, begin, end, interface in capture.spans():
        if interface not in hosts:
            hosts[interface] = default or capture.host(interface) or None
        if frames is None:
            add(time_ns, bytes(data[begin:end]), hosts[interface])
            continue
        while frame < number:
            frame, values = next(frames, (1 << 63, nothing))
        add(time_ns, bytes(data[begin:end]), hosts[interface], values if frame == number else nothing)


FORMAT = ExportFormat("parquet", into=_into)
