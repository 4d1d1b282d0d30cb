"""Messages between Wireshark's interface toolbar and a running capture.

A message is ``T``, a 24-bit big-endian length (of all that follows it), the number
of the control, a command and a payload.  Source: Wireshark's doc/extcap, and what
4.0 to 4.6 were seen to send.  No I/O happens here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from unixsock_bpf.options import BY_NAME


class Control(IntEnum):
    """The controls of our toolbar."""

    FILTER = 0
    PAUSE = 1
    INCLUDE_CAPTURE_PROCESSES = 2
    SOCKETS = 3
    LOG = 4
    HELP = 5


#: The properties of each control, in the words of Wireshark's doc/extcap.
CONTROLS: dict[Control, dict[str, str]] = {
    Control.FILTER: {
        "type": "string",
        "display": "Filter",
        "tooltip": "Capture filter, applied when you press Return. Empty: everything that the options allow",
        "placeholder": "path /run/*.sock and not comm X*",
    },
    Control.PAUSE: {
        "type": "boolean",
        "display": "Pause",
        "default": "false",
        "tooltip": "Capture nothing for now",
    },
    Control.INCLUDE_CAPTURE_PROCESSES: {
        "type": "boolean",
        "display": "Include capture processes",
        "default": "false",
        "tooltip": BY_NAME["include-capture-processes"].tooltip,
    },
    Control.SOCKETS: {
        "type": "button",
        "display": "Sockets",
        "tooltip": "List the sockets that exist now, with their processes",
    },
    Control.LOG: {
        "type": "button",
        "role": "logger",
        "display": "Log",
        "tooltip": "What is attached, the filter, and losses",
    },
    Control.HELP: {
        "type": "button",
        "role": "help",
        "display": "Help",
        "tooltip": "The capture filter language",
    },
}

#: Control number of messages that are not about one control.
NO_CONTROL = 255


class Command(IntEnum):
    """Commands of a message."""

    INITIALIZED = 0
    SET = 1
    ADD = 2
    REMOVE = 3
    ENABLE = 4
    DISABLE = 5
    STATUSBAR = 6
    INFORMATION = 7
    WARNING = 8
    ERROR = 9


#: The largest payload that is taken from Wireshark: the longest filter, in UTF-8.
MAX_PAYLOAD = 4 * 65_536
#: The largest that fits in the length.
_MAX_LENGTH = (1 << 24) - 1
_HEAD = 4


class ControlError(ValueError):
    """A message that cannot be used; the text names the fault."""


@dataclass(frozen=True)
class ControlMessage:
    """One message.  ``control`` and ``command`` may be numbers that this version does not know."""

    control: int
    command: int
    payload: bytes = b""

    @property
    def text(self) -> str:
        """The payload as text.  Raises ControlError if it isn't UTF-8."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise ControlError(f"byte {error.start} of a toolbar message is not UTF-8") from None

    @property
    def flag(self) -> bool:
        """The payload as a boolean control sends it.  Raises ControlError if it isn't one byte, 0 or 1."""
        if self.payload not in (b"\0", b"\1"):
            raise ControlError(f"a toolbar message has {len(self.payload)} bytes where 0 or 1 was expected")
        return self.payload == b"\1"


#: What ``Decoder`` makes of a "Q": Wireshark 5.0 can end a capture so, where earlier ones send a signal.
QUIT = ControlMessage(NO_CONTROL, -1)


def encode(control: int, command: Command, text: str = "") -> bytes:
    """Encode a message to Wireshark; text that is too long for one is cut."""
    payload = text.encode(errors="replace")[: _MAX_LENGTH - 2]
    return b"T" + (len(payload) + 2).to_bytes(3, "big") + bytes([control, command]) + payload


class Decoder:
    """Decode messages from a pipe, however it cuts them."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0  # bytes of a refused message that are still to come
        self._lost = False

    def feed(self, data: bytes) -> list[ControlMessage | ControlError]:
        """Return the messages that ``data`` completes, each as it was sent, or what is wrong with it.

        An oversized message is skipped.  After bytes that don't begin a message nothing
        more can be told apart, so all that follows is ignored, as after QUIT.
        """
        return list(self._messages(data))

    def end(self) -> ControlError | None:
        """Return what is wrong if the pipe was closed now."""
        if self._lost or not (self._data or self._skip):
            return None
        return ControlError("the last toolbar message was cut short")

    def _messages(self, data: bytes) -> Iterable[ControlMessage | ControlError]:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._data += data[skipped:]
        while self._data and not self._lost:
            if self._data[0] == ord("Q"):
                self._lost = True
                yield QUIT
                break
            if self._data[0] != ord("T"):
                self._lost = True
                yield ControlError(f"a toolbar message begins with byte 0x{self._data[0]:02x}, not with 'T'")
                break
            if len(self._data) < _HEAD:
                break
            length = int.from_bytes(self._data[1:_HEAD], "big")
            if not 2 <= length <= MAX_PAYLOAD + 2:
                yield ControlError(
                    f"a toolbar message has length {length}; 2 to {MAX_PAYLOAD + 2} is possible"
                )
                self._skip = max(0, _HEAD + length - len(self._data))
                del self._data[: _HEAD + length]
            elif len(self._data) < _HEAD + length:
                break
            else:
                body = bytes(self._data[_HEAD : _HEAD + length])
                del self._data[: _HEAD + length]
                yield ControlMessage(body[0], body[1], body[2:])
        if self._lost:
            self._data.clear()
