# ruff: noqa: E501 (tables of bytes)
"""What real protocols say: turns of (from the client, bytes), and a field whose values tell that it was understood."""

from __future__ import annotations

import contextlib
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path

from captures import Turn

from unixsock_bpf.formats.reader import read
from unixsock_bpf.record import Role, SocketType


@dataclass
class Sample:
    """One protocol.  ``field`` must show ``values``, in the order of the capture, however the bytes are cut.

    So must the fields in ``more``.  If ``tcp_port`` is set, 1-byte records need only show what this Wireshark
    shows for 1-byte segments of real TCP at that port.
    """

    path: bytes
    turns: list[Turn]
    field: str
    values: list[str]
    more: dict[str, list[str]] = field(default_factory=dict)
    kind: SocketType = SocketType.STREAM
    tcp_port: int = 0

    @property
    def expected(self) -> dict[str, list[str]]:
        """All fields and their values."""
        return {self.field: self.values, **self.more}


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


def http2(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def hpack(index: int, text: bytes) -> bytes:
    """A literal header whose name is entry ``index`` of HPACK's static table."""
    return bytes([0x40 | index, len(text)]) + text


def _mysql(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def _9p(kind: int, version: bytes) -> bytes:
    body = struct.pack("<BHIH", kind, 0xFFFF, 8192, len(version)) + version
    return struct.pack("<I", 4 + len(body)) + body


def _pulse(*tagged: int, rest: bytes = b"") -> bytes:
    body = b"".join(b"L" + struct.pack(">I", value) for value in tagged) + rest
    return struct.pack(">IIIII", len(body), 0xFFFFFFFF, 0, 0, 0) + body


def _pipewire(obj: int, opcode: int, seq: int, pod: bytes) -> bytes:
    return struct.pack("<IIII", obj, opcode << 24 | len(pod), seq, 0) + pod


_ZMTP_GREETING = b"\xff" + bytes(7) + b"\1\x7f\3\1NULL".ljust(24, b"\0") + bytes(32)


def _zmtp(flags: int, body: bytes) -> bytes:
    return bytes([flags]) + struct.pack(">Q" if flags & 2 else ">B", len(body)) + body


def _zmtp_property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value


def _headed(body: bytes, more: bytes = b"") -> bytes:
    """A document as language servers send it."""
    return b"Content-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


def _sized(form: str, body: bytes) -> bytes:
    return struct.pack(form, len(body)) + body


def _recorded(name: str) -> list[Turn]:
    """What a real program said in the first conversation of captures/NAME.pcapng."""
    records = [one.record for one in read(str(Path(__file__).parent / f"captures/{name}.pcapng"))]
    first = records[0]
    ends = {first.src_sock, first.dst_sock}
    said = [one for one in records if {one.src_sock, one.dst_sock} == ends and one.payload]
    return [(one.role == Role.DST_IS_SERVER, bytes(one.payload)) for one in said]


def _mux(kind: int, *numbers: int, texts: tuple[bytes, ...] = ()) -> bytes:
    body = struct.pack(f">{1 + len(numbers)}I", kind, *numbers) + b"".join(
        _sized(">I", text) for text in texts
    )
    return _sized(">I", body)


def _nbd_request(kind: int, cookie: bytes, offset: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack(">IHH8sQI", 0x25609513, 0, kind, cookie, offset, length) + data


def _nbd_chunk(flags: int, kind: int, cookie: bytes, data: bytes) -> bytes:
    return struct.pack(">IHH8sI", 0x668E33EF, flags, kind, cookie, len(data)) + data


def _i3(kind: int, body: bytes) -> bytes:
    return b"i3-ipc" + struct.pack("<II", len(body), kind) + body


def _udev(kind: int, value: bytes) -> bytes:
    return struct.pack("<16sII256s", b"udev-252", 0xDEAD1DEA, kind, value)


def _container(stream: int, text: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(text)) + text


def _ptp_get(management_id: int) -> bytes:
    """What pmc sends for GET: a management message to all ports."""
    tlv = struct.pack(">HHH", 1, 2, management_id)
    body = b"\xff" * 10 + bytes([1, 1, 0, 0]) + tlv
    head = struct.pack(">BBHBBH8xI", 0x0D, 2, 34 + len(body), 0, 0, 0, 0)
    return head + b"\0\0\0\xff\xfe\0\0\1\0\1" + struct.pack(">HBb", 0, 4, 0x7F) + body


def _tls() -> list[Turn]:
    """A real handshake, TLS 1.2 without certificates."""
    sides = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides.append((context.wrap_bio(into, out, protocol == ssl.PROTOCOL_TLS_SERVER), into, out))
    turns: list[Turn] = []
    for number in range(4):
        end, _, out = sides[number % 2]
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
        data = out.read()
        sides[1 - number % 2][1].write(data)
        turns.append((number % 2 == 0, data))
    return turns


# What chronyc 4.3 asked and chronyd answered; requests are padded with zeros to the reply's length.
_CHRONY = [
    (True, bytes.fromhex("0601000000210000f8695dd6").ljust(104, b"\0")),
    (False, bytes.fromhex("06020000002100050000000000000000f8695dd600000000000000007f7f0101" + 20 * "00" +
                          "000700000000000000006b05a43b0d86266c").ljust(104, b"\0")),
    (True, bytes.fromhex("06010000000e00009dd7cebb").ljust(32, b"\0")),
    (False, bytes.fromhex("06020000000e000200000000000000009dd7cebb000000000000000000000001")),
    (True, bytes.fromhex("0601000000000001ad4c8f41").ljust(28, b"\0")),
    (False, bytes.fromhex("06020000000000010002000000000000ad4c8f410000000000000000")),
]  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2(4, 0, 0)
_GRPC = [
    (True, PREFACE),
    (False, http2(4, 0, 0) + http2(4, 1, 0)),
    (True, http2(4, 1, 0) + http2(1, 4, 1, b"\x83\x86" + hpack(4, b"/v1.Images/List") + hpack(31, b"application/grpc"))
     + http2(0, 1, 1, b"\0\0\0\0\2\x0a\0")),
    (False, http2(1, 4, 1, b"\x88" + hpack(31, b"application/grpc")) + http2(0, 1, 1, b"\0\0\0\0\0")),
]  # fmt: skip

_MYSQL_GREETING = (b"\x0a8.0.1\0" + struct.pack("<I", 9) + b"saltsalt\0" + struct.pack("<HBHHB", 0x8200, 33, 2, 0, 21)
                   + bytes(10) + b"saltsaltsalt\0")  # fmt: skip
_MYSQL_LOGIN = struct.pack("<IIB", 0x8200, 1 << 24, 33) + bytes(23) + b"root\0\0"

_STARTUP = struct.pack(">II", 16, 196608) + b"user\0a\0\0"
_HTTP_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n"
_CHUNKED = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

SAMPLES = {
    "http": Sample(
        b"/run/docker.sock",
        [(True, b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _HTTP_REPLY),
         (True, b"GET /b HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _CHUNKED)],
        "http.response.code", ["200", "404"], {"http.request.method": ["GET", "GET"]}, tcp_port=80,
    ),
    "http-by-content": Sample(
        b"/tmp/unheard-of", [(True, b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n"), (False, _HTTP_REPLY)],
        "http.response.code", ["200"],
    ),
    "dbus": Sample(
        b"/run/dbus/system_bus_socket",
        [(True, b"\0AUTH EXTERNAL 30\r\n"), (False, b"OK 1234\r\n"),
         (True, b"NEGOTIATE_UNIX_FD\r\n"), (False, b"AGREE_UNIX_FD\r\n"),
         (True, b"BEGIN\r\n" + _dbus_hello(1) + _dbus_hello(2)), (True, _dbus_hello(3))],
        "dbus.serial", ["1", "2", "3"],
    ),
    "dbus-sasl": Sample(
        b"/run/dbus/system_bus_socket", [(True, b"\0AUTH EXTERNAL 30\r\n"), (False, b"OK 1234\r\n")],
        "unixsock.dbus.auth.command", ["AUTH", "OK"],
    ),
    "pgsql": Sample(
        b"/run/postgresql/.s.PGSQL.5432",
        [(True, _STARTUP), (False, _pg(b"R", bytes(4)) + _pg(b"Z", b"I")),
         (True, _pg(b"Q", b"SELECT 1\0")), (False, _pg(b"C", b"SELECT 1\0") + _pg(b"Z", b"I"))],
        "pgsql.query", ["SELECT 1"],
    ),
    "resp": Sample(
        b"/run/redis/redis-server.sock",
        [(True, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), (False, b"$5\r\nvalue\r\n")],
        "resp.bulk_string.value", ["474554", "6b", "76616c7565"],
    ),
    "fcgi": Sample(
        b"/run/php/php8.2-fpm.sock",
        [(True, _fcgi(1, struct.pack(">HB5x", 1, 0)) + _fcgi(4, b"") + _fcgi(5, b"")), (False, _fcgi(3, bytes(8)))],
        "fcgi.type", ["1", "4", "5", "3"],
    ),
    "varlink": Sample(
        b"/run/systemd/io.systemd.Resolve",
        [(True, b'{"method":"io.systemd.Resolve.A","more":true}\0'), (False, b'{"parameters":{}}\0'),
         (True, b'{"method":"io.systemd.Resolve.B"}\0')],
        "varlink.method", ["io.systemd.Resolve.A", "io.systemd.Resolve.B"],
    ),
    "qmp": Sample(
        b"/run/vm-qmp.sock",
        [(False, b'{"QMP": {}}\r\n'), (True, b'{"execute": "stop"}\n{"execute": "cont"}\n')],
        "json.value.string", ["stop", "cont"],
    ),
    "ssh-agent": Sample(
        b"/tmp/ssh-abc/agent.12",
        [(True, _ssh_agent(b"\x0b")), (False, _ssh_agent(b"\x0c\0\0\0\0")), (True, _ssh_agent(b"\x13", b"\x13"))],
        "ssh_agent.type", ["11", "12", "19", "19"],
    ),
    "assuan": Sample(
        b"/run/user/0/gnupg/S.gpg-agent",
        [(False, b"OK Pleased to meet you\n"), (True, b"GETINFO version\n"), (False, b"D 2.2\nOK\n")],
        "assuan.command", ["OK", "GETINFO", "D", "OK"],
    ),
    "wayland": Sample(
        b"/run/user/1000/wayland-0",
        [(True, _wayland(1, 1, struct.pack("<I", 2)) + _wayland(1, 0, struct.pack("<I", 3))),
         (False, _wayland(2, 0, struct.pack("<II16sI", 1, 14, b"wl_compositor", 5)) + _wayland(3, 0, bytes(4))),
         (True, _wayland(2, 0, struct.pack("<II16sII", 1, 14, b"wl_compositor", 4, 3)) + _wayland(3, 0, struct.pack("<I", 4))),
         (True, _wayland(4, 2, struct.pack("<iiii", -1, 2, 30, 40)))],
        "wayland.opcode", ["1", "0", "0", "0", "0", "0", "2"],
        more={
            "wayland.message": [
                "wl_display.get_registry", "wl_display.sync", "wl_registry.global wl_compositor", "wl_callback.done",
                "wl_registry.bind wl_compositor", "wl_compositor.create_surface", "wl_surface.damage",
            ],
            "wayland.argument": [
                "registry: wl_registry#2", "callback: wl_callback#3", "name: 1", "interface: wl_compositor",
                "version: 5", "callback_data: 0", "name: 1", "interface: wl_compositor", "version: 4",
                "id: wl_compositor#3", "id: wl_surface#4", "x: -1", "y: 2", "width: 30", "height: 40",
            ],
        },
    ),
    "milter": Sample(
        b"/run/spamass-milter.sock",
        [(True, _milter(b"O", b"\0\0\0\6" + bytes(8))), (False, _milter(b"O", b"\0\0\0\6" + bytes(8))), (True, _milter(b"H", b"h\0")),
         (False, _milter(b"c"))],
        "milter.command", ["OPTNEG", "OPTNEG", "HELO", "CONTINUE"],
    ),
    "mpd": Sample(
        b"/run/mpd/socket", [(False, b"OK MPD 0.23\n"), (True, b"status\n"), (False, b"volume: 3\nOK\n")],
        "mpd.command", ["OK", "status", "volume:", "OK"],
    ),
    "uwsgi": Sample(
        b"/run/uwsgi/app.socket", [(True, _uwsgi(b"REQUEST_METHOD", b"GET", b"REQUEST_URI", b"/x"))],
        "uwsgi.value", ["GET", "/x"],
    ),
    "ttrpc": Sample(
        b"/run/containerd/containerd.sock.ttrpc",
        [(True, _ttrpc(1, 1, b"\x0a\x04a.b.\x12\x03Get")), (False, _ttrpc(1, 2, b"\x0a\0"))],
        "ttrpc.type", ["1", "2"],
    ),
    "smtp": Sample(
        b"/run/dovecot/lmtp",
        [(False, b"220 hi LMTP\r\n"), (True, b"LHLO me\r\n"), (False, b"250 ok\r\n"), (True, b"QUIT\r\n"),
         (False, b"221 bye\r\n")],
        "smtp.response.code", ["220", "250", "221"],
    ),
    "http2": Sample(
        b"/run/containerd/containerd.sock", _GRPC, "http2.type", ["4", "4", "4", "4", "1", "0", "1", "0"],
        {"http2.headers.path": ["/v1.Images/List"], "grpc.message_length": ["2", "0"]},
    ),
    "mysql": Sample(
        b"/run/mysqld/mysqld.sock",
        [(False, _mysql(0, _MYSQL_GREETING)), (True, _mysql(1, _MYSQL_LOGIN)), (False, _mysql(2, bytes(7))),
         (True, _mysql(0, b"\3SELECT 1")), (False, _mysql(1, bytes(7))), (True, _mysql(0, b"\1"))],
        "mysql.command", ["3", "1"], {"mysql.query": ["SELECT 1"], "mysql.user": ["root"], "mysql.version": ["8.0.1"]},
    ),
    "memcached": Sample(
        b"/run/memcached.sock", [(True, b"get k\r\n"), (False, b"VALUE k 0 1\r\nx\r\nEND\r\n")],
        "memcache.command", ["get"],
    ),
    "x11": Sample(
        b"/tmp/.X11-unix/X0",
        [(True, struct.pack("<cxHHHH2x", b"l", 11, 0, 0, 0)),
         (False, struct.pack("<BxHHH", 1, 11, 0, 8) + bytes(18) + b"\xff\xff" + bytes(6) + b"\x08\xff" + bytes(4)),
         (True, struct.pack("<BBHHH4s", 16, 1, 3, 4, 0, b"ATOM") + struct.pack("<BxH", 127, 1)),
         (False, struct.pack("<BxHII20x", 1, 1, 0, 77))],
        "x11.opcode", ["16", "127"], {"x11.name": ["ATOM"]},
    ),
    "ldap": Sample(
        b"/run/slapd/ldapi",
        [(True, bytes.fromhex("300c020101600702010304008000")), (False, bytes.fromhex("300c02010161070a010004000400")),
         (True, bytes.fromhex("30050201024200"))],
        "ldap.messageID", ["1", "1", "2"], {"ldap.protocolOp": ["0", "1", "2"]},
    ),
    "mqtt": Sample(
        b"/run/mosquitto/mqtt.sock",
        [(True, b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a"), (False, b"\x20\2\0\0"),
         (True, b"\x30\5\0\1thi\xc0\0"), (False, b"\xd0\0")],
        "mqtt.msgtype", ["1", "2", "3", "12", "13"], {"mqtt.topic": ["t"]},
    ),
    "amqp": Sample(
        b"/run/amqp.sock",
        [(True, b"AMQP\0\0\x09\x01"),
         (False, struct.pack(">BHIHHBBI", 1, 0, 28, 10, 10, 0, 9, 0) + b"\0\0\0\5PLAIN\0\0\0\5en_US\xce"),
         (True, b"\x08\0\0\0\0\0\0\xce")],
        "amqp.type", ["1", "8"],
    ),
    "9p": Sample(
        b"/run/virtfs.sock", [(True, _9p(100, b"9P2000.L")), (False, _9p(101, b"9P2000.L"))],
        "9p.msgtype", ["100", "101"], {"9p.version": ["9P2000.L", "9P2000.L"]},
    ),
    "tls": Sample(b"/run/tls-proxy.sock", _tls(), "tls.handshake.type", ["1", "2", "12", "14", "16", "4"]),
    "ssh": Sample(
        b"/run/ssh-proxy.sock", [(False, b"SSH-2.0-OpenSSH_9.2\r\n"), (True, b"SSH-2.0-OpenSSH_9.2\r\n")],
        "ssh.protocol", ["SSH-2.0-OpenSSH_9.2"] * 2,
    ),
    "ptp": Sample(
        b"/var/run/ptp4l", [(True, _ptp_get(0x2000)), (True, _ptp_get(0x2001))],
        "ptp.v2.mm.managementId", ["8192", "8193"], kind=SocketType.DGRAM,
    ),
    "syslog": Sample(
        b"/dev/log", [(True, b"<13>Nov 24 14:50:01 tag[5]: hello"), (True, b"<30>Nov 24 14:50:02 x: y")],
        "syslog.level", ["5", "6"], {"syslog.facility": ["1", "3"]}, kind=SocketType.DGRAM,
    ),
    "chrony": Sample(
        b"/run/chrony/chronyd.sock", _CHRONY, "chrony.command", ["33", "33", "14", "14", "0", "0"],
        {"chrony.version": ["6"] * 6, "chrony.type": ["1", "2"] * 3, "chrony.attempt": ["0", "0", "1"],
         "chrony.reply": ["5", "2", "1"], "chrony.status": ["0", "0", "2"], "chrony.tracking.stratum": ["7"],
         "chrony.sources": ["1"],
         "chrony.sequence": ["0xf8695dd6"] * 2 + ["0x9dd7cebb"] * 2 + ["0xad4c8f41"] * 2},
        kind=SocketType.DGRAM,
    ),
    "sd_notify": Sample(  # systemd-notify --ready --status=... WATCHDOG=1
        b"/run/systemd/notify", [(True, b"READY=1\nSTATUS=Serving 3 clients\nWATCHDOG=1"), (True, b"BARRIER=1")],
        "sd_notify.name", ["READY", "STATUS", "WATCHDOG", "BARRIER"],
        {"sd_notify.value": ["1", "Serving 3 clients", "1", "1"]}, kind=SocketType.DGRAM,
    ),
    "journald": Sample(  # logger --journald
        b"/run/systemd/journal/socket",
        [(True, b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY=5\nNEWS=x\nSYSLOG_IDENTIFIER=logger\n")],
        "journald.name", ["MESSAGE", "PRIORITY", "NEWS", "SYSLOG_IDENTIFIER"],
        {"journald.value": ["one\\x0atwo", "5", "x", "logger"], "journald.priority": ["5"]}, kind=SocketType.DGRAM,
    ),
    "wpa_ctrl": Sample(
        b"/run/wpa_supplicant/wlan0",
        [(True, b"PING"), (False, b"PONG\n"), (True, b"SET_NETWORK 0 psk \"secret\""), (False, b"OK\n"),
         (False, b"<3>CTRL-EVENT-SCAN-RESULTS ")],
        "wpa_ctrl.command", ["PING", "SET_NETWORK"],
        {"wpa_ctrl.args": ['0 psk "secret"'], "wpa_ctrl.reply": ["PONG", "OK"], "wpa_ctrl.level": ["3"],
         "wpa_ctrl.event": ["CTRL-EVENT-SCAN-RESULTS "]},
        kind=SocketType.DGRAM,
    ),
    "pulse": Sample(
        b"/run/user/1000/pulse/native",
        [(True, _pulse(8, 0, 0xC0000023, rest=b"x" + struct.pack(">I", 256) + bytes(256))),
         (False, _pulse(2, 0, 0xC0000023)), (True, _pulse(9, 1, rest=b"P" + b"N")), (False, _pulse(2, 1))],
        "pulse.command", ["8", "2", "9", "2"],
        {"pulse.tag": ["0x00000000", "0x00000000", "0x00000001", "0x00000001"], "pulse.length": ["276", "15", "12", "10"]},
    ),
    "pipewire": Sample(
        b"/run/user/1000/pipewire-0",
        [(True, _pipewire(0, 1, 0, struct.pack("<IIIIII", 16, 14, 4, 4, 3, 0)) + _pipewire(1, 2, 1, struct.pack("<II", 0, 14))),
         (False, _pipewire(0, 0, 0, struct.pack("<II", 0, 14)))],
        "pipewire.method", ["Core.Hello", "Core.Info"],
        {"pipewire.id": ["0", "1", "0"], "pipewire.opcode": ["1", "2", "0"], "pipewire.size": ["24", "8", "8"],
         "pipewire.seq": ["0", "1", "0"]},
    ),
    "zmtp": Sample(
        b"/run/zmq/ipc.sock",
        [(True, _ZMTP_GREETING), (False, _ZMTP_GREETING),
         (True, _zmtp(4, b"\5READY" + _zmtp_property(b"Socket-Type", b"REQ") + _zmtp_property(b"Identity", b""))),
         (False, _zmtp(4, b"\5READY" + _zmtp_property(b"Socket-Type", b"REP"))),
         (True, _zmtp(1, b"") + _zmtp(0, b"question")), (False, _zmtp(1, b"") + _zmtp(2, b"a" * 300)),
         (True, _zmtp(4, b"\4PING\0\x0active")), (False, _zmtp(4, b"\x05ERROR\2no")),
         (True, _zmtp(4, b"\x09SUBSCRIBEnews"))],
        "zmtp.command-name", ["READY", "READY", "PING", "ERROR", "SUBSCRIBE"],
        {"zmtp.mechanism": ["NULL", "NULL"], "zmtp.version.minor": ["1", "1"],
         "zmtp.metadata.key": ["Socket-Type", "Identity", "Socket-Type"], "zmtp.metadata.value": ["REQ", "REP"],
         "zmtp.length": ["38", "25", "0", "8", "0", "300", "12", "9", "14"], "zmtp.ping.ttl": ["10"],
         "zmtp.reason": ["no"], "zmtp.topic": ["news"]},
    ),
    "gpg-agent": Sample(  # gpg-agent 2.2.40 --server
        b"/run/user/1000/gnupg/S.gpg-agent.extra",
        [(False, b"OK Pleased to meet you\n"), (True, b"GETINFO version\n"), (False, b"D 2.2.40\nOK\n"),
         (True, b"HAVEKEY --list\n"), (False, b"ERR 67109144 IPC parameter error <GPG Agent> - invalid hexstring\n"),
         (True, b"BYE\n"), (False, b"OK closing connection\n")],
        "assuan.command", ["OK", "GETINFO", "D", "OK", "HAVEKEY", "ERR", "BYE", "OK"],
        {"assuan.args": ["Pleased to meet you", "version", "2.2.40", "--list",
                         "67109144 IPC parameter error <GPG Agent> - invalid hexstring", "closing connection"]},
    ),
    "ovsdb": Sample(  # ovsdb-client list-dbs: nothing between the documents
        b"/run/openvswitch/db.sock",
        [(True, b'{"id":0,"method":"list_dbs","params":[]}'),
         (False, b'{"error":null,"id":0,"result":["_Server","Open_vSwitch"]}{"id":"echo","method":"echo","params":["}\\\\\\""]}'),
         (True, b'{"error":{"code":-32601,"message":"no"},"id":"echo","result":null}')],
        "unixsock.json.method", ["list_dbs", "echo"],
        {"unixsock.json.id": ["0", "0", "echo", "echo"], "unixsock.json.error": ["-32601 no"]},
    ),
    "qmp-pretty": Sample(
        b"/run/x-qmp.sock",
        [(False, b'{\r\n    "QMP": {\r\n        "capabilities": [\r\n            "oob"\r\n        ]\r\n    }\r\n}\r\n'),
         (True, b'{\n  "execute": "query-status",\n  "arguments": {\n  }\n}\n'),
         (False, b'{\r\n    "return": {\r\n        "running": true\r\n    }\r\n}\r\n')],
        "unixsock.json.method", ["QMP greeting", "query-status"], {"json.key": ["capabilities", "QMP", "execute", "arguments", "running", "return"]},
    ),
    "language-server": Sample(
        b"/run/editor.json",
        [(True, _headed(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":"{\\"\\n"}}')
          + _headed(b'{"jsonrpc":"2.0","method":"initialized"}', b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n")),
         (False, _headed(b'{"jsonrpc":"2.0","id":1,"result":{"capabilities":{}}}')),
         (False, _headed(b'{"seq":3,"type":"response","request_seq":2,"success":false,"command":"launch","message":"gone"}'))],
        "unixsock.json.method", ["initialize", "initialized", "launch"],
        {"unixsock.json.id": ["1", "1", "2"], "unixsock.json.error": ["gone"]},
    ),
    "json-ended-by-nul": Sample(
        b"/run/x-json", [(True, b'{"command":["get_property","pause"],"request_id":5}\0{"command":["x"]}\0'),
                         (False, b'{"data":false,"request_id":5,"error":"success"}\0{"result":1,"text":"bad"}\0')],
        "unixsock.json.method", ["get_property", "x"], {"unixsock.json.id": ["5", "5"], "unixsock.json.error": ["bad"]},
    ),
    "json-after-length": Sample(
        b"/run/y.json", [(True, _sized(">I", b'{"id":1,"method":"big"}') * 2), (False, _sized("<I", b'{"id":1,"result":"a much longer text"}')),
                         (True, struct.pack("<I", 1) + _sized("<I", b'[{"id":3,"method":"a"}, {"id":4,"method":"b"}]'))],
        "unixsock.json.method", ["big", "big", "a", "b"], {"unixsock.json.id": ["1", "1", "1", "3", "4"]},
    ),
    "ssh-mux": Sample(
        b"/root/.ssh/control-me@host:22",
        [(True, _mux(1, 4)), (False, _mux(1, 4)), (True, _mux(0x10000004, 0)), (False, _mux(0x80000005, 0, 4711)),
         (True, _mux(0x10000002, 1, 0, 0, 0, 0, 0, 0x7E, texts=(b"xterm", b"uname -a", b"LANG=C")) + bytes(3)), (False, _mux(0x80000006, 1, 9)),
         (False, _mux(0x80000004, 9, 3)), (True, _mux(0x10000006, 2)), (False, _mux(0x80000003, 2, texts=(b"Port forwarding failed",)))],
        "ssh_mux.type", [f"0x{kind:08x}" for kind in (1, 1, 0x10000004, 0x80000005, 0x10000002, 0x80000006, 0x80000004, 0x10000006, 0x80000003)],
        {"ssh_mux.command": ["uname -a"], "ssh_mux.terminal": ["xterm"], "ssh_mux.exit": ["3"], "ssh_mux.reason": ["Port forwarding failed"],
         "ssh_mux.version": ["4", "4"]},
    ),
    "nbd": Sample(  # a structured and a simple reply, a failure
        b"/run/nbd.sock",
        [(False, b"NBDMAGICIHAVEOPT\0\3"), (True, struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 8, 0)),
         (False, struct.pack(">QIII", 0x3E889045565A9, 8, 1, 0)),
         (True, b"IHAVEOPT" + struct.pack(">III4sH", 7, 10, 4, b"disk", 0)),
         (False, struct.pack(">QIIIHQH", 0x3E889045565A9, 7, 3, 12, 0, 1 << 20, 3) + struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0)),
         (True, _nbd_request(0, b"cookie-1", 512, 8) + _nbd_request(1, b"cookie-2", 0, 3, b"abc")),
         (False, _nbd_chunk(0, 1, b"cookie-1", bytes(8) + b"g\x44f\x98") + _nbd_chunk(1, 0, b"cookie-1", b"")),
         (False, struct.pack(">II8s", 0x67446698, 28, b"cookie-2")),
         (True, _nbd_request(0, b"cookie-3", 0, 20)),
         (False, struct.pack(">II8s", 0x67446698, 0, b"cookie-3") + b"\x67\x44\x66\x98" * 5),
         (True, _nbd_request(3, b"cookie-4", 0, 0)), (False, struct.pack(">II8s", 0x67446698, 0, b"cookie-4")),
         (True, _nbd_request(2, b"cookie-5", 0, 0))],
        "unixsock.nbd.command", ["0", "1", "0", "3", "2"],
        {"unixsock.nbd.option": ["8", "8", "7", "7", "7"], "unixsock.nbd.name": ["disk"], "unixsock.nbd.reply_type": ["0x0001", "0x0000"],
         "unixsock.nbd.error": ["ENOSPC"], "unixsock.nbd.message": [
            "greeting", "client flags", "option STRUCTURED_REPLY", "answer ACK to STRUCTURED_REPLY", "option GO disk", "answer INFO to GO",
            "answer ACK to GO", "READ offset 512, 8 bytes", "WRITE offset 0, 3 bytes", "OFFSET_DATA, 12 bytes", "NONE, 0 bytes",
            "reply ENOSPC", "READ offset 0, 20 bytes", "reply, 20 bytes", "FLUSH offset 0, 0 bytes", "reply, 0 bytes", "DISC offset 0, 0 bytes"]},
    ),
    "nbd-export-name": Sample(
        b"/run/nbd.sock",
        [(False, b"NBDMAGICIHAVEOPT\0\3"), (True, struct.pack(">I", 3)), (True, b"IHAVEOPT" + struct.pack(">II", 1, 1) + b"x"),
         (False, struct.pack(">QH", 1 << 20, 1)), (True, _nbd_request(0, b"cookie-1", 0, 4)),
         (False, struct.pack(">II8s", 0x67446698, 0, b"cookie-1") + b"data")],
        "unixsock.nbd.message", ["greeting", "client flags", "option EXPORT_NAME x", "export", "READ offset 0, 4 bytes", "reply, 4 bytes"],
        {"unixsock.nbd.export_size": ["1048576"], "unixsock.nbd.data": ["64617461"]},
    ),
    "multiprocessing": Sample(  # managers of Python 3.11
        b"/tmp/pymp-x/listener-y", _recorded("multiprocessing"),
        "multiprocessing.kind", ["#CHALLENGE#", "message", "#WELCOME#", "#CHALLENGE#", "message", "#WELCOME#", "pickle", "pickle"],
        {"multiprocessing.string": ["dummy", "#RETURN"]},
    ),
    "tmux": Sample(  # tmux 3.3a list-sessions
        b"/tmp/tmux-0/default", _recorded("tmux"),
        "tmux.type", ["100", "111", "101", "109", "102", "108", "104", "110", "107", "105", "105", "105", "106", "200", "303", "305", "304", "203"],
        {"tmux.command": ["list-sessions"]},
    ),
    "i3": Sample(
        b"/run/user/1000/i3/ipc-socket.99",
        [(True, _i3(0, b"nop; bad")), (False, _i3(0, b'[{"success":true},{"success":false,"error":"Expected"}]')),
         (True, _i3(2, b'["window"]')), (False, _i3(2, b'{"success":true}') + _i3(0x80000003, b'{"change":"focus"}')),
         (True, _i3(7, b"")), (False, _i3(7, b'{"major":4}'))],
        "i3_ipc.type", ["0x00000000", "0x00000000", "0x00000002", "0x00000002", "0x80000003", "0x00000007", "0x00000007"],
        {"i3_ipc.command": ["nop; bad"], "json.key": ["success", "success", "error", "success", "change", "major"]},
    ),
    "emacs": Sample(
        b"/run/user/1000/emacs/server",
        [(True, b"-env LANG=C -dir /home/me/a&_b/ -current-frame -eval (+&_1&_2) \n"), (False, b"-emacs-pid 99\n-print 3\n")],
        "emacs.option", ["-env", "-dir", "-current-frame", "-eval", "-emacs-pid", "-print"],
        {"emacs.value": ["LANG=C", "/home/me/a b/", "(+ 1 2)", "99", "3"]},
    ),
    "journal-stream": Sample(  # systemd-cat -t me
        b"/run/systemd/journal/stdout", [(True, b"me\n\n6\n1\n0\n0\n0\n"), (True, b"hello\n<3>bad\n"), (True, b"no end")],
        "journal_stream.identifier", ["me"],
        {"journal_stream.priority": ["6"], "journal_stream.line": ["hello", "bad"], "journal_stream.level": ["3"]},
    ),
    "udev-control": Sample(  # udevadm control --log-level=debug --property=a=b --ping
        b"/run/udev/control", [(True, _udev(1, struct.pack("<i", 7))), (True, _udev(5, b"a=b")), (True, _udev(7, b"")), (True, _udev(0, b""))],
        "udev_ctrl.type", ["1", "5", "7", "0"], {"udev_ctrl.number": ["7"], "udev_ctrl.text": ["a=b"]}, kind=SocketType.SEQPACKET,
    ),
    "docker-exec": Sample(
        b"/run/docker.sock",
        [(True, b"POST /v1.41/exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
         (False, b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"),
         (False, _container(1, b"out\n") + _container(2, b"err\n")), (False, _container(1, b"more"))],
        "docker_stream.stream", ["1", "2", "1"], {"docker_stream.stdout": ["out\\x0a", "more"], "docker_stream.stderr": ["err\\x0a"]},
    ),
    "sane": Sample(
        b"/run/saned.sock",
        [(True, struct.pack(">II", 0, 0x01000003) + _sized(">I", b"me\0")), (False, struct.pack(">II", 0, 0x01000003)),
         (True, struct.pack(">I", 1)), (True, struct.pack(">I", 2) + _sized(">I", b"test:0\0")), (True, struct.pack(">I6II", 5, 0, 2, 1, 3, 6, 6, 0x61626364) + b"ef"),
         (True, struct.pack(">II", 6, 0)), (True, struct.pack(">I", 10))],
        "sane.code", ["0", "1", "2", "5", "6", "10"], {"sane.text": ["me", "test:0"]},
    ),
    "lines": Sample(
        b"/run/haproxy/admin.sock.771.tmp", [(True, b"show info\n"), (False, b"Name: HAProxy\nVersion: 2.6\n\n")],
        "unixsock.lines.command", ["show", "Name:", "Version:"],
    ),
    "json-by-preference": Sample(
        b"/srv/ourown", [(True, b'{"execute": "one"}\n'), (False, b'{"return": {}}\n')],
        "json.value.string", ["one"],
    ),
}  # fmt: skip
