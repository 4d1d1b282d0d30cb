"""Leave out conversations that repeat what the capture writes.

A relay behind our output (sshd, journald, a container engine, any program) may pass it on by a Unix
socket; captured again, one message of eleven bytes becomes as much as the machine can carry.  Relays
cut, prefix, escape or join what they pass on, but the time stamps of our records come through: in each
format they have nanoseconds, so that only what has seen our output can say them.  A conversation that
does is left out, both ways, because a relay's answers would feed back as well.

So that nothing can choose to be left out by guessing when its own messages were captured: a sender
that is not known to read our output has to say three of our stamps, and half of all that a conversation
said lately must be ours.  It is only left out while it goes on repeating, and all of it is counted and
reported.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Union

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Event, RecordError, decode, display_name, display_process

Block = Union[bytes, memoryview]

_NS = 1_000_000_000
#: Stamps are compared modulo a minute, which is the same in every time zone and since the epoch.
_MINUTE = 60 * _NS
#: A record's stamp in all of our formats, and in what tshark makes of them: seconds with nine decimals
#: (alone, or behind hours and minutes), nanoseconds since the epoch, or a packet's head.
_DECIMALS = re.compile(rb"\.([0-9]{9})(?![0-9])")
_NANOSECONDS = re.compile(rb"time_ns[^0-9]{1,8}([0-9]{19})(?![0-9])")
_PACKET = re.compile(re.escape(pcapng.PACKET_PREFIX[4:]))  # all but the tag, for a prefix that is rare
_RECORD = 28 + len(pcapng.PACKET_PREFIX)  # where a record begins in its block
#: The head of a record up to both sockets; see record.HEADER.
_HEAD = struct.Struct("<BBHIIBBHIIIIIIQQ")
_TIME = struct.Struct("<II")
_CAPTURED = struct.Struct("<I")
_DIGITS = b"0123456789"

#: Records of a batch that are looked at: all of a small one, which is how feedback begins.
_SAMPLE = 64
#: Bytes at each end of a payload that are searched, and stamps that are compared there.
_SEARCHED = 1 << 17
_STAMPS = 16
#: Records that are remembered, at least.
_REMEMBERED = 1 << 14
#: Stamps that a sender has to repeat that is not known to read our output.
_PROOF = 3
#: Stamps of a conversation after which the count begins anew: a relay may have had others to pass on.
_LATELY = 32
#: Bytes of a conversation, each record counting for 64 at least, that are left out on one proof.
_CREDIT = 4 << 20
_LEAST = 64
#: Conversations whose last bytes are kept, because they come in small pieces.
_PIECES = 256
#: Seconds until the readers of our output are looked for again.
_LOOK_AGAIN = 1.0
#: Conversations that a summary names.
_SHOWN = 4


@dataclass
class Repeated:
    """A conversation that is left out: a description of it, and for how many bytes more."""

    who: str
    credit: int = _CREDIT


@dataclass
class _Suspect:
    """A conversation that may repeat our output: time stamps of ours, how many others, and its last bytes."""

    ours: set[int] = field(default_factory=set)
    others: int = 0
    tail: bytes = b""


class Feedback:
    """The conversations that repeat this capture's output.

    ``readers`` returns the processes that read it now.  ``report`` is called with a sentence when a
    conversation is left out, or no longer.
    """

    def __init__(
        self, readers: Callable[[], set[int]], report: Callable[[str], None] = lambda _: None
    ) -> None:
        self._readers = readers
        self._known_readers: set[int] = set()
        self._looked = float("-inf")
        self.report = report
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self._first: int | None = None
        self._suspects: dict[tuple[int, int], _Suspect] = {}
        self._left_out: dict[tuple[int, int], Repeated] = {}
        #: Records and bytes of payload that were left out, in all.
        self.records = self.bytes = 0
        self._who: list[str] = []

    @property
    def summary(self) -> str:
        """A phrase about what was left out; empty if nothing was."""
        if not self.records:
            return ""
        plural = "" if self.records == 1 else "s"
        shown = "; ".join(self._who[:_SHOWN]) + ("; ..." if len(self._who) > _SHOWN else "")
        return f"{self.records} record{plural}, {self.bytes} bytes, left out that repeat this output: {shown}"

    def kept(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """Return ``blocks`` without the records of conversations that repeat our output."""
        step = 1 if self._left_out else max(1, -(-len(blocks) // _SAMPLE))
        dropped = {at for at in range(0, len(blocks), step) if not self._keep(blocks[at])}
        if dropped:
            rest = [block for at, block in enumerate(blocks) if at not in dropped]
            blocks = rest if step == 1 else [block for block in rest if self._keep(block)]
        for block in blocks[::step]:
            self._remember(block)
        return blocks

    def _remember(self, block: Block) -> None:
        if block[:4] != b"\x06\0\0\0":
            return
        high, low = _TIME.unpack_from(block, 12)
        stamp = high << 32 | low
        if self._first is None:
            self._first = stamp
        if len(self._recent) > 2 * _REMEMBERED:
            self._recent, self._older = set(), self._recent
        self._recent.add(stamp % _MINUTE)
        self._recent.add((stamp - self._first) % _MINUTE)  # as tshark shows it

    def _keep(self, block: Block) -> bool:
        if block[:4] != b"\x06\0\0\0" or len(block) < _RECORD + _HEAD.size:
            return True
        head = _HEAD.unpack_from(block, _RECORD)
        src, dst = head[-2], head[-1]
        pair = (src, dst) if src < dst else (dst, src)
        repeated = self._left_out.get(pair)
        if repeated is None and (head[1] != Event.DATA or not self._proven(pair, head, block)):
            return True
        if repeated is None:
            repeated = self._left_out[pair] = Repeated(_who(block))
            if repeated.who not in self._who and len(self._who) <= _SHOWN:
                self._who.append(repeated.who)
            self.report(
                f"Left out from here on, because it repeats what this capture writes: {repeated.who}."
            )
        size = len(_payload(block, head))
        self.records += 1
        self.bytes += size
        repeated.credit -= max(size, _LEAST)
        if repeated.credit < _CREDIT // 2 and head[1] == Event.DATA and self._proven(pair, head, block):
            repeated.credit = _CREDIT
        if repeated.credit < 0:
            del self._left_out[pair]
            self.report(
                f"Captured again, because it no longer repeats what this capture writes: {repeated.who}."
            )
        return False

    def _proven(self, pair: tuple[int, int], head: tuple[int, ...], block: Block) -> bool:
        """Return whether this message proves that its conversation repeats our output."""
        payload = _payload(block, head)
        suspect = self._suspects.get(pair)
        text = bytes(payload[:_SEARCHED]) + bytes(payload[max(_SEARCHED, len(payload) - _SEARCHED) :])
        if suspect and suspect.tail:
            text = suspect.tail + text
        said, hits, end, ours = 0, 0, 0, set()
        for behind, stamps in _stamps(text):
            said += 1
            end = max(end, behind)
            known = {one for one in stamps if one in self._recent or one in self._older}
            hits += bool(known)
            ours |= known
            if said == _STAMPS:
                break
        is_piece = len(text) < 2 * _LEAST
        if said or (is_piece and (suspect or self._recent)):
            suspect = self._suspect(pair)
        if suspect:
            suspect.tail = text[end:][-_LEAST:] if is_piece else b""
        if not said or suspect is None:
            return False
        if len(suspect.ours) + suspect.others >= _LATELY:
            suspect.ours, suspect.others = set(), 0
        suspect.ours |= ours
        suspect.others += said - hits
        if not hits or len(suspect.ours) < suspect.others:
            return False
        if len(suspect.ours) < _PROOF and not self._reads_us(head):
            return False
        suspect.ours, suspect.others = set(), 0
        return True

    def _suspect(self, pair: tuple[int, int]) -> _Suspect:
        """Return what is known of a conversation, from now on the last one to be forgotten."""
        suspect = self._suspects.pop(pair, None) or _Suspect()
        self._suspects[pair] = suspect
        if len(self._suspects) > _PIECES:
            del self._suspects[next(iter(self._suspects))]
        return suspect

    def _reads_us(self, head: tuple[int, ...]) -> bool:
        """Return whether the sender is known to read our output."""
        if time.monotonic() >= self._looked + _LOOK_AGAIN:
            self._known_readers = self._readers()
            self._looked = time.monotonic()
        return head[3] in self._known_readers


def left_out_text(processes: Iterable[str], feedback: Feedback | None) -> str:
    """Return a phrase about ``processes`` that were left out, and what repeated the output; maybe empty."""
    names = ", ".join(processes)
    phrases = [f"messages of {names} left out" if names else "", feedback.summary if feedback else ""]
    return "; ".join(filter(None, phrases))


def _payload(block: Block, head: tuple[int, ...]) -> memoryview:
    """Return the payload of a record with this head."""
    (captured,) = _CAPTURED.unpack_from(block, 20)
    return memoryview(block)[_RECORD + head[2] : 28 + captured]


def _stamps(text: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each time stamp in ``text``: where it ends, and its values modulo a minute as it may be meant."""
    for match in _PACKET.finditer(text):
        if (at := match.start() - 20) >= 0:
            first, second = _TIME.unpack_from(text, at)
            yield match.end(), ((first << 32 | second) % _MINUTE, (first * _NS + second) % _MINUTE)
    for match in _NANOSECONDS.finditer(text):
        yield match.end(), (int(match[1]) % _MINUTE,)
    for match in _DECIMALS.finditer(text):
        before = text[max(0, match.start() - 10) : match.start()]
        if digits := before[len(before.rstrip(_DIGITS)) :]:
            yield match.end(), ((int(digits) * _NS + int(match[1])) % _MINUTE,)


def _who(block: Block) -> str:
    """Describe sender, receiver and the socket's name, as far as known, in printable characters."""
    try:
        record = decode(memoryview(block)[_RECORD:])
    except RecordError:
        return "?"
    endpoints = [(record.src_comm, record.src_pid), (record.dst_comm, record.dst_pid)]
    text = b" to ".join(display_process(*one) or b"?" for one in endpoints)
    if record.name:
        text += b" at " + display_name(record.name)
    return "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
