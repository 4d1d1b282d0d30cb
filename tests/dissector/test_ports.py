"""The server's port stands for the path: who is found there, and what the user says of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from captures import conversation, write
from conftest import Tshark

from unixsock_bpf.record import Flag, Record

HTTP = b"/run/docker.sock"
ASKED, ANSWERED = b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SHOWN = ("http.request.method", "http.response.code", "json.key")
BOTH_WAYS = pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])


def between(records: Sequence[Record], number: int) -> list[Record]:
    """The same between two other sockets."""
    high = number << 32
    return [replace(one, src_sock=high | one.src_sock, dst_sock=high | one.dst_sock) for one in records]


def ports_of(tshark: Tshark, tmp_path: Path, names: Sequence[bytes]) -> list[str]:
    said = [between(conversation(name, [(True, b"a")], close=False), n) for n, name in enumerate(names)]
    rows = tshark.fields(write(tmp_path / "ports.pcapng", itertools.chain(*said)), "tcp.dstport")
    return [port for (port,) in rows]


@BOTH_WAYS
def test_two_paths_at_one_port(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """In turns, HTTP's of them cut short, too, and begun before the capture: each is taken for what it is."""
    wanted, *ports = ports_of(tshark, tmp_path, [HTTP, *(b"/x/%d" % n for n in range(20_000))])
    other = b"/x/%d" % ports.index(wanted)
    asked, answered = conversation(HTTP, [(True, ASKED), (False, ANSWERED)], close=False)
    half = replace(answered, payload=ANSWERED[:-1], flags=answered.flags | Flag.TRUNCATED)
    noted = conversation(other, [(True, b'{"key": 1}\n'), (False, b'{"answer": 2}\n')], close=False)
    late = [
        replace(one, flags=one.flags & ~Flag.FROM_START, seq=one.seq + 99, ack=one.ack + 99)
        for one in (asked, answered)
    ]
    said: list[Record] = []
    expected: list[list[str]] = []
    for number, pair in enumerate([(asked, answered), (asked, half), late] * 2):
        for one, json, key, http in zip(pair, noted, ("key", "answer"), (["GET", ""], ["", "200"])):
            said += [*between([one], 2 * number), *between([json], 2 * number + 1)]
            expected += [[*http, ""], ["", "", key]]
    capture = write(tmp_path / "c.pcapng", said)
    assert tshark.fields(capture, *SHOWN, options=options) == expected
    assert {port for row in tshark.fields(capture, "tcp.port") for port in row[0].split("|")} >= {wanted}


@BOTH_WAYS
@pytest.mark.parametrize("name", [HTTP, b"/x"], ids=["http", "unknown"])
def test_decode_as_has_the_last_word(
    tshark: Tshark, tmp_path: Path, name: bytes, options: tuple[str, ...]
) -> None:
    (port,) = ports_of(tshark, tmp_path, [name])
    said = conversation(name, [(True, ASKED), (False, ANSWERED)] * 3, close=False)
    said[2] = replace(said[2], payload=ASKED[:9], flags=said[2].flags | Flag.TRUNCATED)
    capture = write(tmp_path / "c.pcapng", said)
    rows = tshark.fields(capture, "frame.protocols", options=(*options, "-d", f"tcp.port=={port},json"))
    assert {row[0].rpartition("tcp:")[2].split(":")[0] for row in rows} == {"json"}


@BOTH_WAYS
def test_what_waits_for_more(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Bytes that HTTP holds back are marked as a part, in each of the ways that they get there."""
    turns = [(True, part) for part in (b"G", ASKED[1:20], ASKED[20:], ASKED[:20], ASKED[20:])]
    said = conversation(HTTP, [*turns, (False, ANSWERED)], close=False)
    lines = tshark.run(write(tmp_path / "c.pcapng", said), *options).splitlines()
    assert ["(part of a message)" in line for line in lines] == [True, True, False, True, False, False]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING = b"\0\0\0\4\0\0\0\0\0", b"\0\0\10\6\0\0\0\0\0abcdefgh"


@BOTH_WAYS
def test_http_2_where_http_is_expected(tshark: Tshark, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Its short frames, too; and one that was cut short, which goes another way, shows no made-up ports."""
    turns = [(True, PREFACE + SETTINGS), (False, SETTINGS), (True, PING), (False, PING), (True, SETTINGS)]
    capture = write(tmp_path / "c.pcapng", conversation(HTTP, turns, close=False))
    rows = tshark.fields(capture, "http2.type", options=options)
    assert [row[0] for row in rows] == ["4", "4", "6", "6", "4"]
    assert "TCP" not in tshark.run(capture, *options)
    said = conversation(HTTP, turns, close=False)
    said[-1] = replace(said[-1], payload=SETTINGS[:-1], flags=said[-1].flags | Flag.TRUNCATED)
    assert "TCP" not in tshark.run(write(tmp_path / "cut.pcapng", said), *options)


@BOTH_WAYS
def test_an_answer_that_ends_with_the_connection(
    tshark: Tshark, tmp_path: Path, options: tuple[str, ...]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    turns = [(True, ASKED), (False, head + b'{"key"'), (False, b": 1}\n")]
    capture = write(tmp_path / "c.pcapng", conversation(HTTP, turns))
    rows = tshark.fields(capture, *SHOWN, options=options)
    assert rows == [["GET", "", ""], ["", "", ""], ["", "", ""], ["", "", ""], ["", "200", "key"]]
