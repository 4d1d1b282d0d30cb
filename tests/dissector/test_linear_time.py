# ruff: noqa: E501 (tables of bytes)
"""Nothing that a process can send makes Wireshark wait, forget or lie: time and memory are linear in what was
captured, and all messages are shown or counted.

Times are compared with those of plain bytes in the same run.  ``UNIXSOCK_LONG`` (``make test-faults``) tries more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from captures import Turn, conversation, write
from conftest import Tshark
from mutators import SIZE, filled, repetitions, with_numbers
from patience import soon
from protocol_samples import PREFACE, SAMPLES, Sample, http2

from unixsock_bpf.record import Fd, FdKind, Flag, Record, SocketType

LONG = "UNIXSOCK_LONG" in os.environ
BOTH_WAYS = pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
PLAIN = Sample(b"/tmp/odd/plain", [], "", [])
ODD = b"/tmp/odd/name"  # a path that tells nothing


def apart(records: Sequence[Record], number: int) -> list[Record]:
    """The same in a conversation of its own."""
    high = (number + 1) << 32
    return [replace(one, src_sock=high | one.src_sock, dst_sock=high | one.dst_sock) for one in records]


def in_pieces(data: bytes, count: int) -> list[Turn]:
    size = -(-len(data) // count)
    return [(True, data[at : at + size]) for at in range(0, len(data), size)]


#: Further measurements of what took too long.
RETRIES = 4


class Clock:
    """Processor time of tshark, beside that of plain bytes in the same run."""

    def __init__(self, tshark: Tshark, folder: Path) -> None:
        self.tshark, self.folder = tshark, folder
        self.plain: dict[tuple[tuple[tuple[bool, int], ...], ...], float] = {}

    def seconds(self, conversations: Iterable[list[Turn]], sample: Sample, path: bytes = b"") -> float:
        records: list[Record] = []
        for number, turns in enumerate(conversations):
            records += apart(conversation(path or sample.path, turns, sample.kind), number)
        return self.tshark.usage(write(self.folder / "time.pcapng", records))[0]

    def _check(
        self, name: str, allowed: float, conversations: list[list[Turn]], sample: Sample, path: bytes
    ) -> None:
        """Fail if each of a few runs takes longer: other work on the machine makes processors slower, too."""
        taken = self.seconds(conversations, sample, path)
        for _ in range(RETRIES):
            if taken > allowed:
                taken = self.seconds(conversations, sample, path)
        assert taken <= allowed, f"{name}: {taken:.2f} s, where {allowed:.2f} s are allowed"

    def check(self, name: str, conversations: list[list[Turn]], sample: Sample, path: bytes = b"") -> None:
        """Fail if ``conversations`` take more than ten times what plain bytes take in records of the same size."""
        sizes = tuple(tuple((client, len(data)) for client, data in turns) for turns in conversations)
        if sizes not in self.plain:
            plain = [[(client, b"q" * size) for client, size in turns] for turns in sizes]
            self.plain[sizes] = self.seconds(plain, PLAIN)
        self._check(name, 10 * self.plain[sizes], conversations, sample, path)

    def check_growth(self, name: str, conversations: list[list[Turn]], sample: Sample, path: bytes) -> None:
        """Fail if ``conversations`` take more than three times what they take with half of each last turn."""
        half = [[*turns[:-1], (turns[-1][0], turns[-1][1][: SIZE // 2])] for turns in conversations]
        self._check(name, 3 * self.seconds(half, sample, path), conversations, sample, path)


#: Decoded by Wireshark's own dissectors, which are as fast as they are.
WIRESHARKS = {
    "http", "http-by-content", "pgsql", "fcgi", "smtp", "http2", "mysql", "memcached", "x11", "ldap", "mqtt", "amqp",
    "9p", "tls", "ssh", "ptp", "syslog",
}  # fmt: skip


@pytest.fixture(scope="module")
def clock(tshark: Tshark, tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tshark, tmp_path_factory.mktemp("clock"))


@pytest.mark.parametrize(
    "name", [name for name in SAMPLES if LONG or name not in WIRESHARKS or name in ("http", "mysql")]
)
def test_large_records_of_repetition(clock: Clock, name: str) -> None:
    """224 KiB each of separators, empty messages, open brackets and the protocol's own messages, by path and after a
    first message that tells the protocol."""
    sample = SAMPLES[name]
    payloads = [data for _, data in repetitions(sample.turns)]
    size = 8 if LONG else 32
    groups = [payloads[at : at + size] for at in range(0, len(payloads), size)]
    for group in groups:
        label = f"{name}: {[data[:12] for data in group]}"
        check = clock.check_growth if name in WIRESHARKS else clock.check
        check(label, [[(True, data)] for data in group], sample, sample.path)
        if LONG:
            check(label, [[sample.turns[0], (True, data)] for data in group], sample, ODD)


@pytest.mark.parametrize("name", SAMPLES)
def test_numbers_that_are_too_large(clock: Clock, tshark: Tshark, tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    made = [data for _, data in with_numbers(sample.turns)]
    if not LONG:
        made = made[:: len(made) // 100 + 1]
    conversations = [[(True, data + filled(b"q", 1000)), (False, data)] for data in made]
    if name not in WIRESHARKS:
        clock.check(f"{name} with numbers", conversations, sample)
    records = [
        one
        for number, turns in enumerate(conversations)
        for one in apart(conversation(sample.path, turns, sample.kind), number)
    ]
    text = tshark.run(write(tmp_path / "c.pcapng", records), "-V", bugs=True)
    assert "unixsock" in text or "Unix" in text


#: Messages whose length is not told, or is told in many places: in 1,500 pieces.
UNENDED = {
    "json": (b"/run/x-qmp.sock", b'{"a":"' + filled(b"a", 675_000) + b'"}\n', "json.key"),
    "varlink": (b"/run/io.systemd.x", b'{"method":"a.b","a":"' + filled(b"a", 675_000) + b'"}\0', "varlink.method"),
    "mpd": (b"/run/mpd/socket", b"status " + filled(b"a", 675_000) + b"\n", "mpd.command"),
    "redis array": (b"/run/redis.sock", b"*96000\r\n" + b"$1\r\na\r\n" * 96_000, "resp.array.length"),
    "redis nested": (b"/run/redis.sock", b"*48000\r\n" + b"*1\r\n+abcdef\r\n" * 48_000, "resp.array.length"),
    "redis line": (b"/run/redis.sock", b"+" + filled(b"a", 675_000) + b"\r\n", "resp.string"),
    "redis bulk": (b"/run/redis.sock", b"$675000\r\n" + filled(b"a", 675_000) + b"\r\n", "resp.bulk_string.length"),
    "milter": (b"/run/x-milter.sock", (675_000).to_bytes(4, "big") + b"B" + filled(b"a", 674_999), "milter.command"),
    "http head": (b"/run/docker.sock", b"GET / HTTP/1.1\r\nX: " + filled(b"a", 675_000) + b"\r\n\r\n", ""),
    "http chunks": (b"/run/docker.sock", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b"a" * 256 + b"\r\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", UNENDED)
def test_message_in_many_pieces(clock: Clock, tshark: Tshark, tmp_path: Path, name: str) -> None:
    path, data, field = UNENDED[name]
    turns = in_pieces(data, 1500)
    if name == "http chunks":
        turns = [(False, data)] + [(False, b"100\r\n" + b"a" * 256 + b"\r\n")] * 2500
    sample = Sample(path, [], "", [])
    clock.check(name, [turns], sample)
    if not field:
        return
    after = conversation(
        path, [*turns, (True, b'{"a": 1}\n' if name == "json" else data[:0] or b"")], close=False
    )
    after = [one for one in after if one.payload]
    capture = write(tmp_path / "c.pcapng", after)
    for options in ((), ("-2",)):
        rows = tshark.fields(capture, field, options=options)
        shown = [number for number, (value,) in enumerate(rows, 1) if value]
        assert shown[0] == len(turns), f"{name}: shown in {shown}, not where it ends"


def test_endless_http_head(clock: Clock) -> None:
    """Wireshark's HTTP copies all of it at each piece, until it may no longer wait."""
    head = (True, b"GET / HTTP/1.1\r\nX: ")
    turns = [head, *[(True, filled(b"a", 2000))] * 2000]
    sample = Sample(b"/run/docker.sock", [], "", [])
    half = clock.seconds([turns[:1000]], sample)
    assert min(clock.seconds([turns], sample) for _ in range(2)) < 4 * half


def test_header_fields_ofhttp2(clock: Clock) -> None:
    """Long values in HPACK's code, and many references to one entry."""
    coded = b"\x00\x01\x61\xff\x80\x7d" + filled(b"\x1c\x64", 16_127)  # 127 + 16,000 bytes
    for block in (
        b"\x82\x86\x84" + coded[:16_100],
        b"\x82\x86\x84" + b"\x41\x7f\x7d" + b"v" * 252 + b"\xbe" * 15_000,
    ):
        frames = [http2(1, 5, 2 * number + 1, block) for number in range(SIZE // len(block))]
        sample = Sample(b"/run/containerd/containerd.sock", [], "", [])
        clock.check_growth("http2", [[(True, PREFACE), (True, b"".join(frames))]], sample, sample.path)


@pytest.mark.parametrize("count", [600, 20_000] if LONG else [600])
@pytest.mark.parametrize(
    ("path", "message", "field"),
    [
        (b"/run/redis.sock", b"+OK\r\n", "resp.string"),
        (b"/run/redis.sock", b":1\r\n", "resp.integer"),
        (b"/run/x-qmp.sock", b'{"a":1}\n', "json.object"),
        (b"/run/x-qmp.sock", b'{"a":}\n', "_ws.col.Info"),
        (b"/run/io.systemd.x", b'{"parameters":{}}\0', "varlink.reply"),
        (b"/run/dbus/system_bus_socket", b"", "dbus.serial"),
        (b"/run/mpd/socket", b"OK\n", "mpd.command"),
        (b"/run/user/1000/wayland-0", b"\1\0\0\0\0\0\x0c\0\2\0\0\0", "wayland.opcode"),
        (b"/run/zmq.sock", b"\0\1a", "zmtp.length"),
    ],
    ids=["redis", "redis-integer", "json", "json-broken", "varlink", "dbus", "mpd", "wayland", "zmtp"],
)
def test_many_messages_in_one_record(
    tshark: Tshark, tmp_path: Path, count: int, path: bytes, message: bytes, field: str
) -> None:
    """Each is shown or counted, the columns keep the processes, and the next record is read as ever."""
    if not message:
        message = SAMPLES["dbus"].turns[-1][1]
    count = min(count, SIZE // len(message))
    for kind in (SocketType.STREAM, SocketType.SEQPACKET):
        if kind == SocketType.SEQPACKET and path != b"/run/dbus/system_bus_socket":
            continue
        half = message * count + message[: len(message) // 2]
        records = conversation(
            path, [(True, half), (True, message[len(message) // 2 :]), (True, message)], kind, close=False
        )
        capture = write(tmp_path / "c.pcapng", records)
        text = tshark.run(capture, "-V")
        assert "Dissector bug" not in text
        lines = tshark.run(capture).splitlines()
        assert all("client[10]" in line and "server[20]" in line for line in lines)
        more = re.findall(
            r"(\d+) more messages?, (\d+) bytes", tshark.run(capture, "-V", "-Y", "frame.number==1")
        )
        hidden = int(more[0][0]) if more else 0
        if field.startswith("_ws"):
            assert hidden > 0
            continue
        (first, *_, last) = tshark.fields(capture, field, options=("-E", "occurrence=a"))
        assert len(first[0].split("|")) + hidden == count + (kind == SocketType.SEQPACKET)
        assert len(last[0].split("|")) == 1
        assert last[0]


#: Heads and bodies of HTTP messages: of requests and answers, and such as Wireshark understands, too.
HTTP_BODIES = {
    "answers": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
    "requests": b'POST /x HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
    "of no type": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg",
    "like heads": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n\nHTTP/1.1 200 OK\r\n\r\n",
    "chunked": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3;x\r\n:1}\r\n0\r\nA: b\r\n\r\n',
    "line feeds": b"POST /x HTTP/1.1\nCONTENT-LENGTH:\t7\n\nabcdefg",
    "odd lengths": b"HTTP/2 200\r\nContent-Length: 3\r\nContent-Length: +0007\r\n\r\nabcdefg",
}  # fmt: skip


@BOTH_WAYS
@pytest.mark.parametrize("path", [b"/run/docker.sock", ODD], ids=["path", "content"])
@pytest.mark.parametrize("name", HTTP_BODIES)
def test_many_http_bodies_in_one_record(
    tshark: Tshark, tmp_path: Path, name: str, path: bytes, options: tuple[str, ...]
) -> None:
    """Wireshark's HTTP adds layers for each body.  The last message goes on in the next record."""
    message = HTTP_BODIES[name]
    plain = (
        b"POST /x HTTP/1.1\r\n\r\n"
        if message.startswith(b"POST")
        else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    field = "http.request.method" if message.startswith(b"POST") else "http.response.code"
    for begun in (10, len(message) - 1):
        parts = (plain, message * 600 + message[:begun], message[begun:], message)
        turns = [(message.startswith(b"POST"), data) for data in parts]
        capture = write(tmp_path / "c.pcapng", conversation(path, turns, close=False))
        rows = tshark.fields(capture, field, "unixsock.more.messages", "http.file_data", options=options)
        shown = [len(row[0].split("|")) if row[0] else 0 for row in rows]
        assert (shown[0], shown[2:], rows[2][1:], rows[3][1:]) == (1, [1, 1], rows[3][1:], rows[2][1:])
        assert rows[2][2]
        assert shown[1] + int(rows[1][1]) == 600
        for line in tshark.run(capture, *options).splitlines():
            assert "client[10]" in line
            assert "server[20]" in line


@BOTH_WAYS
@pytest.mark.parametrize("path", [b"/run/docker.sock", ODD], ids=["path", "content"])
def test_many_http_messages_without_bodies(
    tshark: Tshark, tmp_path: Path, path: bytes, options: tuple[str, ...]
) -> None:
    """None of them is counted only: they add no layers."""
    for message, field in (
        (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "http.request.method"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "http.response.code"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "http.response.code"),
    ):
        turns = [(message.startswith(b"GET"), data) for data in (message, message * 600, message)]
        capture = write(tmp_path / "c.pcapng", conversation(path, turns, close=False))
        rows = tshark.fields(capture, field, options=options)
        assert [len(row[0].split("|")) for row in rows] == [1, 600, 1]


@BOTH_WAYS
def test_length_that_wraps_around(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A count of 2^63-1 made the end of a value lie before its beginning, in Lua 5.4 only."""
    for number in (2**31, 2**53, 2**63 - 1, 2**64, 10**400):
        bomb = b"*9999999999\r\n$%d\r\n" % number
        for path in (b"/run/redis.sock", b"/tmp/x"):
            records = conversation(path, [(True, bomb), (True, b"+OK\r\n")], close=False)
            capture = write(tmp_path / "c.pcapng", records)
            tshark.usage(capture, *options, timeout=20)


@pytest.mark.parametrize("unit", [b"/libvirt/qemu", b"*a", b"\xe2\x80", b"[", b"ssh-agent"])
def test_names_that_are_too_long(tshark: Tshark, tmp_path: Path, unit: bytes) -> None:
    """A socket's name has 108 bytes at most; a forged capture may have 60,000 and many globs that nearly match."""
    (one,) = conversation(b"/x", [(True, b"a")], close=False)

    def seconds(unit: bytes) -> float:
        names = [b"%d" % number + filled(unit, 60_000) for number in range(40)]
        records = [replace(one, dst_name=name, seq=number) for number, name in enumerate(names)]
        return tshark.usage(write(tmp_path / "c.pcapng", records))[0]

    assert min(seconds(unit) for _ in range(2)) < 10 * max(seconds(b"q") for _ in range(2))


def test_memory_of_long_captures(tshark: Tshark, tmp_path: Path) -> None:
    """What Lua keeps of a conversation is bounded; ``UNIXSOCK_LONG`` makes it a million messages."""
    count = 1_000_000 if LONG else 40_000

    def wayland(number: int) -> bytes:
        new = (number + 2).to_bytes(4, "little")
        return b"\1\0\0\0\0\0\x0c\0" + new + b"\1\0\0\0\1\0\x0c\0" + new

    def stream(path: bytes, payloads: Iterable[bytes]) -> Iterator[Record]:
        (first,) = conversation(path, [(True, b"")], close=False)
        seq = 0
        for number, data in enumerate(payloads):
            yield replace(first, seq=seq, message=number, len=len(data), payload=data)
            seq += len(data)

    def plain() -> Iterator[Record]:
        return stream(b"/tmp/x", (b"q" * 24 for _ in range(count)))

    def passing() -> Iterator[Record]:
        for number, one in enumerate(plain()):
            fds = [Fd(FdKind.FILE, number, b"/some/where/%d" % number)] * 4
            yield replace(one, fds=fds, fds_count=4)

    (half,) = conversation(b"/dev/log", [(True, b"<13>" + b"x" * 8000)], SocketType.DGRAM)

    def parts() -> Iterator[Record]:
        for number in range(count // 4):
            for at, flag in ((0, Flag.MORE), (4002, Flag(0))):
                payload = half.payload[at : at + 4002]
                yield replace(half, message=number, offset=at, payload=payload, flags=half.flags | flag)

    captures = {
        "plain": plain(),
        "objects": stream(b"/run/user/1/wayland-0", map(wayland, range(count))),
        "descriptors": passing(),
        "joined": parts(),
        "whole": (replace(one, offset=0, len=4002, flags=half.flags) for one in parts()),
    }

    def peak(name: str) -> int:
        """KiB; a million messages take minutes, and many times as long beside other work."""
        capture = write(tmp_path / f"{name}.pcapng", captures[name])
        return tshark.usage(capture, timeout=soon(3600))[1]

    kib = {name: peak(name) for name in captures}
    objects, descriptors = kib["objects"] - kib["plain"], kib["descriptors"] - kib["plain"]
    joined = kib["joined"] - kib["whole"]
    print(
        f"{count} messages, KiB: {kib}; more: objects {objects}, descriptors {descriptors}, joined {joined}"
    )
    assert objects < 25_000
    assert descriptors < 60_000
    assert joined < 50_000
