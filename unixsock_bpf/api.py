"""Messages of Unix sockets for Python programs: live, or from a saved capture.

Each message carries the record itself and pyshark's packet, in which Wireshark's dissectors
have decoded the payload.  pyshark's own LiveCapture asks dumpcap, which knows no extcaps; here
``unixsock dump`` captures and feeds both this program and tshark, so that no packet of a
capture that was ended in an orderly way is lost: the two streams are compared by frame number.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from unixsock_bpf import pcapng, record, saved, tshark

#: Messages that may wait for the program before the capture's own buffer fills.
_AHEAD = 1000


class MessagesError(Exception):
    """A capture that could not be made or read, in one sentence."""


@dataclass(frozen=True)
class End:
    """One end of a conversation.  None is "not known"; ``name`` is as people write it."""

    pid: int | None
    comm: str | None
    uid: int | None
    gid: int | None
    inode: int | None
    name: str | None


@dataclass(frozen=True)
class Message:
    """One record.

    ``number`` is the frame number, ``time_ns`` the time since the epoch in nanoseconds,
    ``path`` the bound name of the conversation, ``event`` a number if this version does not know it,
    ``packet`` pyshark's packet.
    """

    number: int
    time_ns: int
    event: record.Event | int
    type: record.SocketType | None
    path: str | None
    src: End
    dst: End
    payload: bytes
    fds: tuple[record.Fd, ...]
    record: record.Record
    packet: Any


def _name(name: bytes) -> str | None:
    return record.display_name(name).decode("utf-8", "backslashreplace") or None


def _end(one: record.Record, side: str) -> End:
    flag = record.Flag.SRC_CREDS if side == "src" else record.Flag.DST_CREDS
    known = bool(one.flags & flag)
    return End(
        getattr(one, f"{side}_pid") or None,
        getattr(one, f"{side}_comm").decode("utf-8", "backslashreplace") or None,
        getattr(one, f"{side}_uid") if known else None,
        getattr(one, f"{side}_gid") if known else None,
        getattr(one, f"{side}_inode") or None,
        _name(getattr(one, f"{side}_name")),
    )


def _message(one: saved.Saved, packet: Any) -> Message:
    decoded = one.record
    types = record.SocketType._value2member_map_
    events = record.Event._value2member_map_
    return Message(
        one.number,
        one.time_ns,
        record.Event(decoded.event) if decoded.event in events else decoded.event,
        record.SocketType(decoded.type) if decoded.type in types else None,
        _name(decoded.name),
        _end(decoded, "src"),
        _end(decoded, "dst"),
        decoded.payload,
        tuple(decoded.fds),
        decoded,
        packet,
    )


class Messages:
    """An iterator and an async iterator of Message, and a context manager of both kinds.

    It starts when it is entered or first asked for a message; a live capture is then
    attached.  ``stop`` ends it in order: what was captured is still delivered.  ``close``
    (the end of ``with``) ends it at once.  Raises MessagesError where capturing or
    reading fails.
    """

    def __init__(self, source: _File | _Live, display_filter: str | None) -> None:
        self._source = source
        self._filter = display_filter
        self._queue: queue.Queue[Message | BaseException | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._ended = False

    def __enter__(self) -> Messages:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Messages:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        self._start()
        if self._ended:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, Message):
            return item
        self._ended = True
        self.close()
        if item is not None:
            raise item
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        found = await asyncio.to_thread(next, self, None)
        if found is None:
            raise StopAsyncIteration
        return found

    def stop(self) -> None:
        """Ends a live capture; what it has so far is still delivered."""
        self._source.stop()

    def close(self) -> None:
        """Ends everything now."""
        self._closed.set()
        self._source.close()
        if self._thread and self._thread is not threading.current_thread():
            while self._thread.is_alive():
                with _ignored(queue.Empty):  # it may wait for room
                    self._queue.get_nowait()
                self._thread.join(0.05)
        self._source.reap()
        self._ended = True

    def _start(self) -> None:
        if self._thread is None and not self._ended:
            _pyshark()  # here, so that what is missing is told before anything runs
            _tshark()
            self._source.start()
            self._thread = threading.Thread(target=self._run, name="unixsock messages", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """In a thread with an event loop of its own, so that it gets on with anybody else's."""
        end: BaseException | None = None
        try:
            self._deliver()
        except MessagesError as error:
            end = error
        except Exception as error:
            end = MessagesError(f"reading tshark's output failed: {error}")
        if not self._closed.is_set():
            self._queue.put(end)

    def _deliver(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        capture = _pyshark_capture(self._source, self._filter, loop)
        try:
            for packet in capture._packets_from_tshark_sync():
                one = self._source.record(int(packet.number))
                if one is not None:
                    self._queue.put(_message(one, packet))
                if self._closed.is_set():
                    return
            capture.close()
            self._source.finish()
            if capture.status:
                raise MessagesError(capture.complaint())
        finally:
            capture.close()
            loop.close()


def _ignored(*kinds: type[BaseException]) -> Any:
    from contextlib import suppress

    return suppress(*kinds)


def _pyshark() -> Any:
    """pyshark's basic capture class."""
    try:
        from pyshark.capture.capture import Capture
    except ImportError:
        raise MessagesError("the Python package pyshark is missing: install it with pip") from None
    return Capture


def _tshark() -> list[str]:
    """What makes tshark load the dissector, if both are there."""
    if shutil.which("tshark") is None:
        raise MessagesError("tshark was not found: install tshark")
    try:
        return tshark.dissector_arguments()
    except tshark.TsharkError as error:
        raise MessagesError(str(error)) from None


def _pyshark_capture(source: _File | _Live, display_filter: str | None, loop: Any) -> Any:
    """A capture of pyshark's that reads what ``source`` offers."""

    class TsharkCapture(_pyshark()):  # type: ignore[misc]
        status = 0
        said: list[str] = []  # noqa: RUF012 (one capture a class)

        def get_parameters(self, packet_count: int | None = None) -> list[str]:
            parameters: list[str] = super().get_parameters(packet_count)
            return [*parameters, "-r", source.input]

        async def _get_tshark_process(self, packet_count: int | None = None, stdin: Any = None) -> Any:
            process = await super()._get_tshark_process(packet_count, source.stdin)
            source.started()
            return process

        async def _handle_process_stderr_forever(self, stderr: Any) -> None:
            async for line in stderr:
                self.said.append(line.decode(errors="replace").strip())

        async def _cleanup_subprocess(self, process: Any) -> None:
            # pyshark's own kills a tshark that is about to say what is wrong.
            if not self._eof_reached and process.returncode is None:
                process.kill()
                process._transport.close()
            self.status = max(await process.wait(), 0)
            self._running_processes.discard(process)

        def complaint(self) -> str:
            lines = [line for line in self.said if line and not line.startswith("Running as user")]
            return " ".join(lines) or f"tshark failed with status {self.status}"

    return TsharkCapture(display_filter=display_filter, eventloop=loop, custom_parameters=_tshark())


class _File:
    """A saved capture."""

    stdin = None

    def __init__(self, path: str) -> None:
        self.input = path
        self._records: Iterator[saved.Saved] = iter(())

    def start(self) -> None:
        if not Path(self.input).is_file():
            raise MessagesError(f"cannot read {self.input}: there is no such file")
        self._records = saved.read(self.input)

    def started(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

    def reap(self) -> None:
        """Lets go of the file."""
        self._records = iter(())

    def record(self, number: int) -> saved.Saved | None:
        """The record of a frame; frames are asked for in order."""
        try:
            for one in self._records:
                if one.number == number:
                    return one
                if one.number > number:
                    raise MessagesError(f"frame {number} of {self.input} is not of a Unix socket")
        except (OSError, saved.SavedError) as error:
            raise MessagesError(f"cannot use {self.input}: {error}") from None
        return None

    def finish(self) -> None:
        """Whatever tshark left out must have been readable, too."""
        try:
            for _ in self._records:
                pass
        except (OSError, saved.SavedError) as error:
            raise MessagesError(f"cannot use {self.input}: {error}") from None


class _Live:
    """``unixsock dump`` in a process of its own, read by this program and by tshark."""

    input = "-"

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._records: deque[saved.Saved] = deque()
        self.stdin, self._to_tshark = -1, -1
        self._said: list[str] = []
        self._ready = threading.Event()

    def start(self) -> None:
        """Returns once the probe is attached.  Raises MessagesError if it cannot be."""
        checkout = str(Path(__file__).resolve().parent.parent)
        command = [sys.executable, "-m", "unixsock_bpf", "dump", "--format", "pcapng", *self._arguments]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (checkout, os.environ.get("PYTHONPATH"))))
        }
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.stdin, self._to_tshark = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._listen, daemon=True).start()
        self._ready.wait()
        if self._process.poll() not in (None, 0):
            os.close(self.stdin)
            os.close(self._to_tshark)
            raise MessagesError(self._complaint())
        threading.Thread(target=self._feed, daemon=True).start()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").strip())
            if "capturing" in self._said[-1]:
                self._ready.set()
        self._process.wait()
        self._ready.set()

    def _complaint(self) -> str:
        lines = [line for line in self._said if line.startswith("unixsock: ") and "capturing" not in line]
        return lines[-1].removeprefix("unixsock: ") if lines else "the capture ended with an error"

    def _feed(self) -> None:
        """Blocks from the capture to tshark, each record kept for ``record``."""
        assert self._process is not None
        assert self._process.stdout is not None
        number = 0
        try:
            while block := _read_block(self._process.stdout):
                if block[:4] == b"\x06\0\0\0":
                    number += 1
                    packet = pcapng.packet_of(block)
                    decoded = record.decode(packet.data)
                    self._records.append(saved.Saved(number, packet.time_ns, decoded))
                _write_all(self._to_tshark, block)
        except OSError:
            pass  # tshark is gone, which its reader notices
        finally:
            os.close(self._to_tshark)
            self._process.stdout.close()

    def started(self) -> None:
        """tshark has its end of the pipe."""
        os.close(self.stdin)

    def record(self, number: int) -> saved.Saved | None:
        """The record of a frame; frames are asked for in order."""
        while self._records:
            one = self._records.popleft()
            if one.number == number:
                return one
        return None

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Ends the capture, and with it tshark's input."""
        self.stop()

    def reap(self) -> None:
        """Waits for the capture's process, whose pipe has an end by now."""
        if self._process:
            self._process.wait()

    def finish(self) -> None:
        """Raises MessagesError if the capture failed."""
        assert self._process is not None
        if self._process.wait() != 0:
            raise MessagesError(self._complaint())


def _read_block(stream: IO[bytes]) -> bytes:
    """The next whole pcapng block; nothing at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return b""
    length = int.from_bytes(head[4:], "little")
    body = stream.read(length - 8)
    return head + body if len(body) == length - 8 else b""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(path: str | os.PathLike[str], display_filter: str | None = None) -> Messages:
    """The messages of a saved capture that ``display_filter`` takes, in order."""
    return Messages(_File(os.fspath(path)), display_filter)


def live(
    capture_filter: str = "",
    *,
    count: int | None = None,
    duration: float | None = None,
    display_filter: str | None = None,
    **options: str | int | bool,
) -> Messages:
    """The messages that sockets carry from now on; needs root.

    ``count`` and ``duration`` (seconds) bound it.  ``options`` are those of the interface, with
    underscores: ``pid=1``, ``events=True``, ``snaplen=100``.
    """
    arguments = [capture_filter] if capture_filter else []
    if count is not None:
        arguments += ["-c", str(count)]
    if duration is not None:
        arguments += ["-a", f"duration:{duration}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value is not False:
            arguments.append(f"{option}={value}")
    return Messages(_Live(arguments), display_filter)
