"""Wireshark's toolbar during a capture: filter, pause, sockets, log.

Wireshark sends a control's value when it is changed, and at the start those that differ from
the defaults; what we send goes to its log window, status bar and dialogs.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unixsock_bpf.extcap.control_pipe import ControlPipe
from unixsock_bpf.extcap.control_protocol import (
    NO_CONTROL,
    QUIT,
    Command,
    Control,
    ControlError,
    ControlMessage,
    Decoder,
    encode,
)

if TYPE_CHECKING:
    from unixsock_bpf.capture.base import CaptureSource
    from unixsock_bpf.filter import Filter
    from unixsock_bpf.options import Settings
    from unixsock_bpf.remote.way import Way


class Toolbar:
    """Serve the controls of one capture.  ``control_in`` is the open pipe from Wireshark."""

    def __init__(
        self, capture: CaptureSource, settings: Settings, control_in: int, ways: Sequence[Way] = ()
    ) -> None:
        self._capture = capture
        self._settings = settings
        self._asked = settings  # by the dialog and its capture filter: the toolbar only narrows that
        self._in = control_in
        self._out = ControlPipe(settings.control_out, capture) if settings.control_out else None
        self._decoder = Decoder()
        self._lost = 0
        self._ways = ways
        #: What a thread has to log.
        self._later: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self) -> None:
        """Watch the control pipe, and log how the probe is attached."""
        os.set_blocking(self._in, False)
        self._capture.watch(self._in, select.POLLIN, self._read)
        self._capture.each_second = self._each_second
        if self._asked.include_capture_processes:
            self._send(Control.INCLUDE_CAPTURE_PROCESSES, Command.SET, "\1")
        self.log(f"Attached with {self._capture.attached}. {self._filter_sentence()}")
        if self._capture.left_out:
            self.log(f"Left out, because they belong to this capture: {', '.join(self._capture.left_out)}.")
        for sentence in (*self._capture.unattached, *self._nearby()):
            self.log(sentence)

    def _filter_sentence(self) -> str:
        text = self._settings.filter.text.strip()
        return f"Capture filter: {text}" if text else "No capture filter."

    def _nearby(self) -> list[str]:
        """Return what is near the filter's paths that are no present socket's."""
        from unixsock_bpf.filter.near import nearby

        return [f"{sentence}." for sentence in nearby(self._settings.filter)]

    def _send(self, control: int, command: Command, text: str) -> None:
        if self._out is not None:
            self._out.send(encode(control, command, text))

    def log(self, text: str) -> None:
        """Add a line to Wireshark's log window."""
        self._send(Control.LOG, Command.ADD, f"{time.strftime('%H:%M:%S')} {text}\n")

    def _warn(self, sentence: str) -> None:
        self.log(sentence)
        self._send(NO_CONTROL, Command.WARNING, sentence)

    def _each_second(self) -> None:
        if self._out is not None:
            self._out.flush()
        while not self._later.empty():
            self.log(self._later.get())
        self._tell_losses()

    def _tell_losses(self) -> None:
        lost = self._capture.statistics.lost
        if lost > self._lost:
            self.log(f"{lost} messages lost so far: a larger buffer or a narrower filter helps.")
            self._send(NO_CONTROL, Command.STATUSBAR, f"Unix sockets: {lost} messages lost")
            self._lost = lost

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._in, 65536)
        except BlockingIOError:
            return
        except OSError:  # whatever became of the pipe: the capture goes on without it
            data = b""
        for message in self._decoder.feed(data):
            try:
                if isinstance(message, ControlError):
                    raise message
                self._handle(message)
            except ControlError as error:
                self.log(f"Not understood: {error}.")
            except Exception as error:  # a control may fail, but never end a capture
                self.log(f"That failed: {type(error).__name__}: {error}.")
        if not data:
            if cut := self._decoder.end():
                self.log(f"Not understood: {cut}.")
            self._capture.unwatch(self._in)

    def _handle(self, message: ControlMessage) -> None:
        if message == QUIT:
            signal.raise_signal(signal.SIGTERM)  # as earlier versions end a capture
        if message.command != Command.SET:
            return
        if message.control == Control.FILTER:
            self._change_filter(message.text)
        elif message.control == Control.PAUSE:
            self._capture.pause(message.flag)
            self.log("Paused: nothing is captured." if message.flag else "Capturing again.")
        elif message.control == Control.INCLUDE_CAPTURE_PROCESSES:
            self._include_capture_processes(message.flag)
        elif message.control == Control.SOCKETS:
            self._list_sockets()

    def _list_sockets(self) -> None:
        from unixsock_bpf.linux.listed_sockets import choices

        if self._ways:  # which may take long to answer
            threading.Thread(target=self._list_remote, daemon=True).start()
        else:
            self.log(_listed(choices()))

    def _list_remote(self) -> None:
        from unixsock_bpf.errors import ProbeError
        from unixsock_bpf.remote.sockets import choices

        try:
            listed, problems = choices(self._ways)
            self._later.put("\n".join([*problems, _listed(listed)]))
        except ProbeError as error:
            self._later.put(str(error))

    def _change_filter(self, text: str) -> None:
        """Apply a filter from the toolbar, or log why not and keep the old one."""
        from unixsock_bpf.filter import FilterError, parse

        try:
            narrowed = _narrowed(self._asked, parse(text))
        except FilterError as error:
            self._warn(f"The filter was not changed. {error}")
            return
        self._change(
            dataclasses.replace(self._settings, filter=narrowed.filter, events=narrowed.events),
            lambda: [self._filter_sentence(), *self._nearby()],
        )

    def _include_capture_processes(self, included: bool) -> None:
        self._change(
            dataclasses.replace(self._settings, include_capture_processes=included),
            lambda: [f"The capture's own processes are {'included' if included else 'left out'}."],
        )

    def _change(self, settings: Settings, sentences: Callable[[], list[str]]) -> None:
        """Go on with other settings and log ``sentences`` once they hold, or log why they cannot."""
        if settings == self._settings:
            return
        before, self._settings = self._settings, settings

        def done(problem: str) -> None:
            if problem:
                self._settings = before
                self._warn(f"Nothing was changed. {problem}")
            else:
                for sentence in sentences():
                    self.log(sentence)

        self._capture.replace(settings, done)


def _listed(choices: Sequence[tuple[str, str]]) -> str:
    """Return a list of sockets for the log window."""
    lines = "".join(f"\n  {text}" for _, text in choices)
    return f"{len(choices)} named sockets exist now:{lines}"


def _narrowed(asked: Settings, typed: Filter) -> Settings:
    """Narrow ``asked`` by the filter ``typed``.  Raises FilterError if the two are too large together."""
    joined = asked.filter & typed
    return dataclasses.replace(asked, filter=joined, events=asked.events or joined.asks_for_events)
