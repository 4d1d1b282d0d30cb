"""The probe in the kernel: what it needs, its maps and programs, and the filter that holds."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux.cgroups import cgroup_of
from unixsock_bpf.linux.memory_order import needed_barrier
from unixsock_bpf.linux.pid_namespace import pid_namespace
from unixsock_bpf.probe import hook_programs, kernel
from unixsock_bpf.probe.fd_kinds import PSEUDO_FILES
from unixsock_bpf.probe.filter_maps import FilterMaps
from unixsock_bpf.probe.hook_table import URGENT, Purpose
from unixsock_bpf.probe.maps import Map, memory
from unixsock_bpf.probe.page_bases import BASES, addresses, page_bases
from unixsock_bpf.probe.program_set import ProgramSet
from unixsock_bpf.probe.refusals import kprobes_refused
from unixsock_bpf.probe.self_test import Proof, proofs
from unixsock_bpf.record import Event, Record

if TYPE_CHECKING:
    from unixsock_bpf.linux.cgroups import Group
    from unixsock_bpf.linux.sockets import Owner
    from unixsock_bpf.options import Settings


class Probe:
    """The loaded and attached probe.  Raises ProbeError if that can't be done here.

    ``attached`` is ``fentry`` or ``kprobe``; the environment variable UNIXSOCK_ATTACH
    forces one of them.
    """

    def __init__(self, settings: Settings) -> None:
        self._kernel = kernel.kernel()
        refused = kprobes_refused()
        if refused:
            raise ProbeError(refused)
        self._programs: ProgramSet
        self._barrier = needed_barrier()
        #: ``struct settings`` and ``struct totals`` of bpf/state/, in memory that the probe shares.
        self.settings: Any
        self.totals: Any
        #: What the self-test sent, and what the hooks saw of it.
        self.proofs: list[Proof] = []
        self.attached = self._attach(settings)
        self.settings.pid_namespace = pid_namespace()
        # The top bit keeps each id that is made from it from being 0.
        self.settings.first_id = 1 << 63 | int.from_bytes(os.urandom(7), "little")
        self._filter_maps = FilterMaps(self._table("filters"), self._table("filter_lanes"))
        self._generation = 0
        self._fixed = _fixed(settings)
        self.switch(self.prepare(settings))
        self._fill_page_bases()
        self._fill_pseudo_files()

    def _attach(self, settings: Settings) -> str:
        """Attach programs in the best way in which they work on this kernel; return that way."""
        failures = []
        for way, sessions in self._ways():
            programs = None
            plan = hook_programs.plan(self._kernel, way, sessions)
            try:
                self._programs = programs = ProgramSet(settings, self._kernel, plan)
                programs.attach()
                self.settings, self.totals = self._shared("settings"), self._shared("totals")
                self._count_skipped = programs.skipped
                self._prove(plan)
                return way
            except ProbeError as error:
                kind = way if sessions or not self._kernel.has_sessions else f"{way} without kprobe.session"
                failures.append(f"{kind}: {error}")
                if programs:  # some of it may be attached
                    programs.detach()
                    programs.close()
        raise ProbeError("The probe does not work on this kernel. " + "; ".join(failures))

    def _ways(self) -> list[tuple[str, bool]]:
        """Return the ways of attaching, the best first: fentry or kprobe, and whether with kprobe.session."""
        wanted = os.environ.get("UNIXSOCK_ATTACH")
        ways = (wanted,) if wanted in ("fentry", "kprobe") else self._kernel.ways
        if not self._kernel.has_sessions:
            return [(way, False) for way in ways]
        return [(way, True) for way in ways] + [(ways[-1], False)]

    def _prove(self, plan: hook_programs.Plan) -> None:
        """Send through own sockets.  Raises ProbeError, naming the function whose hook does not see it."""

        def announce(inode: int) -> None:
            self.settings.prover = inode

        hooks = [one.hook for one in plan.placed if one.hook.purpose is Purpose.MESSAGE]
        urgent = any(URGENT in hook.proves for hook in hooks)
        self.proofs = list(proofs(announce, lambda: int(self.totals.proved), urgent))
        for proof in self.proofs:
            if not proof.holds:
                named = [hook.function for hook in hooks if proof.way in hook.proves]
                named = named or [hook.function for hook in hooks if not hook.proves]
                raise ProbeError(
                    f"the hook on {named[0]} saw {proof.seen} of {proof.sent} bytes that the probe itself "
                    f"sent ({proof.way})"
                )

    def prepare(self, settings: Settings) -> int:
        """Fill in another filter, for ``switch``, and attach hooks if it is the first to want events.

        All else that is in ``settings`` stays as it was.  Raises ProbeError.
        """
        if _fixed(settings) != self._fixed:
            raise ProbeError("Nothing but the filter and its events can change while a capture runs.")
        if settings.events:
            self._programs.load_events()
            self._programs.attach()
        generation = self._generation + 1
        self._filter_maps.fill(generation, settings.filter, settings.events)
        return generation

    def switch(self, generation: int) -> None:
        """Have the prepared filter hold: each message goes by the old filter or the new one, once."""
        if self._barrier:  # nothing may see the number before the filter
            self._barrier()
        self.settings.generation = self._generation = generation

    def _shared(self, name: str) -> Any:
        """Map the only element of a mmapable array: its members are the kernel's memory."""
        table = self._table(name)
        size = -(-ctypes.sizeof(table.Leaf) // mmap.PAGESIZE) * mmap.PAGESIZE
        return table.Leaf.from_buffer(mmap.mmap(table.fd, size, flags=mmap.MAP_SHARED))

    def _table(self, name: str) -> Map:
        return self._programs.maps[name]

    def detach_listing(self) -> None:
        """Detach what is only needed while the reader lists the sockets that exist already."""
        self._programs.detach_listing()

    def detach_messages(self) -> None:
        """Detach the hooks that write records of messages and events."""
        self._programs.detach_messages()

    def close(self) -> None:
        """Detach all hooks and free the programs and maps; counts that were read from them stay."""
        self._programs.detach()
        skipped = self._programs.skipped()
        self._count_skipped = lambda: skipped
        self._programs.close()

    def skipped(self) -> int | None:
        """Return how many messages at most the hooks missed; None where the kernel does not tell."""
        count = self._count_skipped()
        return None if count is None else count + int(self.totals.skipped_returns)

    @property
    def unattached(self) -> list[str]:
        """A sentence for each hook that is not attached, with what is unknown without it."""
        return self._programs.unattached

    def countable(self) -> set[int]:
        """Return the descriptors that ``skipped`` needs open."""
        return self._programs.countable()

    @property
    def ring_fd(self) -> int:
        """The ring buffer's file descriptor."""
        return self._table("ring").fd

    @property
    def ring_size(self) -> int:
        """The ring buffer's bytes."""
        return self._table("ring").shape.max_entries

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory its maps take, without the ring."""
        maps = self._programs.maps
        return sum(memory(table.shape) for name, table in maps.items() if name != "ring")

    def fill_holders(self, owners: dict[int, Owner], groups: dict[bytes, Group]) -> None:
        """Write which process holds which socket (by inode) already."""
        table = self._table("holders")
        ids = {pid: _cgroup_id(pid, groups) for pid in {owner.tgid for owner in owners.values()}}
        for inode, owner in list(owners.items())[: table.shape.max_entries]:
            leaf = table.Leaf()
            leaf.pid, leaf.uid, leaf.gid = owner.tgid, owner.uid, owner.gid
            leaf.cgroup = ids[owner.tgid]
            comm = owner.comm[:15]
            leaf.comm_len = len(comm)
            leaf.comm[: len(comm)] = comm
            table[table.Key(inode)] = leaf

    def fill_groups(self, groups: dict[bytes, Group]) -> None:
        """Write the existing cgroups and their paths."""
        table = self._table("cgroups")
        for path, group in list(groups.items())[: table.shape.max_entries // 2]:  # others will be made
            leaf = table.Leaf()
            if group.from_root and len(group.ids) <= len(leaf.ids):
                leaf.ids[: len(group.ids)] = group.ids
                leaf.known = 1
            if len(path) < len(leaf.path):
                leaf.len = len(path)
                leaf.path[: len(path)] = path
            table[table.Key(group.ids[-1])] = leaf

    def _fill_page_bases(self) -> None:
        """Write where the memory of pages is, from the fastest source.

        These are addresses that it reads from, so that nothing can change them any more then: neither this
        process, which may be confined and belong to an unprivileged user next, nor a bug in it.
        """
        table = self._table("page_bases")
        leaf = table.Leaf()
        values = page_bases(self._kernel.macros["STRUCT_PAGE_SIZE"])
        found = values or addresses(BASES)
        if all(found.get(name) for name in BASES):
            for name in BASES:  # page_offset_base is the variable's address, page_offset its value
                setattr(leaf, name.removesuffix("_base") if values else name, found[name])
            table[table.Key(0)] = leaf
        table.freeze()

    def _fill_pseudo_files(self) -> None:
        table = self._table("pseudo_files")
        for (magic, name), kind in PSEUDO_FILES.items():
            key = table.Key(magic)
            key.name[: len(name)] = name
            table[key] = table.Leaf(kind)

    def fill_capturers(self, pids: set[int]) -> None:
        """Write the processes whose messages to leave out."""
        table = self._table("capturers")
        for pid in pids:
            table[table.Key(pid)] = table.Leaf(1)

    @property
    def maps_can_be_read(self) -> bool:
        """Whether this process, which may have given up privileges, may still read maps."""
        try:
            table = self._table("settings")
            table[table.Key(0)]
        except KeyError:
            return False
        return True

    def pending_losses(self) -> list[Record]:
        """Return losses in directions that no record followed, as records of event LOST."""
        sockets = {
            leaf.id: leaf for table in ("endpoints", "orphans") for leaf in self._table(table).values()
        }
        owed = [
            _lost_record(leaf.flow, leaf, sockets.get(leaf.peer_id), leaf.peer_id)
            for leaf in sockets.values()
            if leaf.flow.lost_messages
        ]
        for pair, flow in self._table("flows").items():
            if flow.lost_messages and pair.src in sockets:
                owed.append(_lost_record(flow, sockets[pair.src], sockets.get(pair.dst), pair.dst))
        return owed


def _fixed(settings: Settings) -> tuple[int, bool]:
    """Return what the programs and the map of capturers are made for."""
    return settings.snaplen, settings.include_capture_processes


def _cgroup_id(pid: int, groups: dict[bytes, Group]) -> int:
    """Return the cgroup of a process; 0 if unknown."""
    group = groups.get(cgroup_of(pid))
    return group.ids[-1] if group else 0


#: How a process uses a socket, and the one that is known as well as the other: bpf/state/state.h.
_WRITER, _READER = 0, 1


def _user(endpoint: Any, use: int) -> Any:
    """Who uses a socket, as find_user in bpf/state/endpoint.h."""
    wanted, other = endpoint.users[use], endpoint.users[1 - use]
    return wanted if wanted.owner >= other.owner else other


def _lost_record(flow: Any, src: Any, dst: Any, dst_id: int) -> Record:
    """Return a record of a flow's pending losses, as far as the probe remembers both endpoints."""
    writer = _user(src, _WRITER)
    record = Record(
        event=Event.LOST,
        type=src.type,
        src_sock=src.id,
        dst_sock=dst_id,
        src_pid=writer.pid,
        src_inode=src.inode,
        src_comm=bytes(writer.comm[: writer.comm_len]),
        src_name=bytes(src.name[: src.name_len]),
        seq=flow.lost_at,
        message=flow.lost_message,
        lost=(flow.lost_messages, flow.lost_bytes, flow.lost_reasons),
    )
    if dst is not None:
        reader = _user(dst, _READER)
        record.dst_pid, record.dst_inode = reader.pid, dst.inode
        record.dst_comm = bytes(reader.comm[: reader.comm_len])
        record.dst_name = bytes(dst.name[: dst.name_len])
    return record
