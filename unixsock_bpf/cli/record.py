"""``unixsock record``: a flight recorder, which keeps the last minutes in memory until they are asked for."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from unixsock_bpf.capture.base import CaptureSource
from unixsock_bpf.capture.own_processes import users
from unixsock_bpf.capture.process_details import details_of
from unixsock_bpf.cli.arguments import add_filter, add_options, chosen_settings
from unixsock_bpf.cli.dump import StopSignals, capture_source, own_feedback, refusals
from unixsock_bpf.cli.dump_output import KnownNames, numbered
from unixsock_bpf.cli.errors import Failure, reason, say
from unixsock_bpf.cli.output import Output
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.options import Settings
from unixsock_bpf.record import Event

_EXAMPLES = """\
examples:
  unixsock record --keep duration:600 --keep filesize:256
  unixsock record --save before.pcapng
  unixsock record '*docker.sock' -w /var/tmp/docker.pcapng --trigger error
"""

#: MiB that are kept where no size is given.
_MIB = 64
#: Seconds between two files that triggers write: what comes between is in the next one.
_TRIGGER_PAUSE_S = 60.0
#: Bytes at the beginning of a payload in which an error answer shows.
_HEAD = 512
#: Triggers that are events.
_EVENTS = {"refused": Event.REFUSED, "send-error": Event.SEND_ERROR}
_CREDENTIALS = struct.Struct("=iII")


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "record",
        help="keep the last minutes in memory, and save them when something has happened",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_filter(parser)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="CRITERION:N",
        help=f"keep the last duration:SECONDS, and filesize:MIB at most; default: filesize:{_MIB}",
    )
    parser.add_argument("--save", metavar="FILE", help="write what a running recorder has kept to FILE")
    parser.add_argument(
        "-w", "--output", metavar="FILE", help="where SIGUSR1 and triggers write, numbered as by dump -b"
    )
    parser.add_argument(
        "--trigger",
        action="append",
        default=[],
        metavar="WHAT",
        help="write by itself when it comes: refused (a connect), send-error, error (an error answer),"
        " or text:TEXT in a payload",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, start: Callable[[Settings], CaptureSource] = capture_source) -> int:
    """Record until stopped, or save what another process has.  Raises Failure."""
    if arguments.save:
        return _save(arguments.save)
    seconds, mib = _kept(arguments.keep)
    triggers = [_trigger(word) for word in arguments.trigger]
    if triggers and not arguments.output:
        raise Failure("triggers write files: give -w FILE", 2)
    settings = chosen_settings(arguments)
    if _EVENTS.keys() & set(arguments.trigger):
        settings = replace(settings, events=True)
    source = start(settings)
    memory = Memory(seconds, mib << 20, settings)
    feedback = None if settings.include_capture_processes else own_feedback()
    details = details_of(settings)
    with StopSignals(source), _Door() as door:
        try:
            with source:
                recorder = _Recorder(memory, source, arguments.output, triggers)
                source.watch(door.fileno(), 1, lambda _: door.answer(recorder.snapshot))
                asked = recorder.on_signal()
                source.watch(asked, 1, lambda _: recorder.save_if_asked(asked))
                say("unixsock: recording; 'unixsock record --save FILE' saves; Ctrl-C ends")
                for batch in source.blocks():
                    blocks = feedback.kept(batch) if feedback else batch
                    recorder.take(details.added(blocks) if details else blocks)
        except refusals() as error:
            raise Failure(str(error)) from None
    return 0


def _kept(words: Sequence[str]) -> tuple[float, int]:
    """Return seconds (0: any) and MiB of what is kept.  Raises Failure."""
    found = {"duration": 0.0, "filesize": 0.0}
    for word in words:
        kind, _, value = word.partition(":")
        try:
            number = float(value) if len(value) < 20 else 0
        except ValueError:
            number = 0
        if kind not in found or not 0 < number < 1 << 20:
            raise Failure(f"argument --keep: {word!r} is not duration:SECONDS or filesize:MIB", 2)
        found[kind] = number
    return found["duration"], max(1, int(found["filesize"] or _MIB))


#: Beginnings of error answers: HTTP, Redis; D-Bus of both byte orders; JSON-RPC and varlink.
_ERRORS = (b"-ERR", b"-WRONGTYPE", b"l\3", b"B\3")
_ERRORS_WITHIN = (b'"error":{', b'"error": {', b'"error":"', b'"error": "')


def _is_error(payload: bytes) -> bool:
    """Return whether a payload begins with an error answer."""
    if payload.startswith(b"HTTP/1."):
        return payload[9:10] in (b"4", b"5")
    return payload.startswith(_ERRORS) or any(sign in payload for sign in _ERRORS_WITHIN)


def _trigger(word: str) -> Callable[[Block], bool]:
    """Return what decides whether a record's block is worth a file.  Raises Failure."""
    if word in _EVENTS:
        return lambda block: pcapng.event_of(block) == _EVENTS[word]
    if word == "error":
        return lambda block: _is_error(bytes(pcapng.payload_of(block)[:_HEAD]))
    kind, _, text = word.partition(":")
    if kind == "text" and text:
        wanted = os.fsencode(text)
        return lambda block: wanted in bytes(pcapng.payload_of(block))
    raise Failure(f"argument --trigger: {word!r} is not refused, send-error, error or text:TEXT", 2)


class Memory:
    """The last records: of so many seconds (0: any), and so many bytes at most."""

    def __init__(self, seconds: float, size: int, settings: Settings) -> None:
        self._seconds, self._size, self._settings = seconds, size, settings
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._names = KnownNames()
        self._bytes = 0

    def add(self, blocks: Sequence[Block]) -> None:
        """Keep blocks, and forget old ones."""
        now = time.monotonic()
        for block in blocks:
            if pcapng.is_packet(block):
                self._blocks.append((now, bytes(block)))
                self._bytes += len(block)
            else:
                self._names.learn(block)
        self._forget(now)

    def _forget(self, now: float) -> None:
        oldest = now - self._seconds if self._seconds else float("-inf")
        while self._blocks and (self._bytes > self._size or self._blocks[0][0] < oldest):
            self._bytes -= len(self._blocks.popleft()[1])

    def snapshot(self, lost: int) -> list[Block]:
        """Return a file's blocks: what is kept, with the names of its sockets."""
        self._forget(time.monotonic())
        blocks = [block for _, block in self._blocks]
        sockets = {one for block in blocks for one in pcapng.sockets_of(block)}
        settings = self._settings
        return [
            pcapng.file_header(settings.snaplen, settings.filter.text),
            *self._names.blocks(sorted(sockets)),
            *blocks,
            pcapng.statistics(time.time_ns(), len(blocks) + lost, lost),
        ]


class _Recorder:
    """Fills the memory, and writes files when a signal or a trigger comes."""

    def __init__(
        self,
        memory: Memory,
        source: CaptureSource,
        path: str | None,
        triggers: Sequence[Callable[[Block], bool]],
    ) -> None:
        self._memory, self._source, self._path, self._triggers = memory, source, path, triggers
        self._number = 0
        self._next = 0.0

    def snapshot(self) -> list[Block]:
        """Return what is kept as a file's blocks."""
        return self._memory.snapshot(self._source.statistics.lost)

    def take(self, blocks: Sequence[Block]) -> None:
        """Keep blocks; write a file if one of them is a trigger."""
        self._memory.add(blocks)
        if not self._triggers or time.monotonic() < self._next:
            return
        packets = filter(pcapng.is_packet, blocks)
        if any(trigger(block) for block in packets for trigger in self._triggers):
            self._next = time.monotonic() + _TRIGGER_PAUSE_S
            self._write()

    def on_signal(self) -> int:
        """Have SIGUSR1 ask for a file; return the descriptor that is readable then."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def ask(number: int, frame: FrameType | None) -> None:
            with suppress(OSError):
                os.write(writer, b"\0")

        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGUSR1, ask)
        return reader

    def save_if_asked(self, fd: int) -> None:
        """Write a file after a signal."""
        with suppress(BlockingIOError):
            os.read(fd, 4096)
        if self._path is None:
            say("unixsock: SIGUSR1 needs a file: start with -w FILE, or use 'unixsock record --save FILE'")
        else:
            self._write()

    def _write(self) -> None:
        assert self._path is not None
        self._number += 1
        path = numbered(self._path, self._number)
        try:
            output = Output(path)
            output.write(self.snapshot())
            output.close()
            say(f"unixsock: saved {path}")
        except Failure as failure:  # the recorder goes on
            say(f"unixsock: {failure}")


def _door_path() -> Path:
    """Return where the recorder of this user answers."""
    folder = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    if not folder:
        raise Failure("XDG_RUNTIME_DIR is not set: a recorder has no place for its socket")
    return Path(os.environ.get("UNIXSOCK_RECORD_SOCKET") or f"{folder}/unixsock-record.sock")


class _Door:
    """The socket that ``unixsock record --save`` connects to: for this user and root only."""

    def __init__(self) -> None:
        self._path = _door_path()
        self._socket = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> _Door:
        try:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(self._path))
            raise Failure(f"a recorder runs already, at {self._path}")
        except ConnectionRefusedError:  # its owner was killed
            self._path.unlink()
        except OSError:
            pass
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        except OSError as error:
            raise Failure(f"cannot make the socket {self._path}: {reason(error)}") from None
        finally:
            os.umask(before)
        self._socket.listen(4)
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with suppress(OSError):
            self._path.unlink()

    def fileno(self) -> int:
        return self._socket.fileno()

    def answer(self, snapshot: Callable[[], list[Block]]) -> None:
        """Send what is kept to whoever has connected, however slowly that reads."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] not in users() | {0}:
            connection.close()
            return
        threading.Thread(target=_send, args=[connection, snapshot()], daemon=True).start()


def _send(connection: socket.socket, blocks: list[Block]) -> None:
    connection.setblocking(True)
    with connection, suppress(OSError):
        for at in range(0, len(blocks), 1000):
            connection.sendall(b"".join(blocks[at : at + 1000]))


def _save(path: str) -> int:
    """Write what the running recorder has kept to a file.  Raises Failure."""
    door = _door_path()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(door))
        except OSError as error:
            raise Failure(
                f"no recorder answers at {door} ({reason(error)}): start 'unixsock record' beforehand"
            ) from None
        if path == "-" and os.isatty(1):
            raise Failure("pcapng is not for terminals: give --save FILE, or pipe it into another program", 2)
        splitter, ended, records = pcapng.Splitter(), False, 0
        output: Output | None = None
        while data := connection.recv(1 << 20):
            output = output or Output(path)
            blocks = splitter.feed(data)
            records += sum(map(pcapng.is_packet, blocks))
            ended = any(map(pcapng.is_statistics, blocks))
            output.write(blocks)
        if output is None:
            raise Failure("the recorder refuses this user")
        output.close()
    if not ended:
        raise Failure(f"the recorder ended meanwhile; the {records} records before that are in {path}")
    print(f"{records} record{'' if records == 1 else 's'} saved", file=sys.stderr)
    return 0
