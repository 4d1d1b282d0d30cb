"""The capture filter: which messages are worth recording.

``parse`` takes the text that a user wrote (docs/filter.md) and gives a ``Filter``, which can judge records
in Python, and is data for the probe: ``head`` and ``lanes``, which bpf/filter/interpreter.h evaluates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unixsock_bpf.filter import cgroups, evaluate
from unixsock_bpf.filter.ast import EVERYTHING, And, Cgroup, Groups, Node, join, replaced, terms
from unixsock_bpf.filter.encode import Encoded
from unixsock_bpf.filter.endpoint import Endpoint
from unixsock_bpf.filter.errors import FilterError, FilterUnavailable
from unixsock_bpf.filter.parser import parse as _parse
from unixsock_bpf.record import Event, Record

__all__ = ["Endpoint", "Filter", "FilterError", "FilterUnavailable", "everything", "parse"]


@dataclass(frozen=True)
class Filter:
    """A checked filter.  Raises FilterError if it is too large for the kernel's tables."""

    text: str
    root: Node
    _encoded: Encoded = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoded", Encoded(self.root))

    @property
    def takes_everything(self) -> bool:
        """Whether this is the empty filter."""
        return self.root == EVERYTHING

    @property
    def asks_for_events(self) -> bool:
        """Whether the filter asks for more than data: ``event close``, but not ``not event close``."""
        return any(
            term.name == "event" and (term.value == Event.DATA) == negated
            for term, negated in terms(self.root)
        )

    @property
    def asks_for_cgroups(self) -> bool:
        """Whether the filter has terms about cgroups, which come and go while a capture runs."""
        return any(isinstance(term.value, (Cgroup, Groups)) for term, _ in terms(self.root))

    def renewed(self) -> Filter:
        """Return the filter with the cgroups that exist now.  Raises FilterError."""
        if not self.asks_for_cgroups:
            return self
        root = replaced(self.root, cgroups.Lookup().renewed)
        return self if root == self.root else Filter(self.text, root)

    def head(self, events: bool) -> bytes:
        """Build a ``struct filter``; ``events``: whether records other than data and close are wanted."""
        return self._encoded.head(events)

    @property
    def lanes(self) -> list[bytes]:
        """The automata's lanes, each a ``struct filter_lane``."""
        return self._encoded.lanes

    def matches(self, record: Record) -> bool:
        """Return whether the filter takes ``record``, as far as the record has what it asks for."""
        return evaluate.matches(self.root, record)

    def judge(self, one: Endpoint, other: Endpoint, kind: int) -> bool | None:
        """Return whether it takes messages between two sockets of type ``kind``; None: it depends."""
        return evaluate.judge(self.root, one, other, kind)

    def __and__(self, other: Filter) -> Filter:
        """Join two filters: the result takes what both take."""
        texts = [text.strip() for text in (self.text, other.text) if text.strip()]
        text = " and ".join(f"({text})" for text in texts) if len(texts) > 1 else "".join(texts)
        return Filter(text, join(And, [self.root, other.root]))


def parse(text: str) -> Filter:
    """Parse ``text``.  Raises FilterError, which names the fault and its position."""
    return Filter(text, _parse(text))


def everything() -> Filter:
    """Return the filter that takes everything."""
    return Filter("", EVERYTHING)
