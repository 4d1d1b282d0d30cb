"""Records in saved captures: pcapng, and classic pcap as ``unixsock dump --format pcap`` writes it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from unixsock_bpf import record
from unixsock_bpf.formats import pcap, pcapng
from unixsock_bpf.formats.pcapng import Buffer, Interface, Skip, Span

_PCAPNG = struct.pack("<I", pcapng.SHB)
#: The last time that a pcap can hold, in 2106; later ones, which only a damaged file has, are shown as this.
LAST_NS = (1 << 32) * 1_000_000_000 - 1
#: Bytes of a mapped file that may stay in memory before they are given back.
_RESIDENT = 64 << 20


class SavedError(ValueError):
    """A file that holds no records of ours; the text says why, and where."""


@dataclass
class Saved:
    """One record of a file.  ``number`` is Wireshark's frame number, from 1."""

    number: int
    time_ns: int
    record: record.Record


class SavedCapture:
    """The records of a file in order, in memory that does not grow with it.

    ``chosen``: the only frames that are wanted, in rising order.  ``tick`` is called now and then, and
    ends the reading by returning True.  ``at``: how far reading has come in ``data``.
    With ``forgiving``, a problem ends the reading as the file's end does, and is kept in ``problem``.
    """

    def __init__(
        self,
        path: str,
        chosen: Iterable[int] | None = None,
        tick: Callable[[SavedCapture], bool] | None = None,
        *,
        forgiving: bool = False,
    ) -> None:
        """Map the file.  Raises OSError for one that cannot be read."""
        self.problem = ""
        self.count = 0  # records that were yielded
        self._tick = tick
        self._forgiving = forgiving
        with open(path, "rb") as file:
            self.data = _content(file.fileno())
        self.at = 0
        self.interfaces: list[Interface] = []
        self._chosen = chosen

    def spans(self) -> Generator[Span, Skip | None, None]:
        """Yield where each of our records lies in ``data``; packets of other link types are left out.

        Where ``skips``, a user that has read more packets of the same interface itself sends where they end,
        and the number of the last.  Raises SavedError for a file of another kind, without a packet of ours,
        or cut short.
        """
        others = ours = 0
        chosen = None if self._chosen is None else iter(self._chosen)
        wanted = resident = ticked = 0
        try:
            reading = _spans(self.data, self.interfaces)
            span = next(reading, None)
            while span is not None:
                begin = span[2]
                skip = None
                if not begin:
                    others += 1
                    span = next(reading, None)
                    continue
                if span[1] > LAST_NS:
                    span = span._replace(time_ns=LAST_NS)
                ours += 1
                if ours - ticked > 1000:
                    ticked = ours
                    self.at = begin
                    if begin - resident > _RESIDENT:
                        self._forget()
                        resident = begin
                    if self._tick and self._tick(self):
                        return
                if chosen is not None:
                    while wanted < span[0]:
                        wanted = next(chosen, 1 << 63)
                    if wanted != span[0]:
                        span = next(reading, None)
                        continue
                self.count += 1
                skip = yield span
                if skip is None:
                    span = next(reading, None)
                    continue
                self.count += skip[1] - span[0]
                ours += skip[1] - span[0]
                try:
                    span = reading.send(skip)
                except StopIteration:
                    span = None
            if others and not ours:
                raise SavedError("it holds packets, but none of Unix sockets (another link type)")
        except (pcap.PcapError, pcapng.PcapngError, SavedError) as error:
            if not self._forgiving:
                raise SavedError(str(error)) from None
            self.problem = str(error)
        self.at = len(self.data)

    @property
    def skips(self) -> bool:
        """Whether each packet is wanted, and ``spans`` can be told to skip some."""
        return self._chosen is None and bytes(self.data[:4]) == _PCAPNG

    def _forget(self) -> None:
        """Give back the memory of what was read: the file has it, should it be wanted again."""
        if isinstance(self.data, mmap.mmap):
            with suppress(OSError):
                self.data.madvise(mmap.MADV_DONTNEED)

    def __iter__(self) -> Iterator[Saved]:
        """Yield the records.  Raises SavedError as ``spans`` does, and for a record of a newer version."""
        for number, time_ns, begin, end, _ in self.spans():
            try:
                found = self.decode(number, begin, end)
            except SavedError as error:
                if not self._forgiving:
                    raise
                self.problem = str(error)
                return
            yield Saved(number, time_ns, found)

    def decode(self, number: int, begin: int, end: int) -> record.Record:
        """Return the record of a span.  Raises SavedError."""
        try:
            return record.decode(self.data[begin:end])
        except record.RecordError as error:
            self.count -= 1
            raise SavedError(f"packet {number}: {error}") from None

    def host(self, interface: int) -> str:
        """Return the host that an interface's description names; empty if it names none."""
        if interface >= len(self.interfaces):
            return ""
        _, found, host = self.interfaces[interface].description.partition(pcapng.DESCRIPTION)
        return host if found else ""


def read(path: str) -> Iterator[Saved]:
    """Yield the records in a file, in order; packets of other link types are left out.

    Raises OSError for a file that cannot be read; SavedError for one of another kind, without
    a packet of ours, cut short, or of a newer version.
    """
    yield from SavedCapture(path)


def _content(fd: int) -> bytes | mmap.mmap:
    """Return a file's bytes; mapped, so that large captures do not have to fit in memory."""
    try:
        return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # a pipe, or empty
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read()


def _spans(data: Buffer, interfaces: list[Interface]) -> Generator[Span, Skip | None, None]:
    """Yield the place of each packet, whichever kind of file ``data`` is."""
    magic = bytes(data[:4])
    if magic == _PCAPNG:
        return pcapng.spans(data, interfaces)
    if magic in pcap.UNITS_NS:
        return pcap.spans(data)
    if not magic:
        raise SavedError("it is empty")
    raise SavedError("it is neither a pcapng nor a pcap file (little-endian, not compressed)")
