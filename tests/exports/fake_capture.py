"""``unixsock dump`` of records that stand for live ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dissector.captures import START, side

from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.cli import dump as command
from unixsock_bpf.cli.main import parse
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import encode


class Source:
    """What ``dump`` asks of a capture."""

    left_out = unattached = ()

    def __init__(self, count: int) -> None:
        self._count = count
        self.statistics = Statistics()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def watch(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        pass

    def blocks(self) -> Iterator[list[bytes]]:
        for number in range(self._count):
            one = replace(side(True, b"/run/x"), message=number, payload=b"x" * 100, len=100)
            yield [pcapng.packet(START + number, encode(one))]


def dump(count: int, arguments: list[str]) -> int:
    """Run the command on ``count`` records."""
    return command.run(parse(["dump", "--include-capture-processes", *arguments]), lambda _: Source(count))
