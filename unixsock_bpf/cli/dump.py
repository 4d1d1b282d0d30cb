"""``unixsock dump``: print captured messages, or save them."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from unixsock_bpf.capture.base import CaptureSource
from unixsock_bpf.capture.process_details import ProcessDetails, details_of
from unixsock_bpf.cli import dataset_output
from unixsock_bpf.cli.arguments import add_filter, add_limits, add_options, chosen_settings
from unixsock_bpf.cli.dataset_output import PARQUET, DatasetRecording
from unixsock_bpf.cli.dump_output import FileRecording, Recording, Ring, RingRecording, ring
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.cli.remote import add_ways, hosts_of, remote_source
from unixsock_bpf.formats.base import Options
from unixsock_bpf.formats.pcapng import Block, event_of, is_packet
from unixsock_bpf.formats.registry import FORMATS
from unixsock_bpf.options import Settings
from unixsock_bpf.record import Event

if TYPE_CHECKING:
    from unixsock_bpf.capture.feedback import Feedback

_EXAMPLES = """\
examples:
  unixsock dump /run/docker.sock
  unixsock dump '/run/p*' --format hexstring
  unixsock dump comm 'dbus*' and greater 1000 -w big.pcapng -a duration:60
  unixsock dump --format pcapng '*' | wireshark -k -i -
"""


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "dump",
        help="capture messages: print them, or save them to a file",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_filter(parser)
    parser.add_argument("--format", choices=(*FORMATS, PARQUET), help="default: string; with -w, pcapng")
    parser.add_argument(
        "-w", "--output", metavar="FILE", help="write to FILE; - is standard output; for parquet, a folder"
    )
    parser.add_argument("-c", "--count", type=_count, metavar="COUNT", help="stop after COUNT records")
    parser.add_argument(
        "-b",
        "--ring-buffer",
        action="append",
        default=[],
        metavar="CRITERION:N",
        help="write several files, as dumpcap: begin the next after duration:SECONDS, filesize:KB or"
        " packets:COUNT; keep the last files:COUNT",
    )
    parser.add_argument("-a", "--autostop", type=_duration, metavar="duration:S", help="stop after S seconds")
    parser.add_argument(
        "--colour",
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour the two directions; default: auto (on a terminal)",
    )
    add_options(parser)
    add_limits(parser.add_argument_group("for parquet"))
    add_ways(parser.add_argument_group("on other hosts, which have unixsock of this version"))
    parser.set_defaults(run=run)


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 0 < int(word) < 1 << 62):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1")
    return int(word)


def _duration(word: str) -> float:
    kind, _, value = word.partition(":")
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if kind != "duration" or not 0 < seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{word!r} is not duration:SECONDS")
    return seconds


def run(arguments: argparse.Namespace, start: Callable[[Settings], CaptureSource] | None = None) -> int:
    """Capture until stopped.  ``start`` makes the source; the default captures.  Raises Failure."""
    if arguments.control is not None:
        from unixsock_bpf.remote.server import serve

        return serve(arguments.control)
    settings = chosen_settings(arguments)
    name = arguments.format or ("pcapng" if arguments.output else "string")
    path = arguments.output or "-"
    files = ring(arguments.ring_buffer)
    if name == PARQUET:
        dataset_output.check(arguments)
    elif path == "-":
        if files:
            raise Failure("a ring buffer of files (-b) needs their name: give -w FILE", 2)
        if FORMATS[name].binary and os.isatty(1):
            raise Failure(f"{name} is not for terminals: give -w FILE, or pipe it into another program", 2)
    from unixsock_bpf.capture.feedback import left_out_text

    remote = remote_source(arguments, settings, _say)
    source = remote or (start or capture_source)(settings)
    # Another host leaves out what repeats its output itself.
    feedback = None if settings.include_capture_processes or remote else own_feedback()
    with StopSignals(source) as signals:
        # A reader of a pipe waits for the header; a file is only overwritten once a capture runs.
        early = _recording(name, arguments, settings, source, None) if path == "-" else None
        try:
            with source:
                recording = early or _recording(name, arguments, settings, source, files)
                where = f" on {', '.join(remote.names)}" if remote else ""
                _say(f"unixsock: capturing {_subject(settings, source.left_out)}{where}; Ctrl-C ends")
                for sentence in [] if remote else _nearby(settings):
                    _say(f"unixsock: {sentence}")
                for sentence in source.unattached:
                    _say(f"unixsock: {sentence}")
                if arguments.autostop:
                    signals.stop_after(arguments.autostop)
                if recording.pipe is not None:  # notices that its reader goes while there is no traffic
                    source.watch(recording.pipe, 0, lambda happened: _if_closed(happened, source))
                source.each_second = recording.each_second
                # A close is recorded without --events, too, for the dissector; text does not show it.
                quiet = name != PARQUET and not FORMATS[name].binary and not settings.events
                details = None if remote else details_of(settings)
                captured = _transfer(source, recording, arguments.count, quiet, feedback, details)
                statistics = source.statistics
        except refusals() as error:
            raise Failure(str(error)) from None
        left_out = left_out_text(source.left_out, feedback)
        recording.end(statistics.lost, left_out)
    plural = "" if captured == 1 else "s"
    _say(f"{captured} record{plural} captured, {statistics.lost_text}" + (left_out and f"; {left_out}"))
    return 0


def _subject(settings: Settings, left_out: Sequence[str]) -> str:
    """Return what is captured, and which other processes than this one are not."""
    subject = settings.filter.text.strip() or "all Unix sockets"
    return subject + (f", without those of {', '.join(left_out)}" if left_out else "")


def _nearby(settings: Settings) -> list[str]:
    from unixsock_bpf.filter.near import nearby

    return nearby(settings.filter)


def own_feedback() -> Feedback:
    """Return what leaves out conversations that repeat our output, and reports them."""
    from unixsock_bpf.capture import own_processes
    from unixsock_bpf.capture.feedback import Feedback

    return Feedback(lambda: own_processes.find().readers, lambda text: _say(f"unixsock: {text}"))


def capture_source(settings: Settings) -> CaptureSource:
    """Return the capture of this host."""
    from unixsock_bpf.privilege.client import source

    return source(settings)


def refusals() -> tuple[type[Exception], ...]:
    """Return the errors with which a capture refuses to begin or to go on."""
    from unixsock_bpf.errors import ProbeError
    from unixsock_bpf.record import RecordError

    return (ProbeError, RecordError)


def _if_closed(happened: int, source: CaptureSource) -> None:
    if happened & (select.POLLERR | select.POLLHUP):
        source.stop()


def _recording(
    name: str, arguments: argparse.Namespace, settings: Settings, source: CaptureSource, files: Ring | None
) -> Recording:
    """Open what the capture is written to.  Raises Failure."""
    path = arguments.output or "-"
    if name == PARQUET:
        return DatasetRecording(path, arguments, hosts_of(source))

    def options(is_terminal: bool) -> Options:
        coloured = arguments.colour == "always" or (
            arguments.colour == "auto" and is_terminal and "NO_COLOR" not in os.environ
        )
        return Options(coloured, settings.snaplen, settings.filter.text, hosts_of(source))

    if files:
        return RingRecording(path, files, FORMATS[name], options, lambda: source.statistics.lost)
    return FileRecording(path, FORMATS[name], options)


def _transfer(
    source: CaptureSource,
    recording: Recording,
    count: int | None,
    quiet: bool,
    feedback: Feedback | None,
    details: ProcessDetails | None,
) -> int:
    """Copy from ``source`` to ``recording``, ``count`` records at most, but not what repeats the output.

    Return the records written.
    """
    captured = 0
    for batch in source.blocks():
        blocks = feedback.kept(batch) if feedback else batch
        if quiet:
            blocks = [block for block in blocks if event_of(block) != Event.CLOSE]
        if count is not None:
            blocks = _first(blocks, count - captured)
        recording.write(details.added(blocks) if details else blocks)
        captured += sum(map(is_packet, blocks))
        if captured == count:
            break
    return captured


def _first(batch: Sequence[Block], most: int) -> Sequence[Block]:
    """Return the blocks up to the ``most``-th record."""
    seen = 0
    for at, block in enumerate(batch):
        seen += is_packet(block)
        if seen == most:
            return batch[: at + 1]
    return batch


class StopSignals:
    """Stops ``source`` on a signal; a second signal ends the program."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, source: CaptureSource) -> None:
        self._source = source
        self._timer: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        with suppress(ValueError):  # not the main thread: a program's, which has its own handlers
            for number in self._SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer:
            self._timer.cancel()
        self._restore()

    def stop_after(self, seconds: float) -> None:
        """Stop after ``seconds`` from now, too."""
        self._timer = threading.Timer(seconds, self._source.stop)
        self._timer.daemon = True
        self._timer.start()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        self._source.stop()


def _say(text: str) -> None:
    from unixsock_bpf.cli.errors import say

    if sys.stderr is not None:
        say(text)
