# ruff: noqa: E501 (tables of bytes)
"""What real protocols say: turns of (from the client, bytes), and a field whose values tell that it was understood."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from captures import Turn


@dataclass
class Dialogue:
    """One protocol.  ``field`` must show ``values``, in the order of the capture, however the bytes are cut."""

    path: bytes
    turns: list[Turn]
    field: str
    values: list[str]


def _dbus_hello(serial: int) -> bytes:
    fields = b""
    texts = ((1, "o", "/org/freedesktop/DBus"), (6, "s", "org.freedesktop.DBus"), (3, "s", "Hello"))
    for code, signature, text in texts:
        data = text.encode()
        fields += bytes(-len(fields) % 8) + bytes([code, 1]) + signature.encode() + b"\0"
        fields += struct.pack("<I", len(data)) + data + b"\0"
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, serial, len(fields))
    return head + fields + bytes(-len(fields) % 8)


def _pg(letter: bytes, body: bytes) -> bytes:
    return letter + struct.pack(">I", len(body) + 4) + body


def _ssh_agent(*bodies: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


def _fcgi(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBHHBB", 1, kind, 1, len(body), 0, 0) + body


def _wayland(obj: int, opcode: int, args: bytes) -> bytes:
    return struct.pack("<IHH", obj, opcode, 8 + len(args)) + args


def _milter(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", 1 + len(data)) + letter + data


def _uwsgi(*texts: bytes) -> bytes:
    body = b"".join(struct.pack("<H", len(text)) + text for text in texts)
    return struct.pack("<BHB", 0, len(body), 0) + body


def _ttrpc(stream: int, kind: int, data: bytes) -> bytes:
    return struct.pack(">IIBB", len(data), stream, kind, 0) + data


_STARTUP = struct.pack(">II", 16, 196608) + b"user\0a\0\0"
_HTTP_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n"
_CHUNKED = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

DIALOGUES = {
    "http": Dialogue(
        b"/run/docker.sock",
        [(True, b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _HTTP_REPLY),
         (True, b"GET /b HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _CHUNKED)],
        "http.response.code", ["200", "404"],
    ),
    "http-by-content": Dialogue(
        b"/tmp/unheard-of", [(True, b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _HTTP_REPLY)],
        "http.response.code", ["200"],
    ),
    "dbus": Dialogue(
        b"/run/dbus/system_bus_socket",
        [(True, b"\0AUTH EXTERNAL 30\r\n"), (False, b"OK 1234\r\n"),
         (True, b"NEGOTIATE_UNIX_FD\r\n"), (False, b"AGREE_UNIX_FD\r\n"),
         (True, b"BEGIN\r\n" + _dbus_hello(1) + _dbus_hello(2)), (True, _dbus_hello(3))],
        "dbus.serial", ["1", "2", "3"],
    ),
    "dbus-sasl": Dialogue(
        b"/run/dbus/system_bus_socket", [(True, b"\0AUTH EXTERNAL 30\r\n"), (False, b"OK 1234\r\n")],
        "unixsock.dbus.auth.command", ["AUTH", "OK"],
    ),
    "pgsql": Dialogue(
        b"/run/postgresql/.s.PGSQL.5432",
        [(True, _STARTUP), (False, _pg(b"R", bytes(4)) + _pg(b"Z", b"I")),
         (True, _pg(b"Q", b"SELECT 1\0")), (False, _pg(b"C", b"SELECT 1\0") + _pg(b"Z", b"I"))],
        "pgsql.query", ["SELECT 1"],
    ),
    "resp": Dialogue(
        b"/run/redis/redis-server.sock",
        [(True, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), (False, b"$5\r\nvalue\r\n")],
        "resp.bulk_string.value", ["474554", "6b", "76616c7565"],
    ),
    "fcgi": Dialogue(
        b"/run/php/php8.2-fpm.sock",
        [(True, _fcgi(1, struct.pack(">HB5x", 1, 0)) + _fcgi(4, b"") + _fcgi(5, b"")), (False, _fcgi(3, bytes(8)))],
        "fcgi.type", ["1", "4", "5", "3"],
    ),
    "varlink": Dialogue(
        b"/run/systemd/io.systemd.Resolve",
        [(True, b'{"method":"io.systemd.Resolve.A","more":true}\0'), (False, b'{"parameters":{}}\0'),
         (True, b'{"method":"io.systemd.Resolve.B"}\0')],
        "varlink.method", ["io.systemd.Resolve.A", "io.systemd.Resolve.B"],
    ),
    "qmp": Dialogue(
        b"/run/vm-qmp.sock",
        [(False, b'{"QMP": {}}\r\n'), (True, b'{"execute": "stop"}\n{"execute": "cont"}\n')],
        "json.value.string", ["stop", "cont"],
    ),
    "ssh-agent": Dialogue(
        b"/tmp/ssh-abc/agent.12",
        [(True, _ssh_agent(b"\x0b")), (False, _ssh_agent(b"\x0c\0\0\0\0")), (True, _ssh_agent(b"\x13", b"\x13"))],
        "ssh_agent.type", ["11", "12", "19", "19"],
    ),
    "assuan": Dialogue(
        b"/run/user/0/gnupg/S.gpg-agent",
        [(False, b"OK Pleased to meet you\n"), (True, b"GETINFO version\n"), (False, b"D 2.2\nOK\n")],
        "assuan.command", ["OK", "GETINFO", "D", "OK"],
    ),
    "wayland": Dialogue(
        b"/run/user/1000/wayland-0",
        [(True, _wayland(1, 1, struct.pack("<I", 2)) + _wayland(1, 0, struct.pack("<I", 3))),
         (False, _wayland(3, 0, bytes(4)))],
        "wayland.opcode", ["1", "0", "0"],
    ),
    "milter": Dialogue(
        b"/run/spamass-milter.sock",
        [(True, _milter(b"O", bytes(12))), (False, _milter(b"O", bytes(12))), (True, _milter(b"H", b"h\0")),
         (False, _milter(b"c"))],
        "milter.command", ["OPTNEG", "OPTNEG", "HELO", "CONTINUE"],
    ),
    "mpd": Dialogue(
        b"/run/mpd/socket", [(False, b"OK MPD 0.23\n"), (True, b"status\n"), (False, b"volume: 3\nOK\n")],
        "mpd.command", ["OK", "status", "volume:", "OK"],
    ),
    "uwsgi": Dialogue(
        b"/run/uwsgi/app.socket", [(True, _uwsgi(b"REQUEST_METHOD", b"GET", b"REQUEST_URI", b"/x"))],
        "uwsgi.value", ["GET", "/x"],
    ),
    "ttrpc": Dialogue(
        b"/run/containerd/containerd.sock.ttrpc",
        [(True, _ttrpc(1, 1, b"\x0a\x04a.b.\x12\x03Get")), (False, _ttrpc(1, 2, b"\x0a\0"))],
        "ttrpc.type", ["1", "2"],
    ),
    "smtp": Dialogue(
        b"/run/dovecot/lmtp",
        [(False, b"220 hi LMTP\r\n"), (True, b"LHLO me\r\n"), (False, b"250 ok\r\n"), (True, b"QUIT\r\n"),
         (False, b"221 bye\r\n")],
        "smtp.response.code", ["220", "250", "221"],
    ),
    "json-by-preference": Dialogue(
        b"/srv/ourown", [(True, b'{"execute": "one"}\n'), (False, b'{"return": {}}\n')],
        "json.value.string", ["one"],
    ),
}  # fmt: skip
