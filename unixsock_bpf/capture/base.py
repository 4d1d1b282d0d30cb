"""What a live capture offers, whether this process captures or the privileged helper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from unixsock_bpf.formats.pcapng import Block
    from unixsock_bpf.options import Settings


@dataclass
class Statistics:
    """Messages and bytes that matched, and how many of them were lost (``struct totals`` in bpf/state/)."""

    messages: int = 0
    bytes: int = 0
    lost_messages: int = 0
    lost_bytes: int = 0
    truncated: int = 0
    untracked: int = 0  # for want of room for their socket, or on a processor that came later
    lost_events: int = 0
    skipped: int | None = 0  # at most; None: unknown (probe/program_set.py)

    @property
    def lost(self) -> int:
        """Messages that could not be captured, for any reason."""
        return self.lost_messages + self.untracked + (self.skipped or 0)

    @property
    def lost_text(self) -> str:
        """Return how many messages and events were lost, and whether that is all that is known."""
        plural = "" if self.lost_events == 1 else "s"
        events = f", and {self.lost_events} event{plural}" if self.lost_events else ""
        unknown = "; how many the hooks missed is unknown, since this kernel does not count them"
        return f"{self.lost} lost{events}{unknown if self.skipped is None else ''}"

    def report(self) -> dict[str, Any]:
        """Return the value of a report "ended" (privilege/protocol.py)."""
        events = {"events": self.lost_events} if self.lost_events else {}
        unknown = {"unknown": True} if self.skipped is None else {}
        return {"messages": self.messages, "lost": self.lost, **events, **unknown}

    @classmethod
    def of_report(cls, value: dict[str, Any]) -> Statistics:
        """Return what such a report says."""
        return cls(
            messages=value["messages"],
            lost_messages=value["lost"],
            lost_events=value.get("events", 0),
            skipped=None if value.get("unknown") else 0,
        )


class CaptureSource(Protocol):
    """A capture from ``with`` to ``stop``: ``Capture``, or ``RemoteCapture`` for an unprivileged user.

    Entering raises ProbeError where capturing is not possible.
    """

    #: Called about once a second while ``blocks`` waits.
    each_second: Callable[[], None] | None

    #: The processes that are left out because they belong to the capture, as ``comm[pid]``.
    left_out: Sequence[str]
    #: Called with a sentence when a conversation is left out because it repeats the output, or no longer.
    feedback_found: Callable[[str], None]

    def __enter__(self) -> Any: ...
    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...

    @property
    def attached(self) -> str:
        """How the probe is attached: ``fentry`` or ``kprobe``."""

    @property
    def proofs(self) -> list[str]:
        """What the probe sent through sockets of its own before the capture, and its hooks saw."""

    @property
    def unattached(self) -> list[str]:
        """A sentence for each hook that is not attached, with what is unknown without it."""

    @property
    def statistics(self) -> Statistics:
        """Messages and bytes seen and lost so far."""

    @property
    def writes_output(self) -> bool:
        """Whether blocks go straight to the output; then ``blocks`` yields none."""

    @property
    def filling(self) -> bool:
        """Whether the ring fills up: messages may soon be lost."""

    def blocks(self) -> Iterator[Sequence[Block]]:
        """Yield batches of pcapng blocks until ``stop``.  A batch is valid until the next is asked for."""

    def stop(self) -> None:
        """Stop: ``blocks`` ends after everything captured so far.  Safe in a signal handler."""

    def pause(self, paused: bool) -> None:
        """Capture nothing until called with False."""

    def replace(self, settings: Settings, done: Callable[[str], None]) -> None:
        """Go on with other settings; ``done`` gets an empty text once they hold, or why they cannot."""

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback`` with poll's events of ``fd`` while ``blocks`` waits."""

    def unwatch(self, fd: int) -> None:
        """Undo ``watch``, if that has not been undone."""
