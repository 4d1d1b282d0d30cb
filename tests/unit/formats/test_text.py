"""Records as text: harmless, exact, and complete."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.formats import hexdump, hexstring, json_lines, pcapng, string, text
from unixsock_bpf.formats.base import Options
from unixsock_bpf.record import Event, Fd, FdKind, Flag, Record, Role, SocketType, encode

RECORD = Record(
    src_pid=1234,
    dst_pid=77,
    type=SocketType.STREAM,
    role=Role.DST_IS_SERVER,
    flags=Flag.SRC_CREDS,
    src_uid=1000,
    src_gid=100,
    src_comm=b"curl",
    dst_comm=b"dockerd",
    dst_name=b"/run/docker.sock",
    len=5,
    payload=b"a\x1b[2J",
)

A_CONTAINER = b"0123456789ab" + b"c" * 52


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        (b"/system.slice/nginx.service", "nginx.service", None),
        (b"/docker/%b/init.scope" % A_CONTAINER, "init.scope", "0123456789ab"),
        (b"/lxc.payload.web/system.slice/cron.service", "cron.service", "web"),
        (b"/machine.slice/machine-web\\x2dtwo.scope", "machine-web\\x2dtwo.scope", "web-two"),
        (b"/user.slice/user-1000.slice/user@1000.service/app.slice", "user@1000.service", None),
        (b"/kubepods/besteffort/pod1/%b" % A_CONTAINER, None, "0123456789ab"),
        (b"/" + b"a" * 63, None, None),
        (b"/" + b"a" * 65, None, None),
        (b"/service/.service", None, None),
        (b"/", None, None),
        (b"", None, None),
    ],
)
def test_unit_and_container_of_the_sender(cgroup: bytes, unit: str | None, container: str | None) -> None:
    src = json_lines.as_dict(0, Record(cgroup=cgroup))["src"]
    assert (src.get("unit"), src.get("container")) == (unit, container)


@pytest.mark.parametrize("engine", [b"docker", b"libpod", b"cri-containerd", b"crio"])
def test_containers_of_systemd_hosts(engine: bytes) -> None:
    scope = b"%b-%b.scope" % (engine, A_CONTAINER)
    src = json_lines.as_dict(0, Record(cgroup=b"/machine.slice/" + scope))["src"]
    assert src == {"unit": scope.decode(), "container": "0123456789ab"}


def test_heading_names_both_ends_path_type_and_length() -> None:
    said = text.heading(1_700_000_000_123_456_789, RECORD)
    assert said.endswith(".123456789 curl[1234] → dockerd[77] /run/docker.sock stream 5 bytes")


def test_heading_tells_descriptors_truncation_and_losses() -> None:
    passed = Record(
        len=9, payload=b"abc", flags=Flag.TRUNCATED, fds_count=1, fds=[Fd(FdKind.FILE, 5, b"/etc/x")]
    )
    said = text.heading(0, passed)
    assert "3 captured" in said
    assert "1 fd: file /etc/x" in said
    lost = text.heading(0, Record(event=Event.LOST, lost=(3, 400, 1)))
    assert "3 messages, 400 bytes lost (ring full)" in lost
    assert "ECONNREFUSED" in text.heading(0, Record(event=Event.SEND_ERROR, errno=111))
    refused = Record(event=Event.REFUSED, errno=11, backlog=(2, 1), dst_name=b"/x")
    assert text.heading(0, refused).endswith("/x ? refused  EAGAIN, the queue is full  2 waiting, limit 1")
    assert json_lines.as_dict(0, refused) == {
        **{"time_ns": 0, "event": "refused", "path": "/x", "src": {}, "dst": {"name": "/x"}},
        **{"errno": 11, "error": "EAGAIN", "backlog": {"waiting": 2, "limit": 1}},
    }


PAYLOAD_TEXTS = [string.string, hexdump.hexdump, hexstring.hexstring]


@given(st.binary(), st.binary(), st.binary(max_size=100), st.sampled_from(PAYLOAD_TEXTS))
def test_nothing_reaches_the_terminal_as_a_control(
    comm: bytes, name: bytes, payload: bytes, form: Callable[[bytes], str]
) -> None:
    one = Record(src_comm=comm, dst_name=name, payload=payload, fds_count=1, fds=[Fd(FdKind.FILE, 0, comm)])
    said = text.record_text(0, one, form)
    said.encode()  # valid UTF-8
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", said)
    assert "\n" not in text.heading(0, one)


def test_string_keeps_text_readable() -> None:
    assert string.string("grüße\n\tx".encode()) == "grüße\n\tx\n"
    assert string.string(b"a\r\n\xff") == "a\\r\n\\xff\n"
    assert string.string(b"") == ""


@given(st.binary(max_size=200))
def test_hexstring_has_every_byte(payload: bytes) -> None:
    said = hexstring.hexstring(payload)
    assert bytes.fromhex(said.strip().replace("\\x", "")) == payload


@given(st.binary(max_size=200))
def test_hexdump_has_every_byte_at_its_offset(payload: bytes) -> None:
    rows = hexdump.hexdump(payload).splitlines()
    assert b"".join(bytes.fromhex(row[10:58]) for row in rows) == payload
    assert [int(row[:8], 16) for row in rows] == list(range(0, len(payload), 16))


@given(st.binary(max_size=200))
def test_json_has_the_payload_exactly(payload: bytes) -> None:
    read = json.loads(json_lines.json_line(5, Record(payload=payload, len=len(payload)), "h"))
    assert base64.b64decode(read["payload"]) == payload
    assert read.get("text", "").encode() in (payload, b"")
    assert read["time_ns"] == 5


def test_json_leaves_out_what_is_not_known() -> None:
    read = json.loads(json_lines.json_line(5, RECORD, "h"))
    assert read["src"] == {"pid": 1234, "comm": "curl", "uid": 1000, "gid": 100}
    assert read["dst"] == {"pid": 77, "comm": "dockerd", "name": "/run/docker.sock"}
    assert read["server"] == "dst"
    assert "creds" not in read
    assert "netns" not in read


def test_json_names_each_record_s_host() -> None:
    blocks = [pcapng.packet(1, encode(RECORD), number) for number in (1, 0)]
    hosts = (pcapng.Host("aa"), pcapng.Host("bb"))
    lines = json_lines.FORMAT.writer(Options(hosts=hosts)).pieces(blocks)
    assert [json.loads(bytes(line))["host"] for line in lines] == ["bb", "aa"]
    (line,) = json_lines.FORMAT.writer(Options()).pieces(blocks[1:])
    assert json.loads(bytes(line))["host"] == os.uname().nodename


def test_json_shows_abstract_names() -> None:
    read = json.loads(json_lines.json_line(5, Record(dst_name=b"\0a\0b"), "h"))
    assert read["path"] == "@a@b"
    assert read["abstract"] is True


def test_a_direction_keeps_its_colour() -> None:
    there, back = Record(src_sock=1, dst_sock=2), Record(src_sock=2, dst_sock=1)
    assert text.colour(there, "x") != text.colour(back, "x")
    assert text.colour(RECORD, "x") != text.colour(Record(role=Role.SRC_IS_SERVER), "x")


def test_json_has_what_is_known_of_processes() -> None:
    read = json_lines.as_dict(
        5, Record(src_exe=b"/bin/a", src_cmdline=b"a\0-b\0c d", src_user=b"ada", src_parent=1, dst_parent=0)
    )
    assert read["src"] == {"exe": "/bin/a", "cmdline": ["a", "-b", "c d"], "user": "ada", "parent": 1}
    assert read["dst"] == {"parent": 0}
