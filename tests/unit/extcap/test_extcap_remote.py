"""The interface for other hosts: from a stand-in for the way there to Wireshark's fifo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_extcap_main import sentences

from unixsock_bpf import record
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.extcap import main
from unixsock_bpf.extcap.control_protocol import Command, Control, encode
from unixsock_bpf.formats import pcapng
from unixsock_bpf.options import HOST_OPTIONS, OptionError
from unixsock_bpf.remote import sockets
from unixsock_bpf.remote.way import by_command

ROOT = Path(__file__).parents[3]
FAKE = f"{sys.executable} {ROOT / 'tests/unit/fakes/fake_remote.py'}"
INTERFACE = ("--extcap-interface", "unixsock-ssh")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def start(tmp_path: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    (tmp_path / "fifo").exists() or os.mkfifo(tmp_path / "fifo")
    call = ["--capture", *INTERFACE, "--fifo", str(tmp_path / "fifo"), *options]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "extcap/unixsock"), *call],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def blocks(fifo: int) -> Iterator[bytes]:
    splitter = pcapng.Splitter()
    while data := os.read(fifo, 1 << 16):
        yield from splitter.feed(data)


def payload(block: bytes) -> bytes:
    return record.decode(pcapng.packet_of(block).data).payload if pcapng.is_packet(block) else b""


def test_a_host_writes_to_the_fifo_and_its_filter_can_be_changed(tmp_path: Path) -> None:
    controls = [tmp_path / "in", tmp_path / "out"]
    for path in controls:
        os.mkfifo(path)
    extcap = start(
        tmp_path,
        *("--via", FAKE, "--extcap-capture-filter", "path /a or path /b"),
        *("--extcap-control-in", str(controls[0]), "--extcap-control-out", str(controls[1])),
        FAKE_RATE="20",
    )
    control = os.open(controls[0], os.O_WRONLY)
    out = os.open(controls[1], os.O_RDONLY | os.O_NONBLOCK)
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY)
    seen = []
    for block in blocks(fifo):
        seen.append(block)
        if payload(block) == b"fake 2":
            os.write(control, encode(Control.FILTER, Command.SET, "path /b"))
        elif payload(block) == b"filter b":
            os.write(control, encode(Control.PAUSE, Command.SET, "\1"))
        elif payload(block) == b"paused":
            extcap.send_signal(signal.SIGTERM)
    assert extcap.wait(300) == 0, extcap.stderr
    assert b"python" in seen[1]
    assert b"path /a or path /b" in seen[1]
    payloads = [payload(block) for block in seen if pcapng.is_packet(block)]
    assert payloads[-2:] == [b"paused", b"last"]
    assert payloads[0] == b"fake 0"
    assert [pcapng.is_statistics(block) for block in seen].count(True) == 1
    log = os.read(out, 1 << 20)
    assert b"Attached with fentry" in log
    assert b"Capture filter: path /a or path /b" in log
    assert b"Paused" in log
    for fd in (control, out, fifo):
        os.close(fd)


@pytest.mark.parametrize(
    ("options", "said", "sentence"),
    [
        (("--via", FAKE), "Host key verification failed.", "The host key of"),
        ((), "", "The remote host is missing"),
        (("--remote-host", "-oProxyCommand=x"), "", "cannot be one"),
        (("--remote-host", "a", "--remote-port", "70000"), "", "needs a number from 1 to 65535"),
        (("--via", FAKE, "--extcap-capture-filter", "pod 3"), "", "Capture filter: "),
    ],
)
def test_why_not_is_one_sentence(tmp_path: Path, options: tuple[str, ...], said: str, sentence: str) -> None:
    extcap = start(tmp_path, *options, FAKE_SAY=said)
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY)
    _, err = extcap.communicate(timeout=300)
    os.close(fifo)
    assert extcap.returncode == 1
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_the_dialog_has_the_hosts_options_and_the_first_interfaces() -> None:
    told = list(sentences(main.answer(["--extcap-config", *INTERFACE])))
    arguments = [fields for kind, fields in told if kind == "arg"]
    assert [argument["call"] for argument in arguments] == [f"--{option.name}" for option in HOST_OPTIONS]
    assert not any(argument["type"] == "password" for argument in arguments)
    numbers = {argument["number"] for argument in arguments if argument["type"] == "selector"}
    assert {fields["arg"] for kind, fields in told if kind == "value"} == numbers


def test_the_selector_lists_the_hosts_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "REMOTE_ANSWER_TIMEOUT_S", 300)
    reload = ["--extcap-config", *INTERFACE, "--extcap-reload-option", "path"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s*"))
        told = list(sentences(main.answer([*reload, "--via", FAKE])))
    (mine,) = (fields for _, fields in told if str(tmp_path) in fields["display"])
    assert mine["value"].endswith(r"/s\*")
    assert "(stream)" in mine["display"]
    told = list(sentences(main.answer([*reload, "--via", "/no/such/command"])))
    assert "Cannot run '/no/such/command'" in told[1][1]["display"]


def test_a_dead_host_does_not_hide_the_others_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "REMOTE_ANSWER_TIMEOUT_S", 300)
    dead = by_command("sh -c 'echo Connection refused >&2; exit 255' dead")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        listed, problems = sockets.choices([dead, by_command(FAKE)])
    assert str(tmp_path / "s") in [glob for glob, _ in listed]
    (problem,) = problems
    assert "refuses connections" in problem
    with pytest.raises(ProbeError, match="refuses connections"):
        sockets.choices([dead])


def test_the_way_that_the_options_name() -> None:
    call = ["--capture", *INTERFACE, "--fifo", "f"]
    one, other = main.capture_ways(
        [*call, "--remote-host", "a, b", "--remote-port", "22", "--remote-priv", "none"]
    )
    assert one.command("x")[-6:] == ["-p", "22", "--", "a", "unixsock", "x"]
    assert other.name == "b"
    (way,) = main.capture_ways([*call, "--via", "docker exec -i c", "--remote-host", "a"])
    assert way.command("x") == ["docker", "exec", "-i", "c", "unixsock", "x"]
    with pytest.raises(OptionError, match="--remote-priv needs one of sudo, doas, none"):
        main.capture_ways([*call, "--remote-host", "a", "--remote-priv", "su"])
    assert main.capture_ways(["--capture", "--extcap-interface", "unixsock", "--fifo", "f"]) == []
    with pytest.raises(OptionError, match="no option '--remote-host'"):
        main.capture_ways(
            ["--capture", "--extcap-interface", "unixsock", "--fifo", "f", "--remote-host", "a"]
        )
