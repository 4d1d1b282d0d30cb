"""The capture filter: which messages are worth recording.

``parse`` takes the text that a user wrote (docs/filter.md) and gives a ``Filter``,
which can judge records in Python, and can say the same in C for the probe.

The C, by ``Filter.to_c()``, defines these, ``static __always_inline``::

    struct filter_work
        Memory that the two with a parameter ``work`` need, in a map.
    u64 filter_name_atoms(const u8 *name, u32 len, struct filter_work *work)
        Bits of the path terms that match a bound name of len <= 108 bytes in a buffer
        of at least 108; NULs in it count as @, as people write them.  Not needed for
        unnamed sockets.  A relative name's absolute path, where it is known, may be
        given in a second call; "or" the results.
    u64 filter_socket_atoms(u64 inode, u32 netns)
        Bits of inode and netns terms, and of "path *", in the same word.  "Or" both into one.
    u64 filter_owner_atoms(u32 tgid, u32 uid, const u8 *comm, const u64 *cgroups, struct filter_work *work)
        Bits of pid, uid, comm (16 bytes, zero padded) and cgroup terms, in a second word.
        cgroups: ids of the cgroup that the process is in and of those above it, by their
        level (0: the root), FILTER_CGROUP_LEVELS of them; 0 where there is none.
    u32 filter_sockets(u64 src, u64 dst, u32 type, u32 src_named_final, u32 dst_named_final)
        From two socket words and the type: 0 no message between them matches, 1 each
        does, 2 it depends.  "Final" (not 0) means that no more bits can come to that word.
        Bits never go.  The inode of a socket comes late; FILTER_ASKS_INODES is defined if
        that makes a difference.
    u32 filter_message(u64 src, u64 src_owner, u64 dst, u64 dst_owner, u32 type, u32 event,
                       u32 len, u32 fds, u32 creds)
        1 if the message matches, else 0.  The owner's word is 0 where it isn't known.

If ``Filter.tables`` isn't empty, the C also declares the array map ``filter_tables``, whose
only element has to be set to those bytes before the probe is attached.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unixsock_bpf.filter import evaluate
from unixsock_bpf.filter.ast import EVERYTHING, And, Node, join, terms
from unixsock_bpf.filter.codegen import Program
from unixsock_bpf.filter.errors import FilterError, FilterUnavailable
from unixsock_bpf.filter.evaluate import End
from unixsock_bpf.filter.parser import parse as _parse
from unixsock_bpf.record import Event, Record

__all__ = ["End", "Filter", "FilterError", "FilterUnavailable", "everything", "parse"]


@dataclass(frozen=True)
class Filter:
    """A filter that was checked and can be compiled.  Raises FilterError if it is too large for that."""

    text: str
    root: Node
    _program: Program = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_program", Program(self.root))

    @property
    def takes_everything(self) -> bool:
        """Whether this is the empty filter."""
        return self.root == EVERYTHING

    @property
    def asks_for_events(self) -> bool:
        """Whether it asks for records other than data: ``event connect``, but not ``not event close``."""
        return any(
            term.name == "event" and (term.value == Event.DATA) == negated
            for term, negated in terms(self.root)
        )

    @property
    def tables(self) -> bytes:
        """The element of map ``filter_tables``; empty if the C declares no such map."""
        return self._program.tables

    def to_c(self) -> str:
        """The C functions listed above."""
        return self._program.c()

    def matches(self, record: Record) -> bool:
        """Whether the filter takes ``record``, as far as the record tells."""
        return evaluate.matches(self.root, record)

    def judge(self, one: End, other: End, kind: int) -> bool | None:
        """Whether it takes messages between two sockets of type ``kind``; None: that depends."""
        return evaluate.judge(self.root, one, other, kind)

    def __and__(self, other: Filter) -> Filter:
        """The filter that takes what both take."""
        texts = [text.strip() for text in (self.text, other.text) if text.strip()]
        text = " and ".join(f"({text})" for text in texts) if len(texts) > 1 else "".join(texts)
        return Filter(text, join(And, [self.root, other.root]))


def parse(text: str) -> Filter:
    """The filter that ``text`` describes.  Raises FilterError, which says where and why not."""
    return Filter(text, _parse(text))


def everything() -> Filter:
    """The filter that takes everything."""
    return Filter("", EVERYTHING)
