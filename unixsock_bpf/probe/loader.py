"""Compiling, loading and attaching the probe through bcc."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unixsock_bpf.probe import layout
from unixsock_bpf.probe.btf import Btf, BtfError
from unixsock_bpf.record import Event, Record

if TYPE_CHECKING:
    from unixsock_bpf.options import Settings

_HERE = Path(__file__).parent

#: Sockets whose state the probe keeps at a time, and processes in the snapshot of socket holders.
MAX_SOCKETS = 65_536
MAX_HOLDERS = 65_536

#: EP_CAPTURER in probe/state.h.
CAPTURER = 1 << 2

_NOT_PERMITTED = (
    "This kernel does not permit BPF tracing, even to root: kernel lockdown, a security module or a "
    "container forbids it. Capture on the host rather than in a container, or boot without "
    "lockdown=confidentiality."
)


class ProbeError(Exception):
    """The probe can't run here; the message is one sentence with its remedy."""


def _tracing_refused() -> str | None:
    """Why this kernel would refuse the probe, if it says so."""
    if os.geteuid() != 0:
        return (
            "Capturing Unix sockets needs root: run Wireshark or tshark with sudo, "
            "or see 'unixsock install --help' for capturing as an ordinary user."
        )
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return (
            "This kernel has no BTF (/sys/kernel/btf/vmlinux), from which the probe learns its layouts: "
            "use a kernel built with CONFIG_DEBUG_INFO_BTF, as all current distributions' are."
        )
    with contextlib.suppress(OSError):
        if "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text():
            return (
                "Kernel lockdown is in confidentiality mode, which forbids tracing: "
                "boot without lockdown=confidentiality to capture."
            )
    return None


def _kernel_symbols(names: tuple[str, ...]) -> dict[str, int]:
    """Addresses of kernel variables; without those that kallsyms lacks or hides."""
    table = Path("/proc/kallsyms").read_bytes()
    found = {}
    for name in names:
        at = table.find(b" " + name.encode() + b"\n")
        if at >= 0:
            line = table[table.rfind(b"\n", 0, at) + 1 : at]
            address = int(line.split()[0], 16)
            if address:
                found[name] = address
    return found


def _source(name: str) -> str:
    """A C file with our own headers in place: bcc translates map calls in the main file only."""
    lines = (_HERE / name).read_text().splitlines(keepends=True)
    return "".join(_source(line.split('"')[1]) if line.startswith('#include "') else line for line in lines)


@contextlib.contextmanager
def _stderr_kept() -> Iterator[list[str]]:
    """Keeps what libbcc and libbpf write to stderr, which Wireshark would show as an error.

    LLVM ends the whole process when it gives up; a child that waits for that says why.
    """
    said: list[str] = []
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        alive, done = os.pipe()
        watcher = os.fork()
        if watcher == 0:
            os.close(done)
            finished = os.read(alive, 1)
            kept.seek(0)
            if not finished and (reason := kept.read().decode(errors="replace").strip()):
                os.write(saved, f"The capture filter can't be compiled: {reason[-300:]}\n".encode())
            os._exit(0)
        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.write(done, b"k")
            os.close(done)
            os.close(alive)
            os.waitpid(watcher, 0)
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            said.append(kept.read().decode(errors="replace"))


class Probe:
    """The loaded and attached probe.  Raises ProbeError if that can't be done here.

    ``attached`` is ``fentry`` or ``kprobe``; the environment variable UNIXSOCK_ATTACH
    forces one of them.
    """

    def __init__(self, settings: Settings) -> None:
        refused = _tracing_refused()
        if refused:
            raise ProbeError(refused)
        try:
            os.environ["BCC_KERNEL_SOURCE"] = str(_HERE / "kernel")
            import bcc
        except ImportError as error:
            raise ProbeError(
                f"The Python package bcc is missing ({error}): install python3-bpfcc (Debian, Ubuntu) "
                "or python3-bcc (Fedora, openSUSE, Arch: python-bcc)."
            ) from None
        self._bcc: Any = bcc
        flags = self._flags(settings)
        text = "#include <linux/types.h>\n" + settings.filter.to_c() + _source("probe.c")
        wanted = os.environ.get("UNIXSOCK_ATTACH", "auto")
        ways = ["fentry", "kprobe"] if wanted == "auto" else [wanted]
        failures = []
        for way in ways:
            try:
                self.bpf = self._load(text, [*flags, "-DATTACH_FENTRY"] if way == "fentry" else flags)
                self.attached = way
                break
            except ProbeError as error:
                failures.append(f"{way}: {error}")
        else:
            if all("Operation not permitted" in failure for failure in failures[:1]):
                raise ProbeError(_NOT_PERMITTED)
            raise ProbeError("The kernel refused the probe: " + "; ".join(failures))
        tables = getattr(settings.filter, "tables", b"")
        if tables:
            self._fill(self.bpf["filter_tables"], tables)
        self.settings = self._map("settings", mmap.PROT_READ | mmap.PROT_WRITE)
        self.totals = self._map("totals", mmap.PROT_READ)

    def _flags(self, settings: Settings) -> list[str]:
        """Compiler flags: layouts, hooks, sizes."""
        try:
            macros = layout.macros(Btf())
        except BtfError as error:
            raise ProbeError(f"This kernel can't be traced: {error}.") from None
        symbols = _kernel_symbols(("page_offset_base", "vmemmap_base"))
        if len(symbols) == 2:
            macros["PAGE_OFFSET_BASE"] = symbols["page_offset_base"]
            macros["VMEMMAP_BASE"] = symbols["vmemmap_base"]
        page = mmap.PAGESIZE
        macros |= {
            "PAGE_SIZE": page,
            "RING_PAGES": max(1, 1 << (settings.buffer_mib * 2**20 // page - 1).bit_length()),
            "CPUS": len(self._bcc.utils.get_possible_cpus()),
            "MAX_SOCKETS": MAX_SOCKETS,
            "MAX_HOLDERS": MAX_HOLDERS,
            "SNAPLEN": settings.snaplen or 0x7FFFFFFF,
        }
        if settings.events:
            macros["WITH_EVENTS"] = 1
        if settings.include_capture_processes:
            macros["WITH_CAPTURERS"] = 1
        flags = [f"-D{macro}={value}{'ULL' if value > 0xFFFFFFFF else ''}" for macro, value in macros.items()]
        return [*flags, "-Wno-unused-function", "-Wno-unused-label"]

    def _load(self, text: str, flags: list[str]) -> Any:
        with _stderr_kept() as said:
            try:
                return self._bcc.BPF(
                    text=text.encode(), cflags=flags, debug=int(os.environ.get("UNIXSOCK_DEBUG", "0")) & ~1
                )
            except Exception as error:
                failure = str(error)
        if os.environ.get("UNIXSOCK_DEBUG"):
            os.write(2, said[0].encode())
        detail = [line for line in said[0].splitlines() if line.strip()]
        raise ProbeError(f"{failure} ({detail[-1].strip()[:200]})" if detail else failure)

    def _map(self, name: str, protection: int) -> memoryview[int]:
        """A mmapable array's memory as u64s."""
        table = self.bpf[name]
        size = -(-ctypes.sizeof(table.Leaf) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(table.map_fd, size, flags=mmap.MAP_SHARED, prot=protection)
        return memoryview(memory).cast("Q")

    @staticmethod
    def _fill(table: Any, data: bytes) -> None:
        table[0] = table.Leaf.from_buffer_copy(data.ljust(ctypes.sizeof(table.Leaf), b"\0"))

    def detach(self) -> None:
        """Takes the hooks out; the maps stay until the object goes."""
        for name in list(self.bpf.kfunc_entry_fds):
            self.bpf.detach_kfunc(name)
        for name in list(self.bpf.kfunc_exit_fds):
            self.bpf.detach_kretfunc(name)
        for event in list(self.bpf.kprobe_fds):
            self.bpf.detach_kprobe_event(event)

    @property
    def ring_fd(self) -> int:
        """The ring buffer's file descriptor."""
        return int(self.bpf["ring"].map_fd)

    @property
    def ring_size(self) -> int:
        """The ring buffer's bytes."""
        return int(self.bpf["ring"].max_entries)

    def fill_holders(self, owners: dict[int, Any]) -> None:
        """Tells the probe which process holds which socket (by inode) already."""
        table = self.bpf["holders"]
        for inode, owner in list(owners.items())[:MAX_HOLDERS]:
            leaf = table.Leaf()
            leaf.pid, leaf.uid, leaf.gid = owner.tgid, owner.uid, owner.gid
            comm = owner.comm[:15]
            leaf.comm_len = len(comm)
            leaf.comm[: len(comm)] = comm
            table[table.Key(inode)] = leaf

    def fill_capturers(self, pids: set[int]) -> None:
        """Tells the probe whose messages to leave out."""
        table = self.bpf["capturers"]
        for pid in pids:
            table[table.Key(pid)] = table.Leaf(CAPTURER)

    def pending_losses(self) -> list[Record]:
        """Losses in directions that no record followed, as records of event LOST."""
        sockets = {leaf.id: leaf for table in ("endpoints", "orphans") for leaf in self.bpf[table].values()}
        owed = [
            _lost_record(leaf.flow, leaf, sockets.get(leaf.peer_id), leaf.peer_id)
            for leaf in sockets.values()
            if leaf.flow.lost_messages
        ]
        for pair, flow in self.bpf["flows"].items():
            if flow.lost_messages and pair.src in sockets:
                owed.append(_lost_record(flow, sockets[pair.src], sockets.get(pair.dst), pair.dst))
        return owed


def _lost_record(flow: Any, src: Any, dst: Any, dst_id: int) -> Record:
    """What a flow still owes, as far as the probe remembers both ends."""
    record = Record(
        event=Event.LOST,
        type=src.type,
        src_sock=src.id,
        dst_sock=dst_id,
        src_pid=src.pid,
        src_inode=src.inode,
        src_comm=bytes(src.comm[: src.comm_len]),
        src_name=bytes(src.name[: src.name_len]),
        seq=flow.lost_at,
        message=flow.lost_message,
        lost=(flow.lost_messages, flow.lost_bytes, flow.lost_reasons),
    )
    if dst is not None:
        record.dst_pid, record.dst_inode = dst.pid, dst.inode
        record.dst_comm = bytes(dst.comm[: dst.comm_len])
        record.dst_name = bytes(dst.name[: dst.name_len])
    return record
