"""The toolbar on real pipes: what it asks of the capture, what it tells Wireshark, and what it survives."""

import contextlib
import dataclasses
import os
import select
import signal
import socket

import pytest

from unixsock_bpf.extcap.control_pipe import MOST_WAITING, ControlPipe
from unixsock_bpf.extcap.control_protocol import NO_CONTROL, Command, Control, Decoder, encode
from unixsock_bpf.extcap.toolbar import Toolbar
from unixsock_bpf.filter import parse
from unixsock_bpf.options import Settings


class FakeCapture:
    """Stands in for ``Capture``: notes what it is asked for."""

    attached = "fentry"
    left_out = ()
    unattached: tuple[str, ...] = ()

    def __init__(self):
        self.watched = {}
        self.replaced = []
        self.paused = None
        self.refusal = None
        self.statistics = type("Statistics", (), {"lost": 0})()

    def watch(self, fd, events, callback):
        self.watched[fd] = (events, callback)

    def unwatch(self, fd):
        del self.watched[fd]

    def replace(self, settings, done):
        if not self.refusal:
            self.replaced.append(settings)
        done(self.refusal or "")

    def pause(self, paused):
        self.paused = paused

    def turn(self):
        """What Capture does when it waits."""
        for fd, (events, callback) in list(self.watched.items()):
            poll = select.poll()
            poll.register(fd, events)
            if poll.poll(0):
                callback(events)
        self.each_second()


class Window:
    """Wireshark's side of both pipes."""

    def __init__(self, folder, settings):
        self.to_extcap, self.from_extcap = folder / "in", folder / "out"
        os.mkfifo(self.to_extcap)
        os.mkfifo(self.from_extcap)
        control_in = os.open(self.to_extcap, os.O_RDONLY | os.O_NONBLOCK)
        self.writing = os.open(self.to_extcap, os.O_WRONLY)
        self.reading = os.open(self.from_extcap, os.O_RDONLY | os.O_NONBLOCK)
        self.capture = FakeCapture()
        settings = dataclasses.replace(settings, control_out=str(self.from_extcap))
        Toolbar(self.capture, settings, control_in).start()
        self.decoder = Decoder()

    def say(self, data):
        os.write(self.writing, data)
        for _ in range(3):
            self.capture.turn()

    def heard(self):
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.reading, 1 << 20):
                data += part
                self.capture.turn()
        return self.decoder.feed(data)

    def log(self):
        return "".join(m.text for m in self.heard() if (m.control, m.command) == (Control.LOG, Command.ADD))


@pytest.fixture
def window(tmp_path):
    return Window(tmp_path, Settings())


def test_it_begins_with_what_is_attached_and_the_filter(window, tmp_path):
    assert window.log().endswith(" Attached with fentry. No capture filter.\n")
    (tmp_path / "other").mkdir()
    other = Window(tmp_path / "other", Settings(filter=parse("path /run/x"), include_capture_processes=True))
    first, second, near = other.heard()
    assert (first.control, first.command, first.flag) == (
        Control.INCLUDE_CAPTURE_PROCESSES,
        Command.SET,
        True,
    )
    assert second.text.endswith("Capture filter: path /run/x\n")
    assert near.text.endswith(" there is no file /run/x.\n")


def test_a_filter_narrows_what_the_dialog_asked_for(tmp_path):
    window = Window(tmp_path, Settings(filter=parse("type stream or fds")))
    window.say(encode(Control.FILTER, Command.SET, "path /run/x or event close"))
    window.say(encode(Control.FILTER, Command.SET, ""))
    narrowed, restored = window.capture.replaced
    assert narrowed.filter == parse("(type stream or fds) and (path /run/x or event close)")
    assert narrowed.events
    assert (restored.filter, restored.events) == (parse("type stream or fds"), False)
    assert "Capture filter: (type stream or fds) and (path /run/x or event close)\n" in (log := window.log())
    assert "there is no file /run/x.\n" in log


def test_the_same_filter_again_changes_nothing(window):
    window.say(encode(Control.FILTER, Command.SET, "less 5") * 2)
    assert len(window.capture.replaced) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path /x foo", "At position 9"),
        ("'unclosed", "position 1"),
        ("(" * 50_000, "position"),
        ("x" * 100_000, "65536"),
        ("uid no-such-user", "no user"),
        ("cgroup /no/such/group", "no cgroup"),
        ("pid 99999999999999999999", "99999999999999999999"),
    ],
)
def test_a_bad_filter_is_refused_with_a_message_and_the_old_one_goes_on(window, text, words):
    window.say(encode(Control.FILTER, Command.SET, "less 5"))
    window.heard()
    window.say(encode(Control.FILTER, Command.SET, text)[:60_000])
    window.say(encode(Control.FILTER, Command.SET, text)[60_000:])
    (warning,) = (m for m in window.heard() if m.command == Command.WARNING)
    assert warning.control == NO_CONTROL
    assert warning.text.startswith("The filter was not changed. ")
    assert words in warning.text
    assert "\n" not in warning.text
    assert [settings.filter for settings in window.capture.replaced] == [parse("less 5")]
    window.say(encode(Control.FILTER, Command.SET, "less 6"))
    assert window.capture.replaced[-1].filter == parse("less 6")


def test_what_the_kernel_refuses_is_told_and_can_be_tried_again(window):
    window.capture.refusal = "The kernel says no."
    window.say(encode(Control.FILTER, Command.SET, "less 5"))
    (warning,) = (m for m in window.heard() if m.command == Command.WARNING)
    assert warning.text == "Nothing was changed. The kernel says no."
    window.capture.refusal = None
    window.say(encode(Control.FILTER, Command.SET, "less 5"))
    assert len(window.capture.replaced) == 1


def test_pause_and_own_processes(window):
    window.say(encode(Control.PAUSE, Command.SET, "\1"))
    assert window.capture.paused is True
    window.say(encode(Control.PAUSE, Command.SET, "\0"))
    assert window.capture.paused is False
    window.say(encode(Control.INCLUDE_CAPTURE_PROCESSES, Command.SET, "\1"))
    assert window.capture.replaced[-1].include_capture_processes
    told = window.log()
    for words in ("Paused", "Capturing again", "own processes are included"):
        assert words in told


def test_losses_are_told_once(window):
    window.heard()
    window.capture.statistics.lost = 7
    window.say(b"")
    told = window.heard()
    assert [m.command for m in told] == [Command.ADD, Command.STATUSBAR]
    assert all("7 messages lost" in m.text for m in told)


def test_sockets_are_listed_with_their_processes(window, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "listed"))
        window.say(encode(Control.SOCKETS, Command.SET))
        told = window.log()
    assert f"{tmp_path}/listed  (stream)  " in told
    assert f"[{os.getpid()}]" in told


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"T\0\0\1\0", "length 1"),
        (b"T\xff\xff\xff\0\1" + b"x" * 0x50000, "length 16777215"),
        (encode(Control.PAUSE, Command.SET, "on"), "0 or 1"),
        (b"T\0\0\3\0\1\xff", "UTF-8"),
        (b"GET / HTTP/1.1", "not with 'T'"),
    ],
)
def test_bad_messages_are_logged_and_survived(window, data, words):
    for at in range(0, len(data), 50_000):
        window.say(data[at : at + 50_000])
    assert words in window.log()
    assert window.capture.replaced == []
    assert window.capture.watched


def test_a_message_cut_short_by_the_end_is_logged(window):
    window.say(encode(Control.FILTER, Command.SET, "less 5")[:-1])
    os.close(window.writing)
    for _ in range(2):
        window.capture.turn()
    assert "cut short" in window.log()
    assert not window.capture.watched


@pytest.mark.parametrize("message", [(77, Command.SET), (Control.FILTER, Command.DISABLE), (0, 99)])
def test_unknown_controls_and_commands_are_ignored(window, message):
    window.say(encode(*message, "less 5"))
    assert window.capture.replaced == []


def test_quit_ends_the_capture_as_a_signal_does(window, monkeypatch):
    ended = []
    monkeypatch.setattr(signal, "raise_signal", ended.append)
    window.say(b"Q\0\0\0")
    assert ended == [signal.SIGTERM]
    assert "Not understood" not in window.log()


class TestOutlet:
    """Whatever Wireshark does with its end, nobody waits for it."""

    def test_a_reader_that_comes_late_gets_all(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        outlet = ControlPipe(str(tmp_path / "pipe"), FakeCapture())
        outlet.send(b"one ")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        outlet.send(b"two")
        assert os.read(reader, 100) == b"one two"

    def test_a_reader_that_does_not_read_holds_nobody_up_and_gets_whole_messages(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        waiter = FakeCapture()
        waiter.each_second = lambda: None
        outlet = ControlPipe(str(tmp_path / "pipe"), waiter)
        message = encode(Control.LOG, Command.ADD, "x" * 1000)
        for _ in range(2 * MOST_WAITING // len(message)):
            outlet.send(message)
        assert waiter.watched
        got = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(reader, 1 << 16):
                got += part
                waiter.turn()
        assert not waiter.watched
        assert MOST_WAITING - len(message) < len(got)
        assert got == message * (len(got) // len(message))

    def test_a_reader_that_goes_away_is_given_up(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        outlet = ControlPipe(str(tmp_path / "pipe"), FakeCapture())
        outlet.send(b"one")
        os.close(reader)
        outlet.send(b"two")
        outlet.send(b"three")


def test_no_control_that_fails_ends_the_capture(tmp_path, monkeypatch):
    def fail():
        raise ValueError("invalid literal for int() with base 10: b'G'")

    monkeypatch.setattr("unixsock_bpf.linux.listed_sockets.choices", fail)
    window = Window(tmp_path, Settings())
    window.heard()
    window.say(encode(Control.SOCKETS, Command.SET, ""))
    assert any("That failed: ValueError" in message.text for message in window.heard())
    window.say(encode(Control.PAUSE, Command.SET, "\1"))
    assert window.capture.paused is True
