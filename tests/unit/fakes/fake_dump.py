"""``unixsock dump`` with a source that makes records.

UNIXSOCK_FAKE of them a second, none if that is 0; each with its number, filled up to
UNIXSOCK_FAKE_SIZE bytes.  The first comes after UNIXSOCK_FAKE_START seconds.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from unixsock_bpf import record
from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.cli import dump
from unixsock_bpf.cli.main import main
from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Record


class Source:
    """As unixsock_bpf.capture.session.Capture."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.left_out: list[str] = []
        self.unattached: list[str] = []
        self._stopped = False
        self._poll = select.poll()
        self._watched: dict[int, Callable[[int], None]] = {}

    def __enter__(self) -> Source:
        time.sleep(float(os.environ.get("UNIXSOCK_FAKE_START", "0")))
        return self

    def __exit__(self, *_: object) -> None: ...

    def blocks(self) -> Iterator[Sequence[bytes]]:
        rate, number = float(os.environ["UNIXSOCK_FAKE"]), 0
        size = int(os.environ.get("UNIXSOCK_FAKE_SIZE", "0"))
        yield [pcapng.names([(1, "curl[5]")])]
        while not self._stopped:
            for fd, happened in self._poll.poll(1000 / rate if rate else 1000):
                self._watched[fd](happened)
            if rate:
                payload = (b"%d" % number).ljust(size, b".")
                one = Record(
                    src_sock=1, dst_sock=2, type=2, message=number, len=len(payload), payload=payload
                )
                yield [pcapng.packet(number, record.encode(one))]
                number += 1

    def stop(self) -> None:
        self._stopped = True

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._poll.register(fd, events)
        self._watched[fd] = callback


if __name__ == "__main__":
    dump.capture_source = lambda _: Source()
    sys.exit(main())
