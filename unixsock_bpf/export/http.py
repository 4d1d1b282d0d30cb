"""HTTP/1 messages in the two directions of a conversation, as bytes come and go missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Bytes of a body that are kept; the rest is only counted.
KEPT = 8 << 20
#: A longer head is none.
_LONGEST_HEAD = 1 << 18
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([^\r\n ]{1,65536}) (HTTP/1\.[01])\r?\n")
_RESPONSE = re.compile(rb"(HTTP/1\.[01]) (\d\d\d)(?: ([^\r\n]*))?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[^\n]{0,1024}\n")


@dataclass
class HttpMessage:
    """A request or response.  ``start``: the three parts of its first line.  ``length`` counts the body."""

    start: tuple[str, str, str]
    headers: list[tuple[str, str]]
    head_size: int
    begun_ns: int
    ended_ns: int = 0
    body: bytearray = field(default_factory=bytearray)
    length: int = 0
    missing: int = 0
    whole: bool = False

    def header(self, name: str) -> str:
        """Return a header's value, empty without one."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Parser:
    """Cuts one direction into messages, incrementally and in linear time."""

    def __init__(self, responses: bool) -> None:
        self._responses = responses
        self._buffer = bytearray()
        self._searched = 0
        self._message: HttpMessage | None = None
        self._left = 0  # bytes of the body or chunk that are to come; -1: up to the end
        self._chunked = self._in_chunk = False
        self._lost = False
        self.tunnel = False  # not HTTP any more

    def feed(self, time_ns: int, data: bytes, missing: int, no_body: bool) -> Iterator[HttpMessage]:
        """Yield the messages that ``data`` ends; ``no_body``: the next response answers HEAD."""
        if self.tunnel:
            return
        if missing:
            yield from self._gap(time_ns, missing)
        if self._lost:
            if not (_RESPONSE if self._responses else _REQUEST).match(data):
                return
            self._lost = False
        self._buffer += data
        while self._buffer or self._message:
            before = len(self._buffer), self._message
            if self._message is None:
                if not self._head(time_ns, no_body):
                    return
            else:
                self._body(time_ns)
            message = self._message
            if message and message.whole:
                message.ended_ns = time_ns
                self._message = None
                yield message
                no_body = False
            elif before == (len(self._buffer), self._message):
                return

    def end(self, time_ns: int) -> HttpMessage | None:
        """Return the message that only the end of the connection ends."""
        message, self._message = self._message, None
        if message:
            message.ended_ns = time_ns
            message.whole = self._left < 0
        return message

    def _gap(self, time_ns: int, missing: int) -> Iterator[HttpMessage]:
        message = self._message
        if message is None:
            self._lost = True
            self._buffer.clear()
            return
        message.missing += missing
        if self._left < 0:
            return
        if not self._chunked and missing <= self._left:
            self._left -= missing
            message.length += missing
            if not self._left:
                message.ended_ns, self._message = time_ns, None
                yield message
            return
        self._lost, self._message = True, None
        self._buffer.clear()
        message.ended_ns = time_ns
        yield message

    def _head(self, time_ns: int, no_body: bool) -> bool:
        end = _HEAD_END.search(self._buffer, max(0, self._searched - 3))
        if not end:
            self._searched = len(self._buffer)
            if self._searched > _LONGEST_HEAD or (self._searched >= 16 and not self._plausible()):
                self._lost = True
                self._buffer.clear()
                self._searched = 0
            return False
        head = bytes(self._buffer[: end.end()])
        del self._buffer[: end.end()]
        self._searched = 0
        first = (_RESPONSE if self._responses else _REQUEST).match(head)
        if not first:
            self._lost = True
            self._buffer.clear()
            return False
        headers = []
        for line in head[first.end() :].splitlines():
            name, found, value = line.partition(b":")
            if found:
                headers.append((name.strip().decode("latin-1"), value.strip().decode("latin-1")))
        one, two, three = ((part or b"").decode("latin-1") for part in first.groups())
        self._message = HttpMessage((one, two, three), headers, len(head), time_ns)
        self._length(self._message, no_body)
        return True

    def _plausible(self) -> bool:
        return self._buffer.startswith(b"HTTP/1.") if self._responses else b" " in self._buffer[:65]

    def _length(self, message: HttpMessage, no_body: bool) -> None:
        """Find out how the body ends (RFC 9112, section 6.3)."""
        self._chunked = self._in_chunk = False
        self._left = 0
        status = message.start[1] if self._responses else ""
        if no_body or status.startswith("1") or status in ("204", "304"):
            message.whole = True
            self.tunnel = status == "101"
        elif "chunked" in message.header("transfer-encoding").lower():
            self._chunked = True
        elif (value := message.header("content-length")).isdigit() and len(value) < 18:
            self._left = int(value)
            message.whole = not self._left
        elif self._responses:
            self._left = -1
        else:
            message.whole = True

    def _body(self, time_ns: int) -> None:
        message = self._message
        assert message is not None
        if message.whole:
            return
        if self._left < 0:
            self._take(message, len(self._buffer))
        elif self._left:
            count = min(self._left, len(self._buffer))
            self._take(message, count)
            self._left -= count
            message.whole = not self._left and not self._chunked
        elif self._chunked:
            self._chunk(message)

    def _chunk(self, message: HttpMessage) -> None:
        if self._in_chunk:  # the line end behind it
            if len(self._buffer) < 2:
                return
            del self._buffer[: 2 if self._buffer.startswith(b"\r\n") else 1]
            self._in_chunk = False
        head = _CHUNK.match(self._buffer)
        if not head:
            if len(self._buffer) > 2048:
                self._lost, message.whole = True, True
                self._buffer.clear()
            return
        size = int(head[1], 16)
        if size:
            self._left, self._in_chunk = size, True
            del self._buffer[: head.end()]
            return
        rest = self._buffer[head.end() :]
        end = 2 if rest.startswith(b"\r\n") else 1 if rest.startswith(b"\n") else 0
        if not end:
            trailers = _HEAD_END.search(rest)
            if not trailers:
                return
            end = trailers.end()
        del self._buffer[: head.end() + end]
        message.whole = True

    def _take(self, message: HttpMessage, count: int) -> None:
        room = KEPT - len(message.body)
        if room > 0:
            message.body += self._buffer[: min(room, count)]
        message.length += count
        del self._buffer[:count]
