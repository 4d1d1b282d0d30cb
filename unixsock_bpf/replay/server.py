"""A server at a socket that answers from a capture, for integration tests of clients.

A request that was recorded, byte for byte, gets the answers that followed it; others get those of the next
recorded request in order.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.export.turns import Piece, pieces
from unixsock_bpf.formats.reader import Saved
from unixsock_bpf.record import Event, SocketType

#: Bytes of recorded requests and answers that are kept.
_MOST = 1 << 30
#: Bytes of a client's that wait for the rest of a request.
_LONGEST = 16 << 20
#: Connections at a time.
_CONNECTIONS = 1000
#: A request that is shorter than the recorded one is taken for whole after so many seconds without more.
QUIET_S = 0.3
_WORD = 4
#: The most words that an answer may repeat of its request.
_WORDS = 64


class ReplayError(UnixsockError):
    """A server cannot be made, or has nothing to say: one sentence."""


@dataclass
class Exchange:
    """What a client said, and what the server said until the client spoke again."""

    request: bytes
    answers: list[bytes] = field(default_factory=list)


@dataclass
class Dialogue:
    """A recorded conversation."""

    greeting: list[bytes]
    exchanges: list[Exchange]


def dialogues(records: Iterable[Saved], path: str, name: str | None) -> tuple[list[Dialogue], int, int]:
    """Return a recorded server's conversations, their socket type, and how many bytes are missing in them.

    ``name`` is the recorded server's socket; None: ``path`` if that was recorded, else the only one.  Raises
    ReplayError if there is none, or not one, or if they are of several types, or too large.
    """
    servers: dict[str, _Server] = {}
    size = 0
    for piece in pieces(records):
        if piece.event != Event.DATA:
            continue
        size += len(piece.payload)
        if size > _MOST:
            raise ReplayError("there is more than 1 GiB to answer from: choose packets with -Y")
        servers.setdefault(_name(piece.conversation.name), _Server()).add(piece)
    wanted = name if name is not None else path if path in servers else None
    if wanted is None and len(servers) == 1:
        (wanted,) = servers
    if wanted is None and servers:
        names = ", ".join(sorted(servers)[:5]) + (", …" if len(servers) > 5 else "")
        raise ReplayError(f"the capture has several servers ({names}): choose one with --name")
    found = servers.get(wanted) if wanted is not None else None
    if found is None:
        raise ReplayError(
            f"there is no message of {wanted} in the capture"
            if wanted
            else "there is no message to answer from"
        )
    if not found.kinds <= {kind.value for kind in SocketType}:
        raise ReplayError("the capture does not tell the server's socket type")
    if len(found.kinds) > 1:
        raise ReplayError("the server has sockets of several types: choose packets with -Y")
    return found.dialogues(), next(iter(found.kinds)), found.missing


@dataclass
class _Recorded:
    """What a client said in pieces, and the server's messages in pieces."""

    request: list[bytes] = field(default_factory=list)
    answers: list[list[bytes]] = field(default_factory=list)


class _Server:
    """What was recorded of one server."""

    def __init__(self) -> None:
        #: By conversation; the first turn is the server's greeting.
        self._turns: dict[int, list[_Recorded]] = {}
        self.kinds: set[int] = set()
        self.missing = 0
        self._last: dict[int, bool] = {}
        self._unfinished: set[tuple[int, bool]] = set()

    def add(self, piece: Piece) -> None:
        """Add what one side said."""
        number, to_server = piece.conversation.number, piece.to_server
        self.kinds.add(piece.conversation.type)
        self.missing += piece.missing
        turns = self._turns.setdefault(number, [_Recorded()])
        continued = (number, to_server) in self._unfinished
        if to_server:
            joined = continued or (piece.conversation.is_stream and self._last.get(number) is True)
            if not joined or len(turns) == 1:
                turns.append(_Recorded())
            turns[-1].request.append(piece.payload)
        else:
            answers = turns[-1].answers
            if not continued or not answers:
                answers.append([])
            answers[-1].append(piece.payload)
        self._last[number] = to_server
        (self._unfinished.add if piece.more else self._unfinished.discard)((number, to_server))

    def dialogues(self) -> list[Dialogue]:
        """Return the conversations."""
        return [
            Dialogue(
                [b"".join(answer) for answer in greeting.answers],
                [
                    Exchange(b"".join(one.request), [b"".join(answer) for answer in one.answers])
                    for one in turns
                ],
            )
            for greeting, *turns in self._turns.values()
        ]


def _name(name: bytes) -> str:
    return os.fsdecode(name.replace(b"\0", b"@"))


def adapted(answer: bytes, recorded: bytes, request: bytes) -> bytes:
    """Return an answer to ``request`` from that to ``recorded``, with what it repeats of the request.

    Words of four bytes that differ between requests of one length are replaced where the answer has them:
    random sequence numbers and cookies.  Where many differ, it is another request.
    """
    if len(recorded) != len(request) or recorded == request:
        return answer
    changed = bytearray(answer)
    words = 0
    for at in range(0, len(recorded) - _WORD + 1, _WORD):
        old, new = recorded[at : at + _WORD], request[at : at + _WORD]
        if old == new or len(set(old)) < 3:  # small numbers stand everywhere
            continue
        words += 1
        if words > _WORDS:
            return answer
        place = answer.find(old)
        while place >= 0:
            changed[place : place + _WORD] = new
            place = answer.find(old, place + _WORD)
    return bytes(changed)


class Script:
    """All recorded exchanges, and which of them are next."""

    def __init__(self, recorded: list[Dialogue]) -> None:
        self.recorded = recorded
        self._connections = 0
        self._by_request: dict[bytes, deque[Exchange]] = {}
        self._places: dict[int, tuple[Dialogue, int]] = {}
        for dialogue in recorded:
            for number, exchange in enumerate(dialogue.exchanges):
                self._places[id(exchange)] = dialogue, number
                self._by_request.setdefault(exchange.request, deque()).append(exchange)

    def next_dialogue(self) -> Dialogue:
        """Return the next recorded conversation, from the first again after the last."""
        dialogue = self.recorded[self._connections % len(self.recorded)]
        self._connections += 1
        return dialogue

    def same(self, request: bytes) -> Exchange | None:
        """Return the next exchange with just this request."""
        found = self._by_request.get(request)
        if not found:
            return None
        found.rotate(-1)
        return found[-1]

    def place(self, exchange: Exchange) -> tuple[Dialogue, int]:
        """Return the conversation that an exchange is of, and its number in it."""
        return self._places[id(exchange)]

    def knows(self, request: bytes) -> bool:
        """Tell whether just this request was recorded."""
        return request in self._by_request


class Turn:
    """One client, and its place in the conversation that it was given."""

    def __init__(self, script: Script, match: str) -> None:
        self._script, self._match = script, match
        self._dialogue = script.next_dialogue()
        self._at = 0
        self._received = bytearray()
        self.since = 0.0

    def greeting(self) -> list[bytes]:
        """Return what the server says first."""
        return self._dialogue.greeting

    @property
    def waits(self) -> bool:
        """Whether a part of a request waits for more."""
        return bool(self._received)

    def message(self, request: bytes) -> list[bytes]:
        """Return the answers to a whole message."""
        exchange = self._script.same(request) if self._match != "order" else None
        if exchange is None and self._match != "bytes":
            exchange = self._in_order()
        elif exchange is not None:
            dialogue, number = self._script.place(exchange)
            if dialogue is self._dialogue:
                self._at = number + 1
        if exchange is None:
            return []
        return [adapted(answer, exchange.request, request) for answer in exchange.answers]

    def _in_order(self) -> Exchange | None:
        if self._at >= len(self._dialogue.exchanges):
            self._dialogue, self._at = self._script.next_dialogue(), 0
        if not self._dialogue.exchanges:
            return None
        self._at += 1
        return self._dialogue.exchanges[self._at - 1]

    def feed(self, data: bytes) -> list[bytes]:
        """Return the answers to what a stream has brought so far.  Raises ReplayError for an endless one."""
        self._received += data
        if len(self._received) > _LONGEST:
            raise ReplayError("a client's request has no end")
        self.since = time.monotonic()
        return self._answers(quiet=False)

    def quiet(self) -> list[bytes]:
        """Return the answers if what has come is all of a request."""
        return self._answers(quiet=True)

    def _answers(self, quiet: bool) -> list[bytes]:
        answers: list[bytes] = []
        while self._received:
            whole = self._whole(quiet)
            if not whole:
                break
            request = bytes(self._received[:whole])
            del self._received[:whole]
            answers += self.message(request)
        return answers

    def _whole(self, quiet: bool) -> int:
        """Return how many of the received bytes are a request; 0 if that is not known yet."""
        received, expected = bytes(self._received), self._expected()
        if self._match != "order":
            for length in (len(received), expected):
                if length and length <= len(received) and self._script.knows(received[:length]):
                    return length
        if self._match == "any" and len(received) == expected:
            return expected
        if self._match == "order" and 0 < expected <= len(received):
            return expected
        return len(received) if quiet else 0

    def _expected(self) -> int:
        exchanges = self._dialogue.exchanges
        return len(exchanges[self._at].request) if self._at < len(exchanges) else 0


class Server:
    """Listens at a path, and answers until stopped."""

    def __init__(self, path: str, kind: int, script: Script, match: str = "any", mode: int = 0o600) -> None:
        """Bind and listen.  Raises ReplayError."""
        self._path, self._script, self._match = path, script, match
        self._selector = selectors.DefaultSelector()
        self._is_datagram = kind == SocketType.DGRAM
        self._turns: dict[socket.socket, Turn] = {}
        self._clients: dict[bytes | str, Turn] = {}
        self.answered = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SocketKind(kind))
        self._inode: tuple[int, int] | None = None
        try:
            self._bind(mode)
            if not self._is_datagram:
                self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            raise ReplayError(f"cannot listen at {path}: {(error.strerror or str(error)).lower()}") from None
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ)

    def _bind(self, mode: int) -> None:
        if self._path.startswith("@"):
            self._socket.bind("\0" + self._path[1:])
            return
        if self._is_stale():
            os.unlink(self._path)
        before = os.umask(0o777 & ~mode)
        try:
            self._socket.bind(self._path)
        finally:
            os.umask(before)
        about = os.stat(self._path)
        self._inode = about.st_dev, about.st_ino

    def _is_stale(self) -> bool:
        """Tell whether there is a socket of ours that nobody listens at any more."""
        try:
            about = os.lstat(self._path)
        except OSError:
            return False
        if not stat.S_ISSOCK(about.st_mode) or about.st_uid != os.geteuid():
            return False
        with socket.socket(socket.AF_UNIX, self._socket.type) as probe:
            try:
                probe.connect(self._path)
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        return False

    def run(self, stopped: Callable[[], bool]) -> None:
        """Answer until ``stopped``."""
        while not stopped():
            for key, _ in self._selector.select(QUIET_S / 3):
                if key.fileobj is not self._socket:
                    self._read(key.fileobj)  # type: ignore[arg-type]
                elif self._is_datagram:
                    self._datagram()
                else:
                    self._accept()
            now = time.monotonic()
            for client, turn in list(self._turns.items()):
                if turn.waits and now - turn.since >= QUIET_S:
                    self._send(client, turn.quiet())

    def _accept(self) -> None:
        with suppress(OSError):
            client, _ = self._socket.accept()
            if len(self._turns) >= _CONNECTIONS:
                client.close()
                return
            turn = self._turns[client] = Turn(self._script, self._match)
            self._selector.register(client, selectors.EVENT_READ)
            self._send(client, turn.greeting())

    def _read(self, client: socket.socket) -> None:
        turn = self._turns[client]
        try:
            data = client.recv(1 << 18)
            if not data:
                self._send(client, turn.quiet())
                self._drop(client)
                return
            stream = client.type == socket.SOCK_STREAM
            self._send(client, turn.feed(data) if stream else turn.message(data))
        except (OSError, ReplayError):
            self._drop(client)

    def _send(self, client: socket.socket, answers: list[bytes]) -> None:
        """Send whole answers; a client that does not read for long is dropped."""
        client.settimeout(5)
        try:
            for answer in answers:
                client.sendall(answer)
                self.answered += 1
        except OSError:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        if self._turns.pop(client, None) is not None:
            self._selector.unregister(client)
            client.close()

    def _datagram(self) -> None:
        with suppress(OSError):
            data, address = self._socket.recvfrom(1 << 18)
            if address not in self._clients:
                if len(self._clients) >= _CONNECTIONS:
                    self._clients.clear()
                self._clients[address] = Turn(self._script, self._match)
            for answer in self._clients[address].message(data):
                if address:
                    self._socket.sendto(answer, address)
                    self.answered += 1

    def close(self) -> None:
        """Close everything, and remove the socket if it is still ours."""
        for client in list(self._turns):
            self._drop(client)
        self._selector.close()
        self._socket.close()
        with suppress(OSError):
            about = os.stat(self._path)
            if (about.st_dev, about.st_ino) == self._inode:
                os.unlink(self._path)
