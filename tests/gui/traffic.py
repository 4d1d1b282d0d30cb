"""Programs that talk on sockets in /run/shop: a web server, a message bus, and this process with numbers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from unixsock_bpf.formats import pcapng
from unixsock_bpf.record import Flag, Record, Role, SocketType, encode

FOLDER = Path("/run/shop")
API, BUS, NUMBERS = FOLDER / "api.sock", FOLDER / "bus.sock", FOLDER / "numbers.sock"
_CHECKOUT = Path(__file__).resolve().parents[2]
_SERVER = _CHECKOUT / "demo" / "http_server.py"
_RELAY = _CHECKOUT / "tests" / "dissector" / "real" / "relay.py"


class Shop:
    """The programs, from ``with`` on.  ``sent``: what ``count`` has said.

    ``relayed``: a folder for captures that relays write of the traffic; None if a probe sees it.
    """

    def __init__(self, relayed: Path | None = None) -> None:
        self._relayed = relayed
        self._said = 0

    def __enter__(self) -> Shop:
        self._stack = contextlib.ExitStack()
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        self._stack.callback(shutil.rmtree, FOLDER)
        self._start(sys.executable, str(_SERVER), self._behind(API))
        bus = f"unix:path={self._behind(BUS)}"
        self._start("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address", bus)
        self._receiver = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._receiver.bind(str(NUMBERS))
        self._sender = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.sent: list[bytes] = []
        deadline = time.monotonic() + 60
        while not (API.exists() and BUS.exists()):
            assert time.monotonic() < deadline, "the web server or the bus did not start"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _behind(self, path: Path) -> str:
        """Where the program listens that is reached at ``path``: there, or behind a relay."""
        if self._relayed is None:
            return str(path)
        behind = f"{path}.relayed"
        out = str(self._relayed / path.name)
        self._start(sys.executable, str(_RELAY), out, str(path), behind, str(path))
        return behind

    def _start(self, *command: str) -> None:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def say(self, text: bytes) -> None:
        """Sends ``text`` as a datagram to the numbers' socket."""
        self._sender.sendto(text, str(NUMBERS))
        self._receiver.recv(100)
        if self._relayed is None:
            return
        pid, comm = os.getpid(), Path("/proc/self/comm").read_bytes().strip()
        said = Record(
            type=SocketType.DGRAM, flags=Flag.FROM_START, role=Role.DST_IS_SERVER, src_sock=1, dst_sock=2,
            src_pid=pid, dst_pid=pid, src_comm=comm, dst_comm=comm, dst_name=os.fsencode(NUMBERS),
            message=self._said, len=len(text), payload=text,
        )  # fmt: skip
        self._said += 1
        with (self._relayed / NUMBERS.name).open("ab") as out:
            out.write(pcapng.packet(time.time_ns(), encode(said)))

    def count(self, phase: str, most: int) -> None:
        """Says so many numbers, and notes them."""
        for number in range(1, most + 1):
            text = f"{phase} number {number}\n".encode()
            self.say(text)
            self.sent.append(text)

    def ask(self, *pages: str) -> None:
        """curl asks the web server for pages, one after the other on one connection."""
        urls = [f"http://shop/{page}" for page in pages]
        subprocess.run(
            ["curl", "-sS", "--unix-socket", str(API), *urls], check=True, capture_output=True, timeout=60
        )

    def list_bus_names(self) -> None:
        """dbus-send asks the bus who is there."""
        method = ("--dest=org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.ListNames")
        subprocess.run(
            ["dbus-send", f"--bus=unix:path={BUS}", "--print-reply", *method],
            check=True,
            capture_output=True,
            timeout=60,
        )
