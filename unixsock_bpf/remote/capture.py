"""A capture on other hosts: one, or several whose records are merged in the order of their times."""

from __future__ import annotations

import dataclasses
import select
import time
from collections.abc import Callable, Iterator, Sequence

from unixsock_bpf.capture.base import Statistics
from unixsock_bpf.capture.own_processes import capture_processes
from unixsock_bpf.capture.poller import Poller
from unixsock_bpf.errors import ProbeError
from unixsock_bpf.formats.pcapng import Block
from unixsock_bpf.linux.pid_namespace import identity
from unixsock_bpf.options import Settings
from unixsock_bpf.privilege.protocol import Request, RequestError
from unixsock_bpf.remote.connection import Connection
from unixsock_bpf.remote.way import Way
from unixsock_bpf.timeouts import MERGE_WAIT_S


class HostsCapture(Poller):
    """A capture on hosts, with the methods of ``Capture``.

    ``report`` gets a sentence when a host is gone; the others go on.  ``output``: as for
    ``RemoteCapture``, for one host.  Entering raises ProbeError if no host captures.
    """

    def __init__(
        self,
        settings: Settings,
        ways: Sequence[Way],
        report: Callable[[str], None] | None = None,
        output: int | None = None,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._paused = False
        #: Left out there if these are processes of the same kernel: of a container, or of this host.
        self._capturers = tuple(capture_processes()) if identity() else ()
        self.hosts = [Connection(way, number, output) for number, way in enumerate(ways)]
        self.left_out: Sequence[str] = []
        #: What happened before anything could be told.
        self._untold: list[str] = []
        self.feedback_found: Callable[[str], None] = report or self._untold.append
        self.proofs: list[str] = []
        self.filling = False
        self.writes_output = output is not None
        self._live: list[Connection] = []
        self._by_fd: dict[int, tuple[Connection, Callable[[], None]]] = {}
        self._problems: list[str] = []

    def __enter__(self) -> HostsCapture:
        try:
            for host in self.hosts:
                host.report = self._tell
                try:
                    host.start(self._request())
                except ProbeError as error:
                    self._gone(host, str(error))
                    continue
                self._live.append(host)
                self._register(host)
            while self._live and not all(host.attached for host in self._live):
                for fd in self._dispatch(self._poll.poll(1000)):
                    self._read(fd)
                self._drop_ended()
                if self._stopped:
                    break
            if not self._live:
                raise ProbeError("\n".join(self._problems))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _request(self) -> Request:
        settings = dataclasses.replace(self._settings, capturers=self._capturers)
        return Request(settings, self._paused, changes=True)

    def _register(self, host: Connection) -> None:
        self._by_fd[host.reports_from] = host, host.read_reports
        if host.blocks_open:
            self._by_fd[host.blocks_from] = host, host.read_blocks
            self._poll.register(host.blocks_from, select.POLLIN)
        self._poll.register(host.reports_from, select.POLLIN)

    def _read(self, fd: int) -> None:
        host, read = self._by_fd[fd]
        read()
        is_open = host.reports_open if read == host.read_reports else host.blocks_open
        if not is_open:
            self._poll.unregister(fd)
            del self._by_fd[fd]

    def _drop_ended(self) -> None:
        for host in [one for one in self._live if not one.open]:
            self._live.remove(host)
            while host.changes:
                host.changes.popleft()("")
            for fd in [fd for fd, (one, _) in self._by_fd.items() if one is host]:
                self._poll.unregister(fd)
                del self._by_fd[fd]
            if not host.went_well:
                self._gone(host, host.why())
            elif host.ended and not self._stopped:
                self._gone(
                    host,
                    f"The capture on {host.way.name} was ended there, by somebody or because the connection"
                    " was silent for too long; everything received is kept.",
                )

    def _gone(self, host: Connection, why: str) -> None:
        if self._stopped and host.attached:
            return
        self._problems.append(why)
        if len(self.hosts) > 1:
            self._tell(why)

    def _tell(self, sentence: str) -> None:
        self.feedback_found(sentence)  # which the toolbar sets later

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.stop()
        for host in self.hosts:
            host.close()
        self._close()

    @property
    def names(self) -> list[str]:
        """The hosts on which something is captured."""
        return [host.way.name for host in self.hosts if host.attached]

    @property
    def attached(self) -> str:
        """How the probes are attached, host by host."""
        found = {host.attached for host in self.hosts if host.attached}
        return ", ".join(sorted(found)) or "?"

    @property
    def unattached(self) -> list[str]:
        """What is unknown on which host, and how its clock stands."""
        sentences = [f"{host.way.name}: {text}" for host in self.hosts for text in host.unattached]
        clocks = [f"Note: {host.clock_text}." for host in self.hosts if host.clock_text]
        return self._untold + sentences + clocks

    @property
    def statistics(self) -> Statistics:
        """What the hosts have reported, added."""
        total = Statistics()
        for host in self.hosts:
            total.messages += host.statistics.messages
            total.lost_messages += host.statistics.lost
            total.lost_events += host.statistics.lost_events
            if host.statistics.skipped is None:
                total.skipped = None
        return total

    def pause(self, paused: bool) -> None:
        """As Capture.pause."""
        self._paused = paused
        self._send(lambda _: None)

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        """As Capture.replace, on each host."""
        before, self._settings = self._settings, settings

        def answered(problem: str) -> None:
            if problem:
                self._settings = before
            done(problem)

        self._send(answered)

    def _send(self, done: Callable[[str], None]) -> None:
        """Send the settings to all hosts; call ``done`` once all have answered."""
        open_answers = len(self._live)
        problems: list[str] = []

        def answered(problem: str) -> None:
            nonlocal open_answers
            open_answers -= 1
            problems.append(problem)
            if not open_answers:
                done(" ".join(filter(None, problems)))

        for host in self._live:
            try:
                host.send(self._request())
            except RequestError as error:
                done(str(error))
                return
            host.changes.append(answered)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """As Capture.blocks.  Raises ProbeError once the last host is gone by itself."""
        asked_to_stop = False
        while self._live:
            if self._stopped and not asked_to_stop:
                asked_to_stop = True
                for host in self._live:
                    host.stop()
            for fd in self._dispatch(self._poll.poll(self._timeout())):
                self._read(fd)
            self._drop_ended()
            if batch := self._merged():
                yield batch
        if last := [*self._merged(), *self._last_statistics()]:
            yield last
        if self._problems and not self._stopped:
            raise ProbeError(self._problems[-1] if len(self.hosts) == 1 else "No host is left.")

    def _last_statistics(self) -> list[Block]:
        if self.writes_output:
            return []
        return [
            host.statistics_block("its own statistics did not come")
            for host in self.hosts
            if host.attached and not host.has_statistics
        ]

    def _timeout(self) -> float:
        """Return the milliseconds until the record that waits longest no longer has to."""
        came = [host.waiting[0][1] for host in self.hosts if host.waiting]
        if not came:
            return 1000
        return max(0.0, min(1.0, min(came) + MERGE_WAIT_S - time.monotonic())) * 1000 + 1

    def _merged(self) -> list[Block]:
        """Return what waits in the order of time, as far as no host may still send something earlier.

        A host that sends nothing is waited for ``MERGE_WAIT_S`` at most.
        """
        if len(self.hosts) == 1:
            (host,) = self.hosts
            batch: list[Block] = [block for _, _, block in host.waiting]
            host.waiting.clear()
            return batch
        batch = []
        now = time.monotonic()
        while full := [host for host in self.hosts if host.waiting]:
            first = min(full, key=lambda host: host.waiting[0][0])
            _, came, block = first.waiting[0]
            silent = any(host.blocks_open and not host.waiting for host in self._live)
            if silent and now - came < MERGE_WAIT_S and not self._stopped:
                break
            batch.append(block)
            first.waiting.popleft()
        return batch
