"""A capture without a probe, for the session by mouse where the kernel permits none: relays write records.

All else of the extcap is the real one: options, filter, toolbar, pipes.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unixsock_bpf import record
from unixsock_bpf.capture.base import CaptureSource, Statistics
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege import client

#: Milliseconds between two looks at what the relays have written.
LOOK_MS = 50


class RelayedCapture:
    """A ``CaptureSource`` of what is written into the captures in ``folder`` from now on."""

    attached = "relays"
    writes_output = False
    filling = False
    left_out: Sequence[str] = ()

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self.statistics = Statistics()
        self.proofs: list[str] = []
        self.unattached: list[str] = []
        self.each_second: Callable[[], None] | None = None
        self.feedback_found: Callable[[str], None] = lambda _: None
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._wake, self._waker = os.pipe()
        self._paused = False
        self._named: set[int] = set()

    def __enter__(self) -> RelayedCapture:
        self._read = {file: file.stat().st_size for file in self._folder.iterdir()}
        return self

    def __exit__(self, *_: object) -> None: ...

    def blocks(self) -> Iterator[Sequence[bytes]]:
        last = time.monotonic()
        while True:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            for fd, (events, _) in self._watched.items():
                poll.register(fd, events)
            ready = dict(poll.poll(LOOK_MS))
            yield self._new()
            if self._wake in ready:
                return
            for fd, events in ready.items():
                if fd in self._watched:
                    self._watched[fd][1](events)
            if self.each_second and time.monotonic() - last > 1:
                last = time.monotonic()
                self.each_second()

    def _new(self) -> list[bytes]:
        """Return the packets that are new and wanted, in the order of their times."""
        packets: list[pcapng.Packet] = []
        for file in sorted(self._folder.iterdir()):
            with file.open("rb") as relayed:
                relayed.seek(self._read.get(file, 0))
                data = relayed.read()
            whole = 0
            while len(data) >= whole + 12:
                size = int.from_bytes(data[whole + 4 : whole + 8], "little")
                if len(data) < whole + size:
                    break
                block = data[whole : whole + size]
                if int.from_bytes(block[:4], "little") == pcapng.EPB:
                    packets.append(pcapng.packet_of(block))
                whole += size
            self._read[file] = self._read.get(file, 0) + whole
        blocks = []
        for one in sorted(packets, key=lambda packet: packet.time_ns):
            blocks += self._blocks_of(one)
        return blocks

    def _blocks_of(self, packet: pcapng.Packet) -> list[bytes]:
        """Return the blocks of a packet: names of new sockets, and itself; none if it is not wanted."""
        decoded = record.decode(packet.data)
        events_too = self._settings.events or decoded.event == record.Event.DATA
        if self._paused or not events_too or not self._settings.filter.matches(decoded):
            return []
        self.statistics.messages += 1
        sides = {
            decoded.src_sock: f"{decoded.src_comm.decode()}[{decoded.src_pid}] {decoded.src_name.decode()}",
            decoded.dst_sock: f"{decoded.dst_comm.decode()}[{decoded.dst_pid}] {decoded.dst_name.decode()}",
        }
        new = [(sock, name.strip()) for sock, name in sides.items() if sock not in self._named]
        self._named |= set(sides)
        names = [pcapng.names(new)] if new else []
        return [*names, pcapng.packet(packet.time_ns, packet.data)]

    def stop(self) -> None:
        os.write(self._waker, b"x")

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        self._settings = settings
        done("")

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._watched[fd] = events, callback

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)


def main(folder: str) -> int:
    """Be the extcap, with the captures in ``folder``."""
    from unixsock_bpf.extcap.main import main as extcap

    def source(settings: Settings, output: int | None = None) -> CaptureSource:
        return RelayedCapture(settings, Path(folder))

    client.source = source
    return extcap(sys.argv[1:])
