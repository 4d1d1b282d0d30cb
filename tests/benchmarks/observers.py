"""Who watches the traffic: this project as Wireshark runs it, and its peers at their own defaults."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import workloads
from benchmarks.workloads import HOME, SEEN

CHECKOUT = Path(__file__).parents[2]

#: Seconds that a start may take: peers that compile against kernel headers need minutes in a guest.
START = 600
#: Seconds without growth after which an output is complete; dumpcap writes twice a second.
QUIET = 0.8
#: Seconds that an observer gets to write what it has seen.
BACKLOG = 90
#: Messages that are not counted, enough to push the counted ones out of 8 kB of stdio buffer.
MARKS = 300


class ObserverError(Exception):
    """An observer that does not do its work: says why."""


class Observer:
    """Something that watches from ``start`` to ``stop`` and writes what it sees to ``output``."""

    #: Of the traffic it watches.
    family = "unix"
    #: Bytes of a message that it shows at most; 0: all.
    most = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.output = HOME / f"{name}.out"
        self.processes: list[subprocess.Popen[bytes]] = []
        #: Seconds from its start to the first message it showed.
        self.started = 0.0

    @property
    def wrap(self) -> Sequence[str]:
        """A command that runs the generator, for observers that do."""
        return ()

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """Command lines and additions to their environment, in the order of starting."""
        raise NotImplementedError

    def start(self) -> None:
        """Raises ObserverError unless it shows a message of ours after a while."""
        self.output.unlink(missing_ok=True)
        began = time.monotonic()
        self._log = (HOME / f"{self.name}.log").open("wb")
        for command, environment in self.commands():
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=os.environ | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                )
            )
        self._wait_ready(began)
        self.started = time.monotonic() - began

    def _wait_ready(self, began: float) -> None:
        while not self._shows_marks():
            if any(process.poll() is not None for process in self.processes):
                raise ObserverError(f"{self.name} ended: {self.said()[-600:]}")
            if time.monotonic() - began > START:
                raise ObserverError(f"{self.name} shows nothing: {self.said()[-600:]}")
            workloads.mark(self.family, 60)
            time.sleep(0.1)

    def _shows_marks(self) -> bool:
        with contextlib.suppress(OSError), self.output.open("rb") as file:
            return b"________" in file.read(1 << 16)
        return False

    def said(self) -> str:
        """What it wrote besides its output."""
        return (HOME / f"{self.name}.log").read_text(errors="replace")

    def settle(self) -> None:
        """Until it has written all that it saw."""
        workloads.mark(self.family, MARKS)
        end = time.monotonic() + BACKLOG
        size, since = -1, time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < QUIET:
            time.sleep(0.1)
            now = self.output.stat().st_size
            if now != size:
                size, since = now, time.monotonic()

    def position(self) -> int:
        """Where the output stands, for ``seen``."""
        return self.output.stat().st_size

    def seen(self, since: int, size: int) -> tuple[int, int]:
        """Messages and bytes, of messages of ``size`` bytes, that it wrote since ``position``."""
        begun, ended = workloads.count(self.output, since)
        if self.most and self.most < size:
            return begun, begun * self.most
        return begun, ended * size

    def cpu(self) -> float:
        """Seconds of CPU that its processes used so far."""
        return sum(_cpu_of_tree(process.pid) for process in self.processes)

    def idle_cpu(self) -> float:
        """The same of what listens, when there is nothing to hear."""
        return self.cpu()

    def stop(self) -> None:
        """Ends it, as a user would."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()
        self._log.close()

    def forget(self) -> None:
        """Removes its output, which lies in memory."""
        self.output.unlink(missing_ok=True)


class Ours(Observer):
    """The real path: the extcap, a fifo, and dumpcap writing the file."""

    def __init__(self, attach: str, terms: int = 1) -> None:
        super().__init__(attach)
        self._attach = attach
        self._fifo = HOME / "fifo"
        self._terms = terms

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        self._fifo.unlink(missing_ok=True)
        os.mkfifo(self._fifo)
        others = [f"/nowhere/{number}/*" for number in range(self._terms - 1)]
        chosen = " or ".join(f"path {path}" for path in [*others, f"{SEEN}*"])
        extcap = [str(CHECKOUT / "extcap" / "unixsock"), "--capture", "--extcap-interface", "unixsock"]
        return [
            (["dumpcap", "-q", "-i", str(self._fifo), "-w", str(self.output)], {}),
            (
                [*extcap, "--fifo", str(self._fifo), "--extcap-capture-filter", chosen],
                {"UNIXSOCK_ATTACH": self._attach},
            ),
        ]

    def idle_cpu(self) -> float:
        """Of the extcap: dumpcap looks at its file several times a second whoever feeds it."""
        return _cpu_of_tree(self.processes[1].pid)

    def stop(self) -> None:
        """As Wireshark does: the extcap first; dumpcap ends with the fifo."""
        dumpcap, extcap = self.processes
        extcap.terminate()
        extcap.wait(60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            dumpcap.wait(10)
        super().stop()


class Dump(Observer):
    """``unixsock dump -w``: no Wireshark is between the capture and the file."""

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        words = [sys.executable, "-c", "from unixsock_bpf.cli.main import main; raise SystemExit(main())"]
        return [([*words, "dump", "-w", str(self.output), "path", f"{SEEN}*"], {"PYTHONPATH": str(CHECKOUT)})]


class Tshark(Observer):
    """tshark, which starts the extcap and dumpcap itself and writes a file."""

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        extcaps = HOME / "extcaps"
        extcaps.mkdir(exist_ok=True)
        link = extcaps / "unixsock"
        link.unlink(missing_ok=True)
        link.symlink_to(CHECKOUT / "extcap" / "unixsock")
        words = ["tshark", "-q", "-i", "unixsock", "-f", f"path {SEEN}*", "-w", str(self.output)]
        return [(words, {"WIRESHARK_EXTCAP_DIR": str(extcaps)})]


class Tcpdump(Observer):
    """tcpdump with the same bytes over TCP."""

    family = "tcp"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        return [(["tcpdump", "-i", "lo", "-s", "0", "-Z", "root", "-w", str(self.output),
                  "tcp", "port", workloads.WATCHED["tcp"]], {})]  # fmt: skip

    def position(self) -> int:
        return workloads.segments(self.output)

    def seen(self, since: int, size: int) -> tuple[int, int]:
        """TCP joins messages, so it is bytes that count."""
        total = workloads.segments(self.output) - since
        return total // size, total


class Bpftrace(Observer):
    """bpftrace on sendto, printing what it can print of each message."""

    most = 200  # of a string, in this bpftrace

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        program = (
            'tracepoint:syscalls:sys_enter_sendto /comm == "load"/ '
            '{ printf("%d %s\\n", pid, str(args->buff, args->len)) }'
        )
        return [(["bpftrace", "-o", str(self.output), "-e", program], {"BPFTRACE_STRLEN": str(self.most)})]


class Strace(Observer):
    """strace of the program itself, stopping it at sendto only."""

    @property
    def wrap(self) -> Sequence[str]:
        return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=sendto", "-e", "signal=none",
                "-s", "65535", "-o", str(self.output)]  # fmt: skip

    def start(self) -> None:
        self.output.touch()

    def settle(self) -> None:
        pass

    def position(self) -> int:
        return 0  # each run writes it anew

    def stop(self) -> None:
        pass


class Peer(Observer):
    """Any other, by its command: a shell command that watches {path} and prints what it sees."""

    def __init__(self, command: str) -> None:
        super().__init__("peer")
        self.command = command

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        command = self.command.replace("{path}", shlex.quote(f"{SEEN}*"))
        return [(["sh", "-c", f"exec >{self.output}; {command}"], {})]


def present(peer: str) -> tuple[list[Observer], list[str]]:
    """The observers that can be had here, and those that are missing."""
    ours: list[Observer] = [Ours("fentry"), Ours("kprobe")]
    others = {"tcpdump": Tcpdump, "bpftrace": Bpftrace, "strace": Strace}
    found = [kind(name) for name, kind in others.items() if shutil.which(name)]
    if peer:
        found.append(Peer(peer))
    return ours + found, [name for name in others if not shutil.which(name)]


def _cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process's threads and its children's."""
    nanoseconds = 0
    with contextlib.suppress(OSError, ValueError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
            children = (thread / "children").read_text().split()
            nanoseconds += round(sum(_cpu_of_tree(int(child)) for child in children) * 1e9)
    return nanoseconds / 1e9
