"""TCP and UDP ports that stand for the protocols of Unix sockets, by first bytes and by name.

Tools that know a protocol by its port find it there: 5432 for PostgreSQL, 80 for HTTP.
"""

from __future__ import annotations

import re
import zlib
from fnmatch import fnmatchcase

#: The first pattern that matches counts.
_BY_NAME = (
    ("*mysqlx*", 33060),
    ("*mysql*", 3306),
    ("*mariadb*", 3306),
    ("*redis*", 6379),
    ("*valkey*", 6379),
    ("*memcached*", 11211),
    ("*mongodb-*", 27017),
    ("*docker*", 80),
    ("*podman*", 80),
    ("*snapd*.socket", 80),
    ("*cups*.sock", 80),
    ("*php*", 9000),
    ("*fcgi*", 9000),
    ("*fastcgi*", 9000),
    ("*/containerd*", 50051),
    ("*.X11-unix/X*", 6000),
    ("/dev/log", 514),
    ("*/systemd/journal/*log", 514),
    ("*rsyslog*", 514),
    ("*chrony*", 323),
    ("*ntpd*", 123),
    ("*slapd*", 389),
    ("*/ldapi", 389),
    ("*lmtp*", 24),
    ("*smtp*", 25),
    ("*mqtt*", 1883),
    ("*mosquitto*", 1883),
    ("*amqp*", 5672),
    ("*vnc*", 5900),
    ("*/mpd*", 6600),
    ("*http*", 80),
    ("*nginx*", 80),
    ("*gunicorn*", 80),
)
_POSTGRESQL = re.compile(rb"/\.s\.PGSQL\.(\d{1,5})$")
_BY_BYTES = (
    (re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) [^\r\n]* HTTP/1\.[01]\r\n"), 80),
    (re.compile(rb"HTTP/1\.[01] \d\d\d "), 80),
    (re.compile(rb"PRI \* HTTP/2\.0\r\n"), 80),
    (re.compile(rb"\*\d{1,4}\r\n\$\d{1,9}\r\n"), 6379),
    (re.compile(rb"\x16\x03[\x00-\x04]"), 443),
    (re.compile(rb"SSH-2\.0-"), 22),
    (re.compile(rb"\0\0..(?:\0\x03\0\0|\x04\xd2\x16[\x2e\x2f])", re.DOTALL), 5432),
    (re.compile(rb"...\0\x0a[\d.]+[\w.~+-]*\0", re.DOTALL), 3306),
)
#: Names that no rule knows have ports of their own here, the same in each capture.
_FIRST_OTHER, _OTHERS = 20_000, 12_000


def server_port(name: bytes, first_bytes: bytes) -> int:
    """Return the port of a server by the first bytes of the conversation, or else by its socket's name."""
    found = _POSTGRESQL.search(name)
    if found and 0 < int(found[1]) < 1 << 16:
        return int(found[1])
    for expression, port in _BY_BYTES:
        if expression.match(first_bytes):
            return port
    text = name.replace(b"\0", b"@").decode("latin-1")
    for pattern, port in _BY_NAME:
        if text and fnmatchcase(text, pattern):
            return port
    return _FIRST_OTHER + zlib.crc32(name) % _OTHERS
