"""Wireshark's side of the toolbar's pipes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from live import READY_TIMEOUT

from unixsock_bpf.extcap.control_protocol import Command, Control, ControlMessage, Decoder, encode


class Toolbar:
    """What Wireshark does with the two pipes."""

    def __init__(self, folder: Path) -> None:
        self.to_extcap, self.from_extcap = folder / "control-in", folder / "control-out"
        for path in (self.to_extcap, self.from_extcap):
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        self.options = (
            *("--extcap-control-in", str(self.to_extcap)),
            *("--extcap-control-out", str(self.from_extcap)),
        )
        self._reading = os.open(self.from_extcap, os.O_RDONLY | os.O_NONBLOCK)
        # Wireshark's own open waits for the extcap; both ways, it does not.
        self._writing = os.open(self.to_extcap, os.O_RDWR)
        self._decoder = Decoder()
        self.log = ""
        self.warnings: list[str] = []

    def wait_ready(self) -> None:
        """Wait until the log names the filter that the capture began with."""
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._held():
            assert time.monotonic() < deadline, self.log[-1000:]
            time.sleep(0.005)

    def apply(self, text: str) -> None:
        """Enters a filter, and waits until it holds."""
        before = len(self._held())
        os.write(self._writing, encode(Control.FILTER, Command.SET, text))
        deadline = time.monotonic() + READY_TIMEOUT
        while len(self._held()) == before:
            assert not self.warnings
            assert time.monotonic() < deadline, f"'{text}' was not applied; the log: {self.log[-1000:]}"
            time.sleep(0.005)

    def pause(self, paused: bool) -> None:
        """Press the button Pause, and wait until that holds."""
        self._held()
        before = len(self.log)
        os.write(self._writing, encode(Control.PAUSE, Command.SET, "\1" if paused else "\0"))
        deadline = time.monotonic() + READY_TIMEOUT
        while ("Paused:" if paused else "Capturing again") not in self.log[before:]:
            assert time.monotonic() < deadline, self.log[-1000:]
            time.sleep(0.005)
            self._held()

    def _held(self) -> list[str]:
        """The filters that the log names."""
        while True:
            try:
                data = os.read(self._reading, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            for message in self._decoder.feed(data):
                assert isinstance(message, ControlMessage)
                if (message.control, message.command) == (Control.LOG, Command.ADD):
                    self.log += message.text
                elif message.command == Command.WARNING:
                    self.warnings.append(message.text)
        return re.findall(r"(?:No capture filter\.|Capture filter: .*)\n", self.log)
