"""Format ``umockdev``: a script for each conversation, with which ``umockdev-run -u PATH=SCRIPT`` answers.

The first one goes into the file that was asked for, the next ones into FILE.1, FILE.2 and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.folder import Folder, file_name
from unixsock_bpf.export.turns import Conversation, Piece, pieces
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.record import Event

_ESCAPES = {byte: b"^" + bytes([byte + 64]) for byte in range(32)} | {94: b"^`"}
_TABLE = [_ESCAPES.get(byte, bytes([byte])) for byte in range(256)]
#: Writes that are closer together are one, as umockdev-record has it.
_TOGETHER_NS = 10_000_000


@dataclass
class _Script:
    """A script that is being written."""

    file: str
    last_ns: int = 0
    to_server: bool = True
    waited_ms: int = 0
    data: bytearray = field(default_factory=bytearray)

    def add(self, piece: Piece) -> bytes:
        """Take a piece; return the lines that are whole now."""
        line = b""
        waited = max(0, piece.time_ns - self.last_ns) if self.last_ns else 0
        if self.data and (
            piece.to_server != self.to_server or (waited >= _TOGETHER_NS and not piece.to_server)
        ):
            line = self.line()
        if not self.data:
            self.to_server, self.waited_ms = piece.to_server, waited // 1_000_000
        self.last_ns = piece.time_ns
        self.data += piece.payload
        if piece.missing:
            line += b"# %d bytes were not captured here\n" % piece.missing
        return line

    def line(self) -> bytes:
        """Return what the line that is being written has so far."""
        if not self.data:
            return b""
        operation = b"w" if self.to_server else b"r"
        data = b"".join(map(_TABLE.__getitem__, self.data))
        self.data.clear()
        return b"%c %d %b\n" % (operation, self.waited_ms, data)


def _head(conversation: Conversation) -> bytes:
    name = conversation.name.replace(b"\0", b"@").decode("utf-8", "backslashreplace")
    return f"# {''.join(c if c.isprintable() else '?' for c in name)}\n".encode()


def _lines(capture: SavedCapture) -> Iterator[tuple[Conversation, bytes]]:
    """Yield bytes and the conversation whose script they continue."""
    scripts: dict[int, tuple[Conversation, _Script]] = {}
    for piece in pieces(capture):
        conversation = piece.conversation
        if piece.event == Event.CLOSE:
            if conversation.number in scripts:
                yield conversation, scripts[conversation.number][1].line()
        elif piece.event == Event.DATA:
            if conversation.number not in scripts:
                scripts[conversation.number] = conversation, _Script("")
                yield conversation, _head(conversation)
            line = scripts[conversation.number][1].add(piece)
            if line:
                yield conversation, line
    for conversation, script in scripts.values():
        yield conversation, script.line()


def _pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
    others = 0
    for conversation, data in _lines(capture):
        if conversation.number == 0:
            yield data
        else:
            others = max(others, conversation.number)
    if others:
        options.notes.append(
            f"{others} more conversations were left out: -w FOLDER/ takes them all, a file each"
        )


def _into(capture: SavedCapture, path: str, options: Options) -> None:
    folder = Folder(path)
    try:
        for conversation, data in _lines(capture):
            folder.append(f"{conversation.number:06}-{file_name(conversation.name)}.script", data)
    finally:
        folder.close()


FORMAT = ExportFormat("umockdev", _pieces, _into)
