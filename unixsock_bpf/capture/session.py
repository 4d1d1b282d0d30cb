"""A live capture: from the probe's ring buffer to pcapng blocks."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING

from unixsock_bpf import record
from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.capture.poller import Poller
from unixsock_bpf.capture.read_scheduler import IdleTime, ReadScheduler
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.formats import pcapng
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.linux import wall_clock
from unixsock_bpf.record import ANNOUNCEMENT, endpoint_name
from unixsock_bpf.timeouts import IDLE_WAIT_S, LAST_RECORD_WAIT_S, UNFINISHED_RECORD_WAIT_S

if TYPE_CHECKING:
    from unixsock_bpf.capture.ringbuf import Ring
    from unixsock_bpf.options import Settings
    from unixsock_bpf.probe.probe import Probe

#: Blocks and bytes in one batch: as many as one writev takes, and what a large pipe takes.
BATCH = 1000
BATCH_BYTES = 1 << 20


def _translated(data: memoryview) -> bytes | None:
    """Return the block for a ring record that is not a block itself."""
    (kind,) = data[:4].cast("I")
    return pcapng.names([endpoint_name(data)]) if kind == ANNOUNCEMENT else None


class Capture(Poller):
    """A capture in this process, from ``with`` to ``stop``.

    ``blocks`` yields batches of pcapng blocks, whole and in order; file and interface
    headers are the caller's.  Entering raises ProbeError where capturing is not possible.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        #: Readable when the wall clock was set.
        self.jumps = wall_clock.jumps()
        self._poll.register(self.jumps, select.POLLIN)
        self.idle_time = IdleTime()
        #: The wall clock's offset that the probe has; 0: none yet.
        self._clock_offset = 0
        #: Changes of the settings that are wanted, and one that was prepared, or failed, meanwhile.
        self._wanted: list[tuple[Settings, Callable[[str], None]]] = []
        self._preparing: threading.Thread | None = None
        self._prepared: int | ProbeError | None = None
        self.left_out: Sequence[str] = []
        self.feedback_found: Callable[[str], None] = lambda _: None
        self._probe: Probe
        self._ring: Ring
        self._scheduler: ReadScheduler

    def __enter__(self) -> Capture:
        self._probe, self._ring = self._attach(self.settings)
        self._scheduler = ReadScheduler(self._ring.size, self.idle_time)
        self._probe.settings.running = 1
        self._poll.register(self._ring.fd, select.POLLIN)
        return self

    def _attach(self, settings: Settings) -> tuple[Probe, Ring]:
        """Return a probe that is set up but captures nothing yet, and its ring."""
        from unixsock_bpf.capture.own_processes import capture_processes, shown
        from unixsock_bpf.capture.ringbuf import Ring
        from unixsock_bpf.linux.cgroups import groups
        from unixsock_bpf.linux.pid_namespace import own_pid
        from unixsock_bpf.linux.sockets import owners, visit_relative_names
        from unixsock_bpf.probe.probe import Probe

        with contextlib.ExitStack() as failing:
            probe = Probe(settings)
            failing.callback(probe.close)
            probe.settings.clock_offset = wall_clock.offset()
            probe.settings.reader = own_pid()
            existing = groups()
            probe.fill_groups(existing)
            probe.fill_holders(owners(), existing)
            visit_relative_names()
            probe.detach_listing()
            if not settings.include_capture_processes:
                left_out = capture_processes() | set(settings.capturers)
                probe.fill_capturers(left_out)
                self.left_out = shown(left_out)
            ring = Ring(probe.ring_fd, probe.ring_size)
            failing.pop_all()
        return probe, ring

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        """Go on with another filter, with or without events, from one message to the next.

        ``done`` is called in ``blocks`` with an empty text when they hold, or with why they can't;
        then the old ones do.
        """
        self._wanted.append((settings, done))
        self._change()

    def replace_now(self, settings: Settings) -> str:
        """Do as ``replace``, in a process that has nothing else to do; return what ``done`` would get."""
        try:
            self._probe.switch(self._probe.prepare(settings))
        except ProbeError as error:
            return str(error)
        return ""

    def _change(self) -> None:
        """Make the requested changes, one after the other."""
        if self._preparing and self._prepared is not None:
            self._preparing.join()
            (settings, done), self._preparing = self._wanted.pop(0), None
            prepared, self._prepared = self._prepared, None
            if isinstance(prepared, ProbeError):
                done(str(prepared))
            else:
                self._probe.switch(prepared)
                self.settings = settings
                done("")
        if self._wanted and not self._preparing:
            self._preparing = threading.Thread(target=self._prepare, args=[self._wanted[0][0]], daemon=True)
            self._preparing.start()

    def _prepare(self, settings: Settings) -> None:
        """Prepare in a thread: the kernel may be slow, and the ring has to be drained meanwhile."""
        try:
            self._prepared = self._probe.prepare(settings)
        except ProbeError as error:
            self._prepared = error
        self.wake_up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._preparing:
            self._preparing.join()
        self._probe.close()
        os.close(self.jumps)
        self.idle_time.close()
        self._close()

    def detach_messages(self) -> None:
        """Detach the hooks that write records: to detach all of them takes several times as long."""
        self._probe.detach_messages()
        self.pause(True)  # the remaining hooks still record closes

    @property
    def writes_output(self) -> bool:
        """False: ``blocks`` yields everything."""
        return False

    @property
    def maps_can_be_read(self) -> bool:
        """Whether this process, as it is now, may read the probe's maps."""
        return bool(self._probe.maps_can_be_read)

    @property
    def memory(self) -> int:
        """About how many bytes of kernel memory the probe takes, without the ring."""
        return self._probe.memory

    @property
    def attached(self) -> str:
        """How the probe is attached: ``fentry`` or ``kprobe``."""
        return str(self._probe.attached)

    @property
    def proofs(self) -> list[str]:
        """What the probe sent through sockets of its own before the capture, and its hooks saw."""
        return [proof.way for proof in self._probe.proofs]

    @property
    def unattached(self) -> list[str]:
        """A sentence for each hook that is not attached, with what is unknown without it."""
        return self._probe.unattached

    @property
    def countable(self) -> set[int]:
        """Descriptors that ``statistics`` needs open."""
        return self._probe.countable()

    @property
    def statistics(self) -> Statistics:
        """Messages and bytes seen and lost so far."""
        totals = {one.name: getattr(self._probe.totals, one.name, 0) for one in fields(Statistics)}
        return Statistics(**totals | {"skipped": self._probe.skipped()})

    def pause(self, paused: bool) -> None:
        """Capture nothing until called with False."""
        self._probe.settings.running = int(not paused)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """Batches of blocks.  A batch is valid until the next one is asked for."""
        while not self._stopped:
            if self._wanted:
                self._change()
            rest = self._scheduler.rest(self._ring.waiting)
            if not rest:
                began, waited = time.monotonic(), self._ring.waiting
                if batch := self._take(self._ring):
                    yield batch
                    self._scheduler.done(began, waited, self._ring.release(), self._ring.waiting)
                elif not self._ring.empty:
                    rest = UNFINISHED_RECORD_WAIT_S
            self._wait(rest)
        self.detach_messages()
        yield from self._rest()
        yield self._pending_losses()

    def _rest(self) -> Iterator[Sequence[Block]]:
        """Yield what is in the ring at the end.  A program that has begun a record completes it soon.

        Sleeps are counted rather than timed: on a busy machine that program is as slow as this process.
        """
        slept = 0.0
        while True:
            if batch := self._take(self._ring):
                yield batch
                self._ring.release()
                slept = 0.0
            elif self._ring.empty or slept > LAST_RECORD_WAIT_S:
                return
            else:
                time.sleep(UNFINISHED_RECORD_WAIT_S)
                slept += UNFINISHED_RECORD_WAIT_S

    def _take(self, ring: Ring) -> list[Block]:
        return ring.take(BATCH, BATCH_BYTES, pcapng.EPB, _translated)

    @property
    def filling(self) -> bool:
        """Whether the ring fills up: messages may soon be lost."""
        return self._ring.held > self._ring.size // 2

    def _wait(self, rest: float) -> None:
        """Wait for ``rest`` seconds, or until there may be something to do."""
        offset = wall_clock.offset()
        if abs(offset - self._clock_offset) > wall_clock.NOTABLE:
            self._probe.settings.clock_offset = self._clock_offset = offset
        if rest or not self._ring.empty:
            # The toolbar and the end of the fifo are looked at however much comes in.
            events = self._poll_others(rest)
        else:
            events = self._poll.poll(IDLE_WAIT_S * 1000 if self._has_seconds else None)
        if self.jumps in self._dispatch(events):
            wall_clock.seen(self.jumps)

    def _poll_others(self, timeout: float) -> list[tuple[int, int]]:
        """Wait without the ring, so that a burst is read in few batches."""
        self._poll.unregister(self._ring.fd)
        try:
            return self._poll.poll(timeout * 1000)
        finally:
            self._poll.register(self._ring.fd, select.POLLIN)

    def _pending_losses(self) -> list[Block]:
        """Return losses that no later record could report."""
        if not self._probe.totals.lost_messages:
            return []
        now = time.time_ns()
        return [pcapng.packet(now, record.encode(lost)) for lost in self._probe.pending_losses()]
