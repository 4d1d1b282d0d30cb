# ruff: noqa: E501 (tables of values)
"""What real programs said, captured by the real probe (tests/wireshark/real), and protocols told by content alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from captures import conversation, write
from conftest import Tshark
from dialogues import DIALOGUES

CAPTURES = Path(__file__).parent / "captures"

#: For each capture, the values of some fields, in order.  Those called -odd, and dbus, syslog and others under
#: /tmp/odd, were listening at paths that tell nothing.
EXPECTED = {
    "redis": {
        "resp.bulk_string.value": "736574|6772656574696e67|68656c6c6f20776f726c64",
        "resp.string": "OK",
    },
    "memcached": {
        "memcache.command": "set",
        "memcache.response": "STORED",
    },
    "postgresql": {
        "pgsql.query": "create table t (id int primary key, name text)|insert into t values (1, 'one'), (2, 'two')|select * from t order by id|select nonsense|COPY  t TO STDOUT ",
    },
    "psql-odd": {
        "pgsql.query": "select 42 as answer",
    },
    "mariadb": {
        "mysql.query": "create database d|SELECT DATABASE()|create table t (i int, s varchar(9))|insert into t values (1,'one'),(2,'two')|select * from t|select nonsense from t",
        "mysql.user": "root",
    },
    "mariadb-odd": {
        "mysql.query": "select 42 as answer",
        "mysql.user": "root",
    },
    "dbus": {
        "dbus.member": "Hello|NameAcquired|ListNames|Take",
        "unixsock.dbus.auth.command": "AUTH|OK|NEGOTIATE_UNIX_FD|AGREE_UNIX_FD|BEGIN",
        "unixsock.fds.count": "1",
    },
    "gdbus": {
        "dbus.member": "Hello|NameAcquired|Sig",
        "unixsock.dbus.auth.command": "AUTH|REJECTED|AUTH|DATA|DATA|OK|NEGOTIATE_UNIX_FD|AGREE_UNIX_FD|BEGIN",
    },
    "syslog": {
        "syslog.level": "6",
        "syslog.facility": "3",
    },
    "journald": {
        "journald.message": "native hello|two\\x0alines",
        "journald.name": "MESSAGE|PRIORITY|UNIT|SYSLOG_IDENTIFIER|MESSAGE|CODE_FUNC|FIELD2|SYSLOG_IDENTIFIER",
    },
    "sd_notify": {
        "sd_notify.name": "READY|STATUS",
        "sd_notify.value": "1|Serving 3 clients",
    },
    "chrony": {
        "chrony.command": "33|33|14|14|34|34|44|44|35|35",
        "chrony.status": "0|0|0|0|13",
    },
    "chrony-odd": {
        "chrony.command": "33|33",
        "chrony.tracking.stratum": "5",
    },
    "ptp": {
        "ptp.v2.mm.managementId": "8192|8193|8196|49152|8192|8193|8196|49152",
    },
    "wpa_supplicant": {
        "wpa_ctrl.command": "ATTACH|DETACH",
        "wpa_ctrl.reply": "OK|OK",
        "wpa_ctrl.event": "Associated with 01:80:c2:00:00:03|CTRL-EVENT-SUBNET-STATUS-UPDATE status=0",
    },
    "ssh-agent": {
        "ssh_agent.type": "17|6|11|12|11|12|13|14",
        "ssh_agent.comment": "me@here|me@here",
    },
    "ssh-agent-odd": {
        "ssh_agent.type": "17|6|11|12",
    },
    "gpg-agent": {
        "assuan.command": "OK|RESET|OK|OPTION|OK|getinfo|D|OK|keyinfo|S|OK",
    },
    "uwsgi": {
        "uwsgi.name": "QUERY_STRING|REQUEST_METHOD|CONTENT_TYPE|CONTENT_LENGTH|REQUEST_URI|PATH_INFO|DOCUMENT_ROOT|SERVER_PROTOCOL|REQUEST_SCHEME|REMOTE_ADDR|REMOTE_PORT|SERVER_PORT|SERVER_NAME|HTTP_HOST|HTTP_USER_AGENT|HTTP_ACCEPT",
        "http.response.code": "200",
    },
    "http2": {
        "http2.type": "4|8|4|8|4|1|4|1|0",
        "http2.headers.path": "/two",
    },
    "milter": {
        "milter.command": "OPTNEG|OPTNEG|CONNECT|CONTINUE",
    },
    "mqtt": {
        "mqtt.msgtype": "1|2|8|9|3|4|14",
        "mqtt.topic": "a/#|a/b",
    },
    "qmp": {
        "json.key": "execute|execute|id|execute|execute|micro|minor|major|qemu|package|version|capabilities|QMP|return|status|singlestep|running|return|id|return|class|desc|error",
    },
    "tls": {
        "tls.handshake.type": "1|2",
    },
    "mpd": {
        "mpd.command": "OK|stats|uptime:|playtime:|artists:|albums:|songs:|db_playtime:|db_update:|OK",
    },
    "ldap": {
        "ldap.protocolOp": "0|1|3|4|5|2",
    },
    "pulseaudio": {
        "pulse.command": "8|2|9|2|20|2",
    },
    "http": {
        "http.request.method": "GET",
        "http.response.code": "200",
    },
    "x11": {
        "x11.opcode": "16|15",
    },
    "ssh": {
        "ssh.protocol": "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10|SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10",
        "ssh.message_code": "20|20|30|31|21|21",
    },
}

#: Dialogues whose first message tells the protocol, whatever the path is.
BY_CONTENT = (
    *(
        "http",
        "dbus",
        "pgsql",
        "resp",
        "fcgi",
        "varlink",
        "qmp",
        "ssh-agent",
        "assuan",
        "wayland",
        "milter",
        "mpd",
    ),
    *(
        "uwsgi",
        "ttrpc",
        "http2",
        "mysql",
        "memcached",
        "x11",
        "ldap",
        "mqtt",
        "amqp",
        "9p",
        "tls",
        "ssh",
        "ptp",
    ),
    *("syslog", "chrony", "sd_notify", "journald", "wpa_ctrl", "pulse", "pipewire"),
)


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("name", EXPECTED)
def test_real_program(tshark: Tshark, name: str, options: tuple[str, ...]) -> None:
    fields = EXPECTED[name]
    rows = tshark.fields(CAPTURES / f"{name}.pcapng", *fields, options=options)
    for column, (field, values) in enumerate(fields.items()):
        found = "|".join(row[column] for row in rows if row[column])
        assert found.replace("\\\\", "\\") == values, field


def test_every_capture_has_an_expectation() -> None:
    assert {path.stem for path in CAPTURES.glob("*.pcapng")} == set(EXPECTED)


@pytest.mark.parametrize("name", BY_CONTENT)
def test_protocol_by_its_content(tshark: Tshark, tmp_path: Path, name: str) -> None:
    dialogue = DIALOGUES[name]
    records = conversation(b"/tmp/odd/name", dialogue.turns, dialogue.kind)
    rows = tshark.fields(write(tmp_path / "c.pcapng", records), *dialogue.expected)
    for column, (field, values) in enumerate(dialogue.expected.items()):
        found = "|".join(row[column] for row in rows if row[column])
        assert found.replace("\\\\", "\\") == "|".join(values), field


def test_preferences(tshark: Tshark, tmp_path: Path) -> None:
    said = DIALOGUES["http"]
    capture = write(tmp_path / "c.pcapng", conversation(b"/srv/x", said.turns))
    names = ("tcp.len", "http.response.code", "unixsock.len")
    plain = tshark.fields(capture, *names)
    assert [bool(row[0]) for row in plain] == [True] * 6
    apart = tshark.fields(capture, *names, options=("-o", "unixsock.reassemble:FALSE"))
    assert [row[0] for row in apart] == [""] * 6
    assert [row[1] for row in apart] == [row[1] for row in plain]
    by_path = tshark.fields(capture, *names, options=("-o", "unixsock.paths:/srv/y=http;/srv/[w-z]=data"))
    assert [row[1] for row in by_path] == [""] * 6
    columns = tshark.run(capture, "-o", "unixsock.columns:FALSE", "-N", "n").splitlines()
    assert "client[10]" in columns[0]  # the address's name
    assert "client[10]" not in tshark.run(capture, "-n", "-o", "unixsock.columns:FALSE")
    assert "client[10]" in tshark.run(capture, "-n")
