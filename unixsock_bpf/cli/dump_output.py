"""What a dump writes its blocks to: one file or stream, or a ring buffer of files as dumpcap's."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from unixsock_bpf.cli.errors import Failure, say
from unixsock_bpf.cli.output import Output
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.base import Format, Options
from unixsock_bpf.formats.pcapng import Block, is_packet

#: Names of sockets that are remembered for later files; the least recently announced is forgotten first.
_NAMES = 1 << 16
#: Files are numbered modulo this, as dumpcap's.
_NUMBERS = 100_000


class Recording(Protocol):
    """Takes a capture's blocks.

    ``pipe``: a descriptor whose reader may go away.  ``each_second``: what is due although no block comes.
    """

    pipe: int | None
    each_second: Callable[[], None] | None

    def write(self, blocks: Sequence[Block]) -> None:
        """Write blocks.  Raises Failure; BrokenPipeError where the reader is gone."""

    def end(self, lost: int, left_out: str) -> None:
        """Write what ends a capture, and close.  ``left_out``: what was left out as feedback."""


class FileRecording:
    """One file, or standard output, in one format."""

    each_second: Callable[[], None] | None = None

    def __init__(self, path: str, form: Format, options: Callable[[bool], Options]) -> None:
        """Open the output and write its header.  ``options`` gets whether it is a terminal."""
        self._output = Output(path)
        self._writer = form.writer(options(self._output.is_terminal))
        self.records = 0
        self.bytes = 0
        self.pipe = self._output.fd if self._output.is_pipe else None
        self._put(self._writer.header())

    def _put(self, pieces: Sequence[Block]) -> None:
        self._output.write(pieces)
        self.bytes += sum(map(len, pieces))

    def write(self, blocks: Sequence[Block]) -> None:
        self._put(self._writer.pieces(blocks))
        self.records += sum(map(is_packet, blocks))

    def end(self, lost: int, left_out: str) -> None:
        self._put(self._writer.trailer(time.time_ns(), self.records + lost, lost, left_out))
        self._output.close()


@dataclass
class Ring:
    """When to begin the next file (seconds, kB of 1000 bytes, records), and how many files to keep.

    0: no limit.
    """

    duration: float = 0
    filesize: int = 0
    packets: int = 0
    files: int = 0


def ring(words: Sequence[str]) -> Ring | None:
    """Return what the values of ``-b`` ask for, each ``CRITERION:VALUE``; None for none.  Raises Failure."""
    if not words:
        return None
    found = Ring()
    known = [one.name for one in fields(Ring)]
    for word in words:
        kind, _, value = word.partition(":")
        try:
            number = float(value) if kind == "duration" else int(value) if value.isascii() else 0
        except ValueError:
            number = 0
        most = threading.TIMEOUT_MAX if kind == "duration" else 1 << 40
        if kind not in known or not 0 < number <= most:
            choices = ", ".join(f"{name}:N" for name in known)
            raise Failure(f"argument -b: {word!r} is not one of {choices}, with N above 0", 2)
        setattr(found, kind, number)
    if not (found.duration or found.filesize or found.packets):
        raise Failure("argument -b: say when the next file begins, such as -b duration:60", 2)
    return found


def numbered(path: str, number: int) -> str:
    """Return the name of one of several files as dumpcap makes it.

    ``a.pcapng`` becomes ``a_00001_20261130201500.pcapng``.
    """
    folder, name = os.path.split(path)
    stem, dot, suffix = name.rpartition(".")
    stamp = time.strftime("%Y%m%d%H%M%S")
    if not dot:
        stem, suffix = suffix, ""
    return os.path.join(folder, f"{stem}_{number % _NUMBERS:05}_{stamp}{dot}{suffix}")


class KnownNames:
    """The names of sockets so far, for files that begin later."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def learn(self, block: Block) -> list[int]:
        """Remember the names in a block; return the sockets that they are of."""
        found = pcapng.names_of(block)
        for sock, name in found:
            self._names.pop(sock, None)
            self._names[sock] = name
        while len(self._names) > _NAMES:
            del self._names[next(iter(self._names))]
        return [sock for sock, _ in found]

    def blocks(self, sockets: Sequence[int]) -> list[Block]:
        """Return blocks with the names of ``sockets``, as far as they are known."""
        known = [(one, self._names[one]) for one in sockets if one in self._names]
        return [pcapng.names(known[at : at + 1000]) for at in range(0, len(known), 1000)]


class RingRecording:
    """Several files, one after the other; each is whole by itself, with the names of its sockets.

    Of the files that this capture has made, the oldest are removed beyond ``ring.files``.  ``lost``:
    messages lost so far.
    """

    pipe: int | None = None

    def __init__(
        self, path: str, ring: Ring, form: Format, options: Callable[[bool], Options], lost: Callable[[], int]
    ) -> None:
        """Open the first file."""
        self._path = path
        self._ring, self._form, self._options, self._lost = ring, form, options, lost
        self._number = 0
        self._paths: deque[str] = deque()
        self._names = KnownNames()
        self._lost_before = 0
        self._current = self._next()
        self.each_second: Callable[[], None] | None = self._switch_by_age if ring.duration else None

    def _next(self) -> FileRecording:
        """Open the next file, and remove the oldest ones."""
        self._number += 1
        path = numbered(self._path, self._number)
        opened = FileRecording(path, self._form, self._options)
        self._begun = time.monotonic()
        self._named: set[int] = set()  # sockets whose names this file has
        self._paths.append(path)
        while self._ring.files and len(self._paths) > self._ring.files:
            oldest = self._paths.popleft()
            try:
                os.unlink(oldest)
            except FileNotFoundError:  # somebody has moved it away
                pass
            except OSError as error:
                say(f"unixsock: cannot remove {oldest}: {(error.strerror or '').lower()}")
        return opened

    def _switch(self) -> None:
        lost = self._lost()
        self._current.end(lost - self._lost_before, "")
        self._lost_before = lost
        self._current = self._next()

    @property
    def _due(self) -> bool:
        ring, current = self._ring, self._current
        return bool(
            (ring.packets and current.records >= ring.packets)
            or (ring.filesize and current.bytes >= ring.filesize * 1000)
            or (ring.duration and time.monotonic() - self._begun >= ring.duration)
        )

    def _switch_by_age(self) -> None:
        """Begin the next file when it is time, so that ``duration`` and ``files`` bound what is kept."""
        if self._due:
            self._switch()

    def write(self, blocks: Sequence[Block]) -> None:
        at = 0
        while at < len(blocks):
            if self._due:
                self._switch()
            end = self._fitting(blocks, at)
            self._current.write(self._with_names(blocks[at:end]))
            at = end

    def _fitting(self, blocks: Sequence[Block], at: int) -> int:
        """Return up to where ``blocks`` go into the present file: up to the record that fills it."""
        packets = self._ring.packets - self._current.records
        room = self._ring.filesize * 1000 - self._current.bytes
        if not self._ring.packets and not self._ring.filesize:
            return len(blocks)
        while at < len(blocks):
            packets -= is_packet(blocks[at])
            room -= len(blocks[at])
            at += 1
            if (self._ring.packets and packets <= 0) or (self._ring.filesize and room <= 0):
                break
        return at

    def _with_names(self, blocks: Sequence[Block]) -> list[Block]:
        """Return ``blocks`` with the names that earlier files have before the first record of each socket."""
        result: list[Block] = []
        for block in blocks:
            if is_packet(block):
                missing = [one for one in pcapng.sockets_of(block) if one not in self._named]
                self._named.update(missing)
                if missing:
                    result += self._names.blocks(missing)
            else:
                self._named.update(self._names.learn(block))
            result.append(block)
        return result

    def end(self, lost: int, left_out: str) -> None:
        self._current.end(lost - self._lost_before, left_out)
