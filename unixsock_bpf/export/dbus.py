"""Format ``dbus``: a pcap of link type 231, one whole D-Bus message a packet, as Bustle and busctl have it.

The authentication before the first message is left out, and so is what is not D-Bus.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.turns import Piece, pieces
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.record import Event

#: A message is at most 128 MiB long.
_LONGEST = 1 << 27
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _LONGEST, 231)
_PACKET = struct.Struct("<IIII")
_HEAD = 16
_AUTHENTICATION = re.compile(
    rb"\0?(?:AUTH|DATA|CANCEL|BEGIN|ERROR|NEGOTIATE_UNIX_FD|REJECTED|OK|AGREE_UNIX_FD)\b[^\n]{0,16384}\n"
)
#: Bytes without an end of line after which they are no authentication.
_LONGEST_LINE = 16_390


def message_length(data: bytes | bytearray) -> int:
    """Return the length of the message that begins ``data``, of at least 16 bytes; 0 if that is none."""
    order = {0x6C: "<", 0x42: ">"}.get(data[0])
    if order is None or not 1 <= data[1] <= 4 or data[3] != 1:
        return 0
    body, serial, fields = struct.unpack_from(order + "III", data, 4)
    length = int(_HEAD + fields + -fields % 8 + body)
    return length if serial and fields <= 1 << 26 and length <= _LONGEST else 0


class _Direction:
    """One direction of a connection: cuts it into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._synchronous = True
        self.known = False  # something of D-Bus was seen

    def feed(self, piece: Piece) -> Iterator[bytes]:
        """Yield the messages that a piece completes."""
        if piece.missing:
            self._rest.clear()
            self._synchronous = False
        if not self._synchronous and not self._begins(piece.payload):
            return
        self._synchronous = True
        self._rest += piece.payload
        at = 0
        while at < len(self._rest):
            head = self._rest[at : at + _HEAD]
            if len(head) == _HEAD and (length := message_length(head)):
                if at + length > len(self._rest):
                    break
                self.known = True
                yield bytes(self._rest[at : at + length])
                at += length
                continue
            line = _AUTHENTICATION.match(self._rest, at)
            if line:
                at = line.end()
                continue
            if len(self._rest) - at >= _HEAD and (
                self._rest[at] not in b"\0ABCDENRO" or len(self._rest) - at > _LONGEST_LINE
            ):
                self._synchronous = False  # not D-Bus, or its borders are lost
                self._rest.clear()
                return
            break
        del self._rest[:at]

    @staticmethod
    def _begins(payload: bytes) -> bool:
        return len(payload) >= _HEAD and bool(message_length(payload[:_HEAD]))


def _pieces(capture: SavedCapture, options: Options) -> Iterator[bytes]:
    yield _FILE_HEADER
    directions: dict[tuple[int, bool], _Direction] = {}
    for piece in pieces(capture):
        if piece.event == Event.CLOSE:
            directions.pop((piece.conversation.number, piece.to_server), None)
        if piece.event != Event.DATA or not piece.conversation.is_stream:
            continue
        direction = directions.setdefault((piece.conversation.number, piece.to_server), _Direction())
        seconds, rest = divmod(piece.time_ns, 1_000_000_000)
        for message in direction.feed(piece):
            yield _PACKET.pack(seconds, rest, len(message), len(message)) + message


FORMAT = ExportFormat("dbus", _pieces, binary=True)
