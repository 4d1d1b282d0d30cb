"""Format ``har``: HTTP exchanges as an HTTP Archive 1.2, which browsers and mitmproxy read.

Keys that begin with ``_`` are ours: ``_socket``, ``_client`` and ``_server``.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.http import KEPT, HttpMessage, Parser
from unixsock_bpf.export.turns import Conversation, pieces
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.formats.text import name_text, process_text
from unixsock_bpf.record import Event
from unixsock_bpf.version import __version__

#: Requests of a connection that wait for their answers.
_WAITING = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _time(time_ns: int) -> str:
    return (_EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat()


def _pairs(headers: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def _cookies(message: HttpMessage, header: str) -> list[dict[str, str]]:
    found = []
    for name, value in message.headers:
        if name.lower() == header:
            jar: SimpleCookie = SimpleCookie()
            try:
                jar.load(value[:8192])
            except CookieError:
                continue
            found += [{"name": one.key, "value": one.value} for one in jar.values()]
    return found


def _content(message: HttpMessage) -> tuple[bytes, str]:
    """Return a body as it was before compression, and a comment on what is not there."""
    data, comments = bytes(message.body), []
    encoding = message.header("content-encoding").lower()
    if encoding in ("gzip", "x-gzip", "deflate") and data:
        try:
            data = zlib.decompressobj(47 if "gzip" in encoding else zlib.MAX_WBITS).decompress(data, KEPT)
        except zlib.error:
            comments.append(f"{encoding} body could not be decompressed")
    if message.missing:
        comments.append(f"{message.missing} bytes were not captured")
    if message.length - message.missing > len(message.body):
        comments.append(f"only the first {len(message.body)} bytes are here")
    if not message.whole and not message.missing:
        comments.append("the capture ends before the body does")
    return data, "; ".join(comments)


def _request(message: HttpMessage) -> dict[str, Any]:
    method, target, version = message.start
    if target.startswith(("http://", "https://")):
        url = quote(target, safe=":/?#[]@!$&'()*+,;=%-._~")
    else:
        url = f"http://{quote(message.header('host') or 'localhost', safe=':[]')}" + quote(
            target if target.startswith("/") else "/" + target, safe="/?#[]@!$&'()*+,;=:%-._~"
        )
    try:
        query = urlsplit(url).query
    except ValueError:  # brackets of no address
        url = f"http://localhost{quote(target, safe='/?&=%')}"
        query = urlsplit(url).query
    try:
        parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        parameters = []
    about: dict[str, Any] = {
        "method": method,
        "url": url,
        "httpVersion": version,
        "cookies": _cookies(message, "cookie"),
        "headers": _pairs(message.headers),
        "queryString": _pairs(parameters),
        "headersSize": message.head_size,
        "bodySize": message.length,
    }
    if message.length:
        data, comment = _content(message)
        about["postData"] = {"mimeType": message.header("content-type"), "params": []} | _text(
            data, "_encoding"
        )
        if comment:
            about["postData"]["comment"] = comment
    return about


def _text(data: bytes, encoding: str) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(data).decode(), encoding: "base64"}


def _response(message: HttpMessage | None) -> dict[str, Any]:
    if message is None:
        empty = {"size": 0, "mimeType": "x-unknown"}
        return {
            "status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [], "content": empty,
            "redirectURL": "", "headersSize": -1, "bodySize": -1, "comment": "no response was captured",
        }  # fmt: skip
    version, status, words = message.start
    data, comment = _content(message)
    content = {"size": len(data), "mimeType": message.header("content-type") or "x-unknown"} | _text(
        data, "encoding"
    )
    if comment:
        content["comment"] = comment
    return {
        "status": int(status),
        "statusText": words,
        "httpVersion": version,
        "cookies": _cookies(message, "set-cookie"),
        "headers": _pairs(message.headers),
        "content": content,
        "redirectURL": message.header("location"),
        "headersSize": message.head_size,
        "bodySize": message.length,
    }


def _entry(conversation: Conversation, request: HttpMessage, response: HttpMessage | None) -> str:
    def milliseconds(begin: int, end: int) -> float:
        return max(0, end - begin) / 1e6

    send = milliseconds(request.begun_ns, request.ended_ns)
    wait = milliseconds(request.ended_ns, response.begun_ns) if response else 0.0
    receive = milliseconds(response.begun_ns, response.ended_ns) if response else 0.0
    return json.dumps(
        {
            "startedDateTime": _time(request.begun_ns),
            "time": send + wait + receive,
            "request": _request(request),
            "response": _response(response),
            "cache": {},
            "timings": {"send": send, "wait": wait, "receive": receive},
            "connection": str(conversation.number),
            "_socket": name_text(conversation.name),
            "_client": process_text(*conversation.client_process),
            "_server": process_text(*conversation.server_process),
        }
    )


class _Connection:
    """Matches the requests and responses of a conversation."""

    def __init__(self) -> None:
        self.parsers = {True: Parser(responses=False), False: Parser(responses=True)}
        self.waiting: deque[HttpMessage] = deque()

    def feed(
        self, to_server: bool, time_ns: int, data: bytes, missing: int
    ) -> Iterator[tuple[HttpMessage, HttpMessage | None]]:
        """Yield the exchanges that bytes of one direction end."""
        parser = self.parsers[to_server]
        if self.parsers[False].tunnel:
            return
        no_body = bool(self.waiting) and self.waiting[0].start[0] == "HEAD"
        for message in parser.feed(time_ns, data, missing, no_body):
            yield from self._take(to_server, message)

    def _take(
        self, to_server: bool, message: HttpMessage
    ) -> Iterator[tuple[HttpMessage, HttpMessage | None]]:
        if to_server:
            self.waiting.append(message)
            if len(self.waiting) > _WAITING:
                yield self.waiting.popleft(), None
        elif self.waiting and (not message.start[1].startswith("1") or message.start[1] == "101"):
            yield self.waiting.popleft(), message

    def end(self, time_ns: int) -> Iterator[tuple[HttpMessage, HttpMessage | None]]:
        """Yield what the end of the conversation ends."""
        for to_server in (True, False):
            message = self.parsers[to_server].end(time_ns)
            if message:
                yield from self._take(to_server, message)
        while self.waiting:
            yield self.waiting.popleft(), None


def _pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
    creator = json.dumps({"name": "unixsock", "version": __version__})
    yield f'{{"log": {{"version": "1.2", "creator": {creator}, "entries": ['.encode()
    before = "\n"
    for entry in _entries(capture):
        yield (before + entry).encode()
        before = ",\n"
    yield b"\n]}}\n"


def _entries(capture: SavedCapture) -> Iterator[str]:
    connections: dict[int, tuple[Conversation, _Connection]] = {}
    last = 0
    for piece in pieces(capture):
        conversation = piece.conversation
        last = piece.time_ns
        if not conversation.is_stream:
            continue
        if piece.event == Event.DATA:
            _, connection = connections.setdefault(conversation.number, (conversation, _Connection()))
            found = connection.feed(piece.to_server, piece.time_ns, piece.payload, piece.missing)
        elif not piece.to_server or len(conversation.closed) == 1:
            _, connection = connections.pop(conversation.number, (conversation, _Connection()))
            found = connection.end(piece.time_ns)
        else:
            continue
        for request, response in found:
            yield _entry(conversation, request, response)
    for conversation, connection in connections.values():
        for request, response in connection.end(last):
            yield _entry(conversation, request, response)


FORMAT = ExportFormat("har", _pieces)
