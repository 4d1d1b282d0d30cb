# ruff: noqa: E501 (tables of values)
"""What real programs said, captured by the real probe (tests/dissector/real), and protocols told by content alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from captures import conversation, write
from conftest import Tshark
from protocol_samples import SAMPLES

from unixsock_bpf.formats.reader import read
from unixsock_bpf.record import Event, Flag, SocketType

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
    # nbdinfo and qemu-io with nbdkit, then with qemu-nbd; ovsdb-client at a path that tells nothing; ssh's session that
    # exits with 3; emacsclient (the answers are its manual's); systemd-cat.  By real/relay.py, too.
    "nbd": {
        "unixsock.nbd.command": "0|2|1|0|3|4|3|2",
        "unixsock.nbd.option_reply": "0x00000001|0x00000003|0x00000003|0x00000001|0x00000004|0x00000001|0x00000003|0x00000003|0x00000001|0x00000001|0x00000004|0x00000001|0x00000003|0x00000001",
    },
    "qemu-nbd": {
        "unixsock.nbd.command": "0|1|3|2",
        "unixsock.nbd.option_reply": "0x00000001|0x00000004|0x00000001|0x00000003|0x00000003|0x00000001|0x00000001|0x80000006|0x80000006|0x00000001",
    },
    "ovsdb": {
        "unixsock.json.method": "list_dbs|transact|list_dbs|get_schema|transact",
        "unixsock.json.id": "0|0|0|0|0|0|1|1|2|2",
    },
    "ssh-mux": {
        "ssh_mux.command": "echo hi; exit 3",
        "ssh_mux.exit": "3",
        "ssh_mux.reason": "Port forwarding failed",
    },
    "emacs": {
        "emacs.value": "/tmp/|(+ 1 2)|99|3|/tmp/|(car 1)|99|Wrong type\\x0a",
    },
    "journal-stream": {
        "journal_stream.identifier": "me",
        "journal_stream.line": "hello|bad",
        "journal_stream.level": "3",
    },
    # Python 3.11's managers and tmux 3.3a, recorded by real/relay.py on its own.
    "multiprocessing": {
        "multiprocessing.kind": "|".join(
            ["#CHALLENGE#|message|#WELCOME#|#CHALLENGE#|message|#WELCOME#|pickle|pickle"] * 5
        )
        + "|pickle" * 4
        + "|#CHALLENGE#|message|#WELCOME#|#CHALLENGE#|message|#WELCOME#|pickle|pickle",
    },
    "tmux": {
        "tmux.command": "list-sessions|kill-session -t nosuch",
    },
    # From here on: recorded by real/relay.py.  zmtp: both ends in one process, at /tmp/odd/z.
    "docker": {
        "http.request.method": "HEAD|GET|HEAD|GET",
        "http.response.code": "200|200|200|200",
    },
    "podman": {
        "docker_stream.stdin": "line\\x0a|word\\x0a",
        "docker_stream.stdout": "out line\\x0amore\\x0a|exec word\\x0a",
        "docker_stream.stderr": "err line\\x0a|oops\\x0a",
    },
    "containerd": {
        "grpc.message_length": "0|34|0|38|7|7|0|7|5|7|7|9|0|0",
    },
    "i3": {
        "i3_ipc.command": "nop|nonsense here|workspace 3",
    },
    "ipp": {
        "ipp.operation_id": "0x000b|0x000b|0x4003|0x4001|0x4002|0x4002",
        "ipp.status_code": "0x0406|0x0406|0x0000|0x0406|0x0000|0x0000",
    },
    "fastcgi": {
        "fcgi.type": "1|4|4|5|6|3",
        "fcgi.end_request.protocol_status": "0",
    },
    "lmtp": {
        "smtp.req.command": "lhlo|mail|rcpt|data|quit",
        "smtp.response.code": "220|250|250|250|354|250|221",
    },
    "wayland": {
        "wayland.interface": "wl_compositor|wl_subcompositor|wp_viewporter|zxdg_output_manager_v1|wp_presentation|zwp_relative_pointer_manager_v1|zwp_pointer_constraints_v1|zwp_input_timestamps_manager_v1|wl_data_device_manager|wl_shm|zwp_linux_explicit_synchronization_v1|wl_output|zwp_input_panel_v1|zwp_text_input_manager_v1|xdg_wm_base|weston_desktop_shell|weston_screenshooter|zxdg_output_manager_v1|wp_presentation|wl_shm|wl_output",
    },
    "9p": {
        "9p.msgtype": "100|101|102|7|104|105|110|111|12|13|24|25|40|41|40|41|120|121|120|121",
    },
    "zmtp": {
        "zmtp.mechanism": "NULL|NULL",
        "zmtp.metadata.value": "REP|REQ",
        "zmtp.data": "7175657374696f6e|616e73776572",
    },
    "ssh": {
        "ssh.protocol": "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10|SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10",
        "ssh.message_code": "20|20|30|31|21|21",
    },
}

#: Samples whose first message tells the protocol, whatever the path is.
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
    *("ssh-mux", "nbd", "multiprocessing", "tmux", "i3", "emacs", "udev-control", "sane"),
    *("ovsdb", "qmp-pretty", "language-server", "json-after-length"),
    *("zmtp", "syslog", "chrony", "sd_notify", "journald", "wpa_ctrl", "pulse", "pipewire"),
)


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("name", EXPECTED)
def test_real_program(tshark: Tshark, name: str, options: tuple[str, ...]) -> None:
    fields = EXPECTED[name]
    rows = tshark.fields(CAPTURES / f"{name}.pcapng", *fields, options=options)
    for column, (field, values) in enumerate(fields.items()):
        found = "|".join(row[column] for row in rows if row[column])
        assert found.replace("\\\\", "\\") == values, field


#: Streams of real programs that are read as well in pieces of seven bytes.
CUT = (
    "ssh-mux", "nbd", "qemu-nbd", "ovsdb", "podman", "multiprocessing", "tmux", "i3", "emacs", "journal-stream",
    "postgresql", "mariadb", "http2", "containerd", "dbus",
)  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_real_program_cut(tshark: Tshark, tmp_path: Path, name: str) -> None:
    fields = EXPECTED[name]
    pieces = []
    for one in (saved.record for saved in read(str(CAPTURES / f"{name}.pcapng"))):
        first = 64 if one.seq == 0 else 0  # what tells a protocol at a path that does not
        cuts = [0, *range(first or 7, len(one.payload), 7), len(one.payload)]
        if one.event != Event.DATA or one.type != SocketType.STREAM or len(one.payload) < one.len:
            pieces.append(one)
            continue
        for at, end in zip(cuts, cuts[1:]):
            part = one.payload[at:end]
            moved = replace(one, seq=one.seq + at, len=len(part), payload=part)
            pieces.append(replace(moved, fds_count=0) if at else moved)
    rows = tshark.fields(write(tmp_path / "c.pcapng", pieces), *fields)
    for column, (field, values) in enumerate(fields.items()):
        found = "|".join(row[column] for row in rows if row[column])
        assert found.replace("\\\\", "\\") == values, field


#: Captures of which the first records are left out, how many, and what is still read.
JOINED = {
    "postgresql": (8, "pgsql.query", "select nonsense|COPY  t TO STDOUT "),
    "mariadb": (
        8,
        "mysql.query",
        "create table t (i int, s varchar(9))|insert into t values (1,'one'),(2,'two')|select * from t|select nonsense from t",
    ),
    "http2": (4, "http2.type", "1|0"),
    "wayland": (3, "wayland.opcode", ""),
    "dbus": (6, "dbus.member", "Hello|NameAcquired|ListNames|Take"),
}


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("name", JOINED)
def test_joined_in_the_middle(tshark: Tshark, tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    """Without a path, and without the beginning."""
    drop, field, expected = JOINED[name]
    records = [one.record for one in read(str(CAPTURES / f"{name}.pcapng"))]
    left = [
        replace(one, flags=one.flags & ~Flag.FROM_START, src_name=b"", dst_name=b"")
        for one in records
        if one.payload
    ][drop:]
    rows = tshark.fields(write(tmp_path / "c.pcapng", left), field, options=options)
    found = "|".join(row[0] for row in rows if row[0])
    assert found
    assert not expected or found == expected


@pytest.mark.parametrize("options", [(), ("-2",)], ids=["one-pass", "two-passes"])
def test_what_hpack_cannot_resolve_is_marked(
    tshark: Tshark, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Entries 62 and 63 of the table were sent before; 62 is then one that the first block has added."""
    blocks = (b"\x83\x86\xbe\x40\1a\1b\xbf", b"\x83\xbe")
    turns = [
        (True, len(one).to_bytes(3, "big") + b"\1\4\0\0\0" + bytes([n]) + one)
        for n, one in zip((5, 7), blocks)
    ]
    records = [
        replace(one, flags=one.flags & ~Flag.FROM_START)
        for one in conversation(b"/tmp/odd/grpc", turns, close=False)
    ]
    rows = tshark.fields(
        write(tmp_path / "c.pcapng", records), "http2.type", "_ws.expert.message", options=options
    )
    assert [row[0] for row in rows] == ["1", "1"]
    assert "2 header fields refer to what was sent before the capture" in rows[0][1]
    assert "sent before the capture" not in rows[1][1]


def test_every_capture_has_an_expectation() -> None:
    assert {path.stem for path in CAPTURES.glob("*.pcapng")} == set(EXPECTED)


@pytest.mark.parametrize("name", BY_CONTENT)
def test_protocol_by_its_content(tshark: Tshark, tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    records = conversation(b"/tmp/odd/name", sample.turns, sample.kind)
    rows = tshark.fields(write(tmp_path / "c.pcapng", records), *sample.expected)
    for column, (field, values) in enumerate(sample.expected.items()):
        found = "|".join(row[column] for row in rows if row[column])
        assert found.replace("\\\\", "\\") == "|".join(values), field


def test_heuristics_are_asked_for(tshark: Tshark, tmp_path: Path) -> None:
    """Wireshark knows BitTorrent by a heuristic only; our tables don't know it."""
    hello = b"\x13BitTorrent protocol" + bytes(8) + b"h" * 20 + b"p" * 20
    for path in (b"/srv/x", b""):
        capture = write(tmp_path / "c.pcapng", conversation(path, [(True, hello), (False, hello)]))
        names = ("bittorrent.protocol.name", "_ws.col.Protocol" if not tshark.root else "_ws.col.protocol")
        without = [row[:2] for row in tshark.fields(capture, *names)]
        assert without == [["", "UNIX"]] * 4
        rows = tshark.fields(capture, *names, options=("-o", "unixsock.heuristics:TRUE"))
        assert [row[0] for row in rows] == ["BitTorrent protocol"] * 2 + ["", ""]
        assert [row[1] for row in rows] == ["BitTorrent"] * 2 + ["UNIX"] * 2


def test_preferences(tshark: Tshark, tmp_path: Path) -> None:
    said = SAMPLES["http"]
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
