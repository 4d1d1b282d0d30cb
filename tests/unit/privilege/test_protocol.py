"""The protocol between the client and the privileged helper, and the files that permit it."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter import Filter, FilterError, parse
from unixsock_bpf.filter.ast import Cgroup, Term
from unixsock_bpf.filter.serialize import from_plain, to_plain
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import Settings
from unixsock_bpf.options import settings as chosen
from unixsock_bpf.privilege import launch, policy
from unixsock_bpf.privilege.client import RemoteCapture
from unixsock_bpf.privilege.protocol import (
    HEAD,
    MAX_REQUEST,
    Reports,
    Request,
    RequestError,
    decode_request,
    encode_report,
    encode_request,
    request_length,
)

FILTERS = [
    "",
    "/run/docker.sock",
    "path '/run/*.sock' and not comm 'X*' or src pid 7",
    "@/tmp/.X11-unix/X? or path '/a[0-9]b[!c]ü*' and uid 0",
    "type stream and less 5 and greater 2 and fds and creds and event close",
    "inode 18446744073709551615 and netns 4026531840",
    "not not ((dst uid 4294967294))",
]


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_is_the_same_data_on_the_other_side(text: str) -> None:
    here = parse(text)
    there = decode_request(encode_request(Request(Settings(filter=here)))[HEAD:]).settings.filter
    assert (there.head(False), there.lanes) == (here.head(False), here.lanes)


def test_a_cgroup_is_carried_as_it_was_found() -> None:
    plain = ["cgroup", "", {"cgroup": "/user.slice", "id": 77, "level": 1}]
    assert to_plain(from_plain(plain)) == plain
    there, here = Filter("", from_plain(plain)), Filter("", Term("cgroup", Cgroup("/user.slice", 77, 1)))
    assert (there.head(False), there.lanes) == (here.head(False), here.lanes)


def test_settings_arrive_as_they_were_chosen() -> None:
    values = {"snaplen": "99", "buffer-size": "3", "events": "", "path": "/run/x", "uid": "0"}
    settings = chosen(values, "comm curl")
    request = decode_request(encode_request(Request(settings, paused=True, changes=True))[HEAD:])
    there = request.settings
    assert (there.snaplen, there.buffer_mib, there.events, there.include_capture_processes) == (
        99,
        3,
        True,
        False,
    )
    assert there.filter.head(True) == settings.filter.head(True)
    assert (request.paused, request.changes) == (True, True)
    assert there.fifo is None


def body(**changes: object) -> bytes:
    return json.dumps(json.loads(encode_request(Request(Settings()))[HEAD:]) | changes).encode()


GLOB = {"globs": [["/run/", None, {"bytes": [[48, 57]], "wide": False}]]}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "0"},
        {"filter": None},
        {"filter": ["path", "", "/etc/passwd"]},
        {"filter": ["path", "", {"globs": []}]},
        {"filter": ["path", "", {"globs": [["x" * 109]]}]},
        {"filter": ["path", "", {"globs": [["\u0100"]]}]},
        {"filter": ["path", "", {"globs": [[{"bytes": [[0, 256]], "wide": False}]]}]},
        {"filter": ["path", "", {"globs": [[{"bytes": [[0, 9]], "wide": 1}]]}]},
        {"filter": ["path", "", GLOB | {"more": 1}]},
        {"filter": ["path", "src", GLOB]},
        {"filter": ["pid", "", "1 || 1"]},
        {"filter": ["pid", "", True]},
        {"filter": ["pid", "", 1.0]},
        {"filter": ["pid", "", 0]},
        {"filter": ["uid", "src", -1]},
        {"filter": ["type", "", 7]},
        {"filter": ["inode", "", 1 << 64]},
        {"filter": ["fds", "", 1]},
        {"filter": ["nothing", "", 1]},
        {"filter": ["cgroup", "", {"cgroup": "/", "id": "1ull", "level": 0}]},
        {"filter": ["cgroup", "", {"cgroup": "/", "id": 1, "level": "0"}]},
        {"filter": ["cgroup", "", {"cgroup": "/", "id": 1, "level": 16}]},  # the probe compares 16 levels
        {"filter": ["unit", "", {"names": [], "groups": []}]},
        {"filter": ["unit", "", {"names": ["x" * 256], "groups": []}]},
        {"filter": ["unit", "", {"names": ["x"], "groups": [{"cgroup": "/", "id": -1, "level": 0}]}]},
        {"filter": ["container", "", {"names": ["x"] * 65, "groups": []}]},
        {
            "filter": [
                "container",
                "",
                {"names": ["x"], "groups": [{"cgroup": "/", "id": 1, "level": 0}] * 65},
            ]
        },
        {"filter": ["container", "", {"cgroup": "/", "id": 1, "level": 0}]},
        {"filter": ["and", *[["or"]] * 10_000]},
        {"filter": ["or", *[["path", "", {"globs": [["x" * 108]] * 64}]] * 64]},
        {"filter": ["not"]},
        {"filter": ["xor", ["fds", "", None]]},
        {"filter": ["and", *[["pid", "", n] for n in range(1, 1000)]]},
        {"filter": ["and", *[["pid", "", n] for n in range(1, 100)]]},  # more than a word has bits
        {"snaplen": -1},
        {"snaplen": "0"},
        {"buffer_mib": 0},
        {"buffer_mib": 1025},
        {"buffer_mib": True},
        {"events": 1},
        {"changes": None},
        {"pids": [0]},
        {"pids": ["1"]},
        {"pids": list(range(1, 3000))},
        {"cflags": "-include /etc/shadow"},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_what_no_honest_caller_sends_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        decode_request(body(**changes))


def test_nesting_without_end_is_refused() -> None:
    deep: Any = ["fds", "", None]
    for _ in range(100):
        deep = ["not", deep]
    with pytest.raises(RequestError):
        decode_request(body(filter=deep))
    with pytest.raises(RequestError):
        decode_request(b"[" * 500_000)


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["and", "not", "pid", "globs"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["globs", "bytes", "id"]), inner)
    ),
)


@given(_PLAIN)
def test_any_json_is_a_filter_or_refused(plain: object) -> None:
    try:
        node = from_plain(plain)
    except FilterError:
        return
    assert from_plain(to_plain(node)) == node


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with pytest.raises(RequestError):
        decode_request(data)
    if len(data) < HEAD or not 2 <= int.from_bytes(data[:HEAD], "big") <= MAX_REQUEST:
        with pytest.raises(RequestError):
            request_length(data[:HEAD])


@given(st.lists(st.integers(min_value=1, max_value=30)))
def test_reports_arrive_however_they_are_cut(cuts: list[int]) -> None:
    said = (
        b"sudo: a password\nis required\n"
        + encode_report("hello", "1")
        + encode_report("lost", 7)
        + b"[1]\nlast"
    )
    reports, found = Reports(), []
    for cut in [*cuts, len(said)]:
        found += reports.feed(said[:cut])
        said = said[cut:]
    assert found == [("hello", "1"), ("lost", 7)]
    assert reports.other_lines == ["sudo: a password", "is required", "[1]"]
    assert reports.last_line == "last"


def test_blocks_are_whole_however_the_pipe_cuts_them() -> None:
    capture = RemoteCapture(Settings())
    packets = [pcapng.packet(n, bytes(n)) for n in range(20)]
    stream = b"".join(packets) + pcapng.statistics(1, 2, 3)
    found: list[bytes | memoryview] = []
    for at in range(0, len(stream), 7):
        found += capture._split(stream[at : at + 7])
    assert found == packets


@pytest.mark.parametrize("group", ["", "root ALL", "a\nb", "%wheel", '"', "Wireshark!", "-x", "a" * 40])
def test_a_group_that_would_mean_more_is_refused(group: str) -> None:
    with pytest.raises(policy.PolicyError):
        policy.check_group(group)


def test_sudo_reads_what_is_installed(tmp_path: Path) -> None:
    file = tmp_path / "sudoers"
    file.write_text(policy.sudoers("wireshark"))
    visudo = shutil.which("visudo", path="/usr/sbin:/sbin:/usr/bin")
    assert visudo, "tests/setup installs sudo"
    done = subprocess.run([visudo, "-c", "-f", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in file.read_text().splitlines() if line.startswith("%")] == [
        f'%wireshark ALL=(root:root) NOPASSWD: NOSETENV: {launch.HELPER} ""'
    ]


def test_polkit_asks_an_administrator_where_no_rule_says_yes() -> None:
    action = ElementTree.fromstring(policy.action()).find("action")
    assert action is not None
    assert action.get("id") == policy.ACTION_ID
    assert {part.tag: part.text for part in action.findall("defaults/*")} == {
        "allow_any": "no",
        "allow_inactive": "no",
        "allow_active": "auth_admin",
    }
    assert action.findtext("annotate") == str(launch.HELPER)
    assert f'"{policy.ACTION_ID}"' in policy.rule("wireshark")


def test_the_caller_gives_nothing_but_the_path() -> None:
    for way in ("sudo", "pkexec"):
        (command,) = launch.commands(way).values()
        assert command[-1] == str(launch.HELPER)
    assert launch.commands("none") == {}


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sudo, without pkexec, that refuses; the file in which it notes that, as it mails it elsewhere."""
    incidents = tmp_path / "incidents"
    program = tmp_path / "sudo"
    program.write_text(f"#!/bin/sh\necho incident >> {incidents}\nexit 1\n")
    program.chmod(0o755)
    group = tmp_path / "group"
    group.write_text("capturers\n")
    helper = tmp_path / "helper"
    helper.touch()
    for name, value in (("_PATH", str(tmp_path)), ("GROUP", group), ("HELPER", helper)):
        monkeypatch.setattr(launch, name, value)
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 4711, [])))
    return incidents


@pytest.mark.parametrize(
    ("groups", "privilege", "reported"),
    [([60], "auto", False), ([60, 4711], "auto", True), ([60], "sudo", True)],
)
def test_sudo_reports_no_user_who_is_not_in_the_group(
    groups: list[int], privilege: str, reported: bool, ways: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    with pytest.raises(ProbeError) as refused:
        RemoteCapture(Settings(privilege=privilege)).try_to_start()
    assert ("usermod -aG capturers" in str(refused.value)) == (4711 not in groups)
    assert ways.exists() == reported


def test_group_is_for_everybody_only(capsys: pytest.CaptureFixture[str]) -> None:
    from unixsock_bpf.cli.main import main

    assert main(["install", "--group", "wireshark"]) == 2
    assert "--system" in capsys.readouterr().err
