"""Captures on other hosts, by a real sshd and a real probe: whole, in order, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import far
import pytest
from far import FOLDER, SUDOER, Far, gone, running, wait_until
from leftovers import family, only, programs
from live import Live
from patience import soon
from system import run
from wireshark_toolbar import Toolbar

import unixsock_bpf
from unixsock_bpf.formats import reader

pytestmark = pytest.mark.thorough

#: Seconds in which nothing may grow.
QUIET = 5


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with far.prepared(), Far("here"):
        yield


def payloads(path: Path) -> list[bytes]:
    return [one.record.payload for one in reader.SavedCapture(str(path), forgiving=True)]


DUMP = (str(far.COMMAND), "dump", "--host")


def sent(number: int) -> bytes:
    return b"message %d." % number


def say(*numbers: int) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        for number in numbers:
            here.send(sent(number))
            there.recv(99)


def ours_in(path: Path) -> list[bytes]:
    return [one for one in payloads(path) if one.startswith(b"message ")]


def wait_received(path: Path, number: int) -> None:
    deadline = time.monotonic() + soon(30)
    while sent(number) not in path.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def own_network() -> Iterator[Far]:
    """A host in a network namespace of its own, whose link a test takes down."""
    run("modprobe", "veth")
    run("ip", "netns", "add", "far", check=True)
    run("ip", "link", "add", "near", "type", "veth", "peer", "name", "inside", "netns", "far", check=True)
    try:
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "near", check=True)
        run("ip", "link", "set", "near", "up", check=True)
        inside = ("ip", "netns", "exec", "far")
        run(*inside, "ip", "addr", "add", "10.77.0.2/24", "dev", "inside", check=True)
        run(*inside, "ip", "link", "set", "inside", "up", check=True)
        with Far("apart", "10.77.0.2", through=inside) as host:
            yield host
    finally:
        run("ip", "link", "delete", "near")
        run("ip", "netns", "delete", "far", check=True)


@pytest.mark.parametrize("how", ["ssh is killed", "the link goes down"])
def test_a_connection_that_breaks(how: str) -> None:
    saved = FOLDER / "saved"
    with (
        own_network(),
        running(*DUMP, "root@apart", "--remote-priv", "none", "*", "-w", str(saved)) as dump,
    ):
        say(*range(20))
        wait_received(saved, 19)
        if how == "ssh is killed":
            os.kill(only(family(dump.process.pid), "ssh -T"), signal.SIGKILL)
        else:
            run("ip", "link", "set", "near", "down", check=True)
        wait_until(lambda: programs() == 0, soon(5))
        assert dump.process.wait(soon(60)) == 1
        *_, last = dump.errors.read_text().splitlines()
        assert "apart" in last
        assert "Traceback" not in dump.said
        assert ours_in(saved) == [sent(number) for number in range(20)]


def test_two_hosts_in_one_file() -> None:
    """Both are this kernel, so that each message comes twice, once from each interface."""
    saved = FOLDER / "saved"
    with (
        Far("there", port=far.PORT + 1),
        running(*DUMP, f"{SUDOER}@here", "--host", f"{SUDOER}@there", "*", "-w", str(saved)) as dump,
    ):
        say(*range(20))
        wait_received(saved, 19)
        size = saved.stat().st_size
        time.sleep(QUIET)
        settled = saved.stat().st_size
        time.sleep(QUIET)
        assert saved.stat().st_size == settled, size  # neither captures what carries the other for ever
        said = dump.interrupt()
        assert dump.process.returncode == 0, said
    capture = reader.SavedCapture(str(saved))
    found: dict[str, list[bytes]] = {"here": [], "there": []}
    for span in capture.spans():
        payload = capture.decode(0, span.begin, span.end).payload
        if payload.startswith(b"message "):
            found[capture.host(span.interface)].append(payload)
    assert found == {host: [sent(number) for number in range(20)] for host in found}


def test_not_installed_there() -> None:
    hidden = far.COMMAND.with_name("unixsock-hidden")
    far.COMMAND.rename(hidden)
    try:
        done = run(
            str(hidden), "dump", "--host", "root@here", "--remote-priv", "none", "*", "-w", "/dev/null"
        )
    finally:
        hidden.rename(far.COMMAND)
    assert done.returncode == 1
    assert "unixsock is not installed on here" in done.stderr


def test_wireshark_s_interface_with_its_toolbar() -> None:
    toolbar = Toolbar(FOLDER)
    options = ["--remote-host", "here", "--remote-username", SUDOER, *toolbar.options]
    with Live(*options, interface="unixsock-ssh") as live:
        say(1)
        toolbar.wait_ready()
        toolbar.apply("path @unixsock-none")
        say(2)
        toolbar.apply("")
        say(3)
        toolbar.pause(True)
        time.sleep(1)  # until it holds there
        say(4)
        toolbar.pause(False)
        time.sleep(1)
        live.wait_ready()
        say(5)
    assert live.messages == ""
    assert [one.payload for one in live.records if one.payload.startswith(b"message ")] == [
        sent(1),
        sent(3),
        sent(5),
    ]
    wait_until(gone, soon(5))


def test_python() -> None:
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.5):
            say(1)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with unixsock_bpf.live(host=f"{SUDOER}@here") as messages:
            assert next(one for one in messages if one.payload == sent(1)).path is None
    finally:
        done.set()
        thread.join()
    wait_until(gone, soon(5))
