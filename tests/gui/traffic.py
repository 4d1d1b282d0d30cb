"""Programs that talk on sockets in /run/shop: a web server, a message bus, and this process with numbers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("/run/shop")
API, BUS, NUMBERS = FOLDER / "api.sock", FOLDER / "bus.sock", FOLDER / "numbers.sock"
_SERVER = Path(__file__).resolve().parents[2] / "demo" / "http_server.py"


class Shop:
    """The programs, from ``with`` on.  ``sent``: what ``count`` has said."""

    def __enter__(self) -> Shop:
        self._stack = contextlib.ExitStack()
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        self._stack.callback(shutil.rmtree, FOLDER)
        self._start(sys.executable, str(_SERVER), str(API))
        self._start("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address", f"unix:path={BUS}")
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

    def _start(self, *command: str) -> None:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def say(self, text: bytes) -> None:
        """Sends ``text`` as a datagram to the numbers' socket."""
        self._sender.sendto(text, str(NUMBERS))
        self._receiver.recv(100)

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
