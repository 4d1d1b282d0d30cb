"""Messages of Unix sockets for Python programs: live, or from a saved capture.

Each message carries the record itself and pyshark's packet, in which Wireshark's dissectors
have decoded the payload.  pyshark's own LiveCapture asks dumpcap, which knows no extcaps; here
``unixsock dump`` captures and feeds both this program and tshark, so that no packet of a
capture that was ended in an orderly way is lost: the two streams are compared by frame number.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Union

from unixsock_bpf.api.message import End, Message, MessagesError, message
from unixsock_bpf.api.pyshark_packets import Packets
from unixsock_bpf.api.queue import Ended, MessageQueue
from unixsock_bpf.api.sources import File, Live
from unixsock_bpf.timeouts import MESSAGES_THREAD_TIMEOUT_S

__all__ = ["End", "Message", "Messages", "MessagesError", "live", "read"]

#: Messages that may wait for the program before the capture's own buffer fills.
_AHEAD = 1000


class Messages:
    """An iterator and an async iterator of Message, and a context manager of both kinds.

    It starts when it is entered or first asked for a message; a live capture is then
    attached.  ``stop`` ends it in order: what was captured is still delivered.  ``close``
    ends it at once; so does the end of ``with``, and of the object itself, wherever a loop is
    left.  Raises MessagesError where capturing or reading fails.
    """

    def __init__(self, source: _Source, display_filter: str | None) -> None:
        self._work = _Work(source, display_filter)
        weakref.finalize(self, self._work.close)

    def __enter__(self) -> Messages:
        self._work.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Messages:
        try:
            await asyncio.to_thread(self._start)
        except asyncio.CancelledError:
            self._work.kill()  # __aexit__ will not be called
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        self._work.start()
        try:
            return self._work.queue.get()
        except Ended:
            raise StopIteration from None

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        if not self._work.started:
            await asyncio.to_thread(self._start)
        try:
            return await self._work.queue.get_async()
        except Ended:
            raise StopAsyncIteration from None

    def _start(self) -> None:
        """Run in a thread, which holds this object until it has started."""
        self._work.start()

    def stop(self) -> None:
        """Stop a live capture; what it has so far is still delivered."""
        self._work.stop()

    def close(self) -> None:
        """Kill what is at work; nothing more is delivered."""
        self._work.close()


_Source = Union[File, Live]


class _Work:
    """What goes on behind a Messages: the capture, tshark, and the thread that brings both together.

    It knows nothing of the Messages, so that this can be collected while they work.
    """

    def __init__(self, source: _Source, display_filter: str | None) -> None:
        self.queue: MessageQueue[Message] = MessageQueue(_AHEAD)
        self.started = False
        self._source = source
        self._filter = display_filter
        self._packets: Packets | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._closed = False

    def start(self) -> None:
        """Start, and return once messages may come.  Raises MessagesError."""
        with self._lock:
            if self.started or self._closed:
                return
            try:
                packets = Packets(self._filter)  # reports what is missing before anything runs
                self._source.start()
                self._packets = packets
                packets.start(self._source.open())
                self._thread = threading.Thread(target=self._run, name="unixsock messages", daemon=True)
                self._thread.start()
                self.started = True
                if self._closed:  # meanwhile
                    self.close()
            except BaseException as error:
                closed = self._closed  # by another thread: then it ends without having begun
                self.close()
                if not (closed and isinstance(error, MessagesError)):
                    raise

    def _run(self) -> None:
        problem: MessagesError | None = None
        try:
            self._deliver()
        except MessagesError as error:
            problem = error
        except Exception as error:
            problem = MessagesError(f"reading tshark's output failed: {error}")
        self._source.stop()
        self._source.close()
        self.queue.end(problem)

    def _deliver(self) -> None:
        assert self._packets is not None
        try:
            for packet in self._packets:
                one = self._source.record(int(packet.number))
                if one is not None and not self.queue.put(message(one, packet)):
                    break
        except BaseException:
            self._packets.kill()
            with suppress(MessagesError):
                self._packets.close()
            raise
        if self._closed:
            self._packets.kill()
        self._packets.close()
        self._source.check()

    def stop(self) -> None:
        """Stop a live capture."""
        self._source.stop()

    def kill(self) -> None:
        """Stop everything, without waiting for that."""
        self._closed = True
        self.queue.close()
        self._source.kill()
        if self._packets:
            self._packets.kill()

    def close(self) -> None:
        """Kill what is at work and wait for its end, in whatever thread the garbage is collected."""
        self.kill()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(MESSAGES_THREAD_TIMEOUT_S)
        self._source.close()


def read(path: str | os.PathLike[str], display_filter: str | None = None) -> Messages:
    """Yield the messages of a saved capture that ``display_filter`` matches, in order."""
    return Messages(File(os.fspath(path)), display_filter)


def live(
    capture_filter: str = "",
    *,
    count: int | None = None,
    duration: float | None = None,
    display_filter: str | None = None,
    host: str | None = None,
    hosts: Iterable[str] = (),
    **options: str | int | bool,
) -> Messages:
    """Yield the messages that sockets carry from now on; needs root or the privileged helper.

    ``count`` and ``duration`` (seconds) bound it.  ``host``, or each of ``hosts``: where to capture, as
    ssh names it; the messages of several come in the order of time, and the host is
    ``packet.frame_info.interface_name``.  ``options`` are those of the interface, with
    underscores: ``pid=1``, ``events=True``, ``snaplen=100``.
    """
    arguments = [capture_filter] if capture_filter else []
    if count is not None:
        arguments += ["-c", str(count)]
    if duration is not None:
        arguments += ["-a", f"duration:{duration}"]
    for each in [host, *hosts] if host else hosts:
        arguments += ["--host", each]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value is not False:
            arguments.append(f"{option}={value}")
    return Messages(Live(arguments), display_filter)
