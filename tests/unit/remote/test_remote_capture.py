"""Captures on other hosts, with a stand-in for the command that leads there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import soon

from unixsock_bpf import record
from unixsock_bpf.cli.main import main
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.filter import parse
from unixsock_bpf.formats import pcapng
from unixsock_bpf.linux.pid_namespace import identity
from unixsock_bpf.options import Settings
from unixsock_bpf.remote.capture import HostsCapture
from unixsock_bpf.remote.way import Way, WayError, by_command, by_ssh, explain, start

ROOT = Path(__file__).parents[3]
FAKE = f"{sys.executable} {ROOT / 'tests/unit/fakes/fake_remote.py'}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def fake(name: str = "fake", **variables: object) -> Way:
    words = " ".join(f"FAKE_{key}='{value}'" for key, value in variables.items())
    return Way(by_command(f"env FAKE_NAME={name} {words} {FAKE}").prefix, name)


def payloads(blocks: Iterator[list[bytes]]) -> Iterator[bytes]:
    for batch in blocks:
        for block in batch:
            if pcapng.is_packet(block):
                yield record.decode(pcapng.packet_of(block).data).payload


def test_changes_and_pause_reach_the_host_and_nothing_is_lost() -> None:
    answers: list[str] = []
    with HostsCapture(Settings(), [fake(RATE=20, LOST=3)]) as capture:
        assert capture.attached == "fentry"
        seen = []
        for payload in payloads(capture.blocks()):
            seen.append(payload)
            if payload == b"fake 2":
                capture.replace(Settings(filter=parse("path /a")), answers.append)
            elif payload == b"filter a":
                capture.pause(True)
            elif payload == b"paused":
                capture.pause(False)
            elif payload == b"goes on":
                capture.stop()
        assert answers == [""]
        assert seen[-1] == b"last"
        numbers = [int(payload.split()[1]) for payload in seen if payload.startswith(b"fake")]
        others = [at for at, payload in enumerate(seen) if not payload.startswith(b"fake")]
        assert sorted(numbers + others) == list(range(len(seen)))  # each record has the next number
        assert (capture.statistics.messages, capture.statistics.lost) == (len(seen), 3)
        ahead, uncertain = capture.hosts[0].clock or (1, 0)
        assert abs(ahead) <= uncertain


@pytest.mark.parametrize("same", [True, False])
def test_a_host_with_our_pids_leaves_out_what_shows_the_capture_here(same: bool) -> None:
    """A container of this machine, or localhost; elsewhere the numbers are of other processes."""
    told: list[str] = []
    with HostsCapture(Settings(), [fake(PIDS=identity() if same else "other")], told.append) as capture:
        capture.stop()
        list(capture.blocks())
    assert [f"[{os.getpid()}]" in sentence for sentence in told] == [True] * same


def test_a_refused_change() -> None:
    answers: list[str] = []

    def answered(problem: str) -> None:
        answers.append(problem)
        capture.stop()

    with HostsCapture(Settings(), [fake(REFUSE="Not here.")]) as capture:
        capture.replace(Settings(filter=parse("path /a")), answered)
        list(payloads(capture.blocks()))
    assert answers == ["Not here."]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SAY": "Host key verification failed."}, "The host key of fake is unknown: run 'ssh"),
        ({"SAY": "sudo: a password is required", "STATUS": 1}, "Becoming root on fake asks for a password"),
        ({"SAY": "sh: 1: unixsock: not found", "STATUS": 127}, "unixsock is not installed on fake"),
        ({"SAY": "something odd happened", "STATUS": 3}, "On fake: something odd happened."),
        ({"VERSION": "99.0"}, "unixsock on fake is of version 99.0, and this is"),
    ],
)
def test_why_there_is_no_capture(variables: dict[str, object], sentence: str) -> None:
    with pytest.raises(ProbeError) as raised, HostsCapture(Settings(), [fake(**variables)]):
        pass
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_connection_that_breaks_delivers_what_was_received() -> None:
    seen: list[bytes] = []
    capture = HostsCapture(Settings(), [fake(RATE=100, COUNT=5)])
    with pytest.raises(ProbeError, match="fake"), capture:
        seen.extend(payloads(capture.blocks()))
    assert seen == [b"fake %d" % number for number in range(len(seen))]
    assert len(seen) >= 4


def test_one_of_several_hosts_goes_away_and_another_never_came(tmp_path: Path) -> None:
    told: list[str] = []
    ways = [fake("aa", RATE=20), fake("bb", RATE=20, COUNT=4), fake("cc", SAY="Connection refused")]
    seen: list[bytes] = []
    with HostsCapture(Settings(), ways, told.append) as capture:
        for payload in payloads(capture.blocks()):
            seen.append(payload)
            if len(told) == 2 and payload.startswith(b"aa"):
                capture.stop()
    assert told[0] == "cc refuses connections: sshd does not run there, or on another port."
    assert told[1].startswith("The command that runs unixsock on bb was ended by signal 9")
    assert {payload[:2] for payload in seen} == {b"aa", b"bb", b"la"}


def test_dump_of_two_hosts_keeps_them_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pcapng"
    words = [word for name in ("aa", "bb") for word in ("--via", f"env FAKE_NAME={name} FAKE_RATE=20 {FAKE}")]
    assert main(["dump", *words, "-w", str(path), "-c", "20"]) == 0
    interfaces: list[pcapng.Interface] = []
    spans = list(pcapng.spans(path.read_bytes(), interfaces))
    assert [one.description.split()[4] for one in interfaces] == ["FAKE_NAME=aa", "FAKE_NAME=bb"]
    assert len(spans) == 20
    data = path.read_bytes()
    for span in spans:
        assert record.decode(data[span.begin : span.end]).payload[:2] == (b"aa", b"bb")[span.interface]
    assert [one.time_ns for one in spans] == sorted(one.time_ns for one in spans)
    assert "on env FAKE_NAME=aa" in capfd.readouterr().err


def test_a_command_that_only_plays_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved, script, copy = tmp_path / "saved", tmp_path / "play", tmp_path / "copy"
    packets = [pcapng.packet(at, record.encode(record.Record(message=at))) for at in range(100)]
    saved.write_bytes(pcapng.file_header() + b"".join(packets) + pcapng.statistics(1, 100, 0))
    script.write_text(f"cat {saved}\n")
    assert main(["dump", "--via", f"sh {script}", "-w", str(copy)]) == 0
    assert [one.time_ns for one in pcapng.packets(copy.read_bytes())] == list(range(100))
    blocks = pcapng.Splitter().feed(copy.read_bytes())
    assert [pcapng.is_statistics(block) for block in blocks].count(True) == 1
    script.write_text("echo nonsense that is no pcapng, but long enough\n")
    assert main(["dump", "--via", f"sh {script}", "-w", str(copy)]) == 1
    assert "is not pcapng" in capfd.readouterr().err
    assert main(["dump", "--via", "/no/such/command", "-w", str(copy)]) == 1
    assert "Cannot run '/no/such/command'" in capfd.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_this_end_dies(tmp_path: Path, how: int) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-m", "unixsock_bpf", "dump", "--via", f"env FAKE_PID_FILE={pids} {FAKE}"]
    dump = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert dump.stderr is not None
    assert "capturing" in dump.stderr.readline()
    dump.send_signal(how)
    dump.communicate()
    (pid,) = map(int, pids.read_text().split())
    assert ended(pid)


def ended(pid: int) -> bool:
    """Whether a process ends within five seconds."""
    deadline = time.monotonic() + soon(5)
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_merging_waits_for_a_silent_host_but_not_for_long() -> None:
    capture = HostsCapture(Settings(), [Way(("a",), "a"), Way(("b",), "b")])
    first, second = capture._live = capture.hosts
    now = time.monotonic()
    first.waiting.extend([(1, now, b"a1"), (4, now, b"a4")])
    assert capture._merged() == []
    second.waiting.extend([(2, now, b"b2"), (3, now, b"b3")])
    assert capture._merged() == [b"a1", b"b2", b"b3"]
    assert 0 < capture._timeout() <= 502
    first.waiting[0] = (4, now - 10, b"a4")
    assert capture._merged() == [b"a4"]
    first.waiting.append((5, now, b"a5"))
    second.blocks_open = False
    assert capture._merged() == [b"a5"]
    threading.Thread(target=capture.stop).start()
    capture._close()


def test_the_way_by_ssh() -> None:
    way = by_ssh("me@db1", port=22, user="you", jump="j", key="/k", privilege="doas")
    assert way.name == "db1"
    command = way.command("dump")
    assert command[0] == "ssh"
    assert "BatchMode=yes" in command
    options = ["-p", "22", "-l", "you", "-J", "j", "-i", "/k"]
    assert command[command.index("-p") :] == [*options, "--", "me@db1", "doas", "-n", "unixsock", "dump"]
    assert by_ssh("ssh://me@db1:2222", privilege="none").name == "db1"
    for wrong in ("-oProxyCommand=x", "a b", "a\nb", ""):
        with pytest.raises(WayError):
            by_ssh(wrong)
    with pytest.raises(WayError, match="empty"):
        by_command("  ")
    with pytest.raises(WayError, match="split into words"):
        by_command("a 'b")


@pytest.mark.parametrize(
    ("configured", "limits"),
    [
        ("connecttimeout none\nserveraliveinterval 0", ["ConnectTimeout=15", "ServerAliveInterval=5"]),
        ("connecttimeout 60\nserveraliveinterval 0", ["ServerAliveInterval=5"]),
        ("connecttimeout 60\nserveraliveinterval 20", []),
    ],
)
def test_the_users_own_time_limits_count(
    configured: str, limits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\n[ $1 = -G ] && printf '{configured}' || echo \"$@\"\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with start(by_ssh("me@db1", port=22), ["dump"], subprocess.DEVNULL, subprocess.PIPE) as process:
        words = process.communicate()[0].decode().split()
    assert [word for word in words if "Timeout" in word or "Alive" in word] == limits
    assert words[-6:] == ["--", "me@db1", "sudo", "-n", "unixsock", "dump"]


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        (
            ["Warning: x", "ssh: Could not resolve hostname db1: Name or service not known"],
            255,
            "no host db1",
        ),
        (["ssh: connect to host db1 port 22: No route to host"], 255, "db1 cannot be reached"),
        (["me@db1: Permission denied (publickey)."], 255, "run 'ssh-copy-id me@db1'"),
        (
            ["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."],
            255,
            "-R db1",
        ),
        (["bash: line 1: sudo: command not found"], 127, "There is no sudo or doas on db1"),
        (["unixsock: unrecognised argument '--control'; see 'unixsock dump --help'"], 2, "another version"),
        (["unixsock: Capturing Unix sockets needs root."], 1, "On db1: Capturing Unix sockets needs root."),
        (["Timeout, server db1 not responding."], 255, "The connection to db1 broke"),
        ([], 127, "not installed on db1"),
        ([], 255, "without a reason"),
    ],
)
def test_what_stderr_says_is_explained(said: list[str], status: int, sentence: str) -> None:
    explained = explain(by_ssh("me@db1"), said, status)
    assert sentence in explained
    assert explained.endswith(".")
