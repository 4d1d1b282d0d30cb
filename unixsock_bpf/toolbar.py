"""Wireshark's toolbar during a capture: filter, pause, sockets, log.

Wireshark sends the state of each control at the start and whenever it is changed; what we
send goes to its log window, status bar and dialogs.
"""

from __future__ import annotations

import dataclasses
import os
import select
import time
from typing import TYPE_CHECKING

from unixsock_bpf.controls import NO_CONTROL, Command, Control, ControlError, Decoder, Message, encode

if TYPE_CHECKING:
    from unixsock_bpf.capture import Capture
    from unixsock_bpf.options import Settings


class Toolbar:
    """Serves the controls of one capture.  ``control_in`` is the open pipe from Wireshark."""

    def __init__(self, capture: Capture, settings: Settings, control_in: int) -> None:
        self._capture = capture
        self._settings = settings
        self._options = settings.filter  # what the dialog asked for: the toolbar only narrows it
        self._in = control_in
        self._out: int | None = None
        self._decoder = Decoder()
        self._lost = 0

    def start(self) -> None:
        """Begins to listen, and says in the log what is attached."""
        os.set_blocking(self._in, False)
        self._capture.watch(self._in, select.POLLIN, self._read)
        if self._settings.control_out:
            self._out = os.open(self._settings.control_out, os.O_WRONLY | os.O_CLOEXEC)
        self._log(f"capturing with {self._capture.attached}, filter: {self._filter_text()}")
        self._capture.on_idle = self._tell_losses

    def _filter_text(self) -> str:
        return self._settings.filter.text or "none"

    def _send(self, control: int, command: Command, text: str) -> None:
        if self._out is not None:
            os.write(self._out, encode(control, command, text))

    def _log(self, text: str) -> None:
        self._send(Control.LOG, Command.ADD, f"{time.strftime('%H:%M:%S')} {text}\n")

    def _tell_losses(self) -> None:
        lost = self._capture.statistics.lost
        if lost > self._lost:
            self._log(f"{lost} messages lost so far: a larger buffer or a narrower filter helps")
            self._send(NO_CONTROL, Command.STATUSBAR, f"Unix sockets: {lost} messages lost")
            self._lost = lost

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._in, 65536)
        except BlockingIOError:
            return
        if not data:
            self._capture.unwatch(self._in)
            return
        for message in self._decoder.feed(data):
            if isinstance(message, ControlError):
                self._log(str(message))
                continue
            try:
                self._handle(message)
            except ControlError as error:
                self._log(str(error))

    def _handle(self, message: Message) -> None:
        if message.command == Command.INITIALIZED:
            return
        if message.control == Control.FILTER:
            self._change_filter(message.text)
        elif message.control == Control.PAUSE:
            self._capture.pause(message.flag)
            self._log("paused" if message.flag else "capturing again")
        elif message.control == Control.INCLUDE_CAPTURE_PROCESSES:
            self._change(dataclasses.replace(self._settings, include_capture_processes=message.flag))
        elif message.control == Control.SOCKETS:
            from unixsock_bpf.present import choices

            listed = "\n".join(f"  {text}" for _, text in choices())
            self._log(f"sockets that exist now:\n{listed}")

    def _change_filter(self, text: str) -> None:
        """Takes a filter from the toolbar, or tells why not; then the old one goes on."""
        from unixsock_bpf.filter import Filter, FilterError, parse
        from unixsock_bpf.filter.tree import And, join

        try:
            wanted = parse(text)
            joined = Filter(text, join(And, [self._options.root, wanted.root]))
        except FilterError as error:
            self._send(NO_CONTROL, Command.WARNING, f"The filter was not changed. {error}")
            self._log(f"filter refused: {error}")
            return
        self._change(dataclasses.replace(self._settings, filter=joined))

    def _change(self, settings: Settings) -> None:
        from unixsock_bpf.probe.loader import ProbeError

        if settings == self._settings:
            return
        try:
            self._capture.replace(settings)
        except ProbeError as error:
            self._send(NO_CONTROL, Command.WARNING, f"The filter was not changed. {error}")
            return
        self._settings = settings
        self._log(f"filter: {self._filter_text()}")
