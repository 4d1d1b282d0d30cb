"""make demo: live packets from real programs, here if the kernel permits it, else in a guest."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[1]
CAPTURE = CHECKOUT / "demo.pcapng"
EXTCAP = CHECKOUT / "extcap" / "unixsock"

sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT)]

from unixsock_bpf.formats import pcapng  # noqa: E402

GUEST_FOLDER = Path("/dev/shm/unixsock-demo")

#: What the guest runs.  Its files are slow to read for the first time, so that is begun at once.
_IN_GUEST = """\
(tshark -v; /usr/bin/python3 -c "import bcc") >/dev/null 2>&1 &
exec /usr/bin/python3 demo/demo.py --in-guest
"""

#: Seconds after which a demo is given up that has shown no packet, and which one may take in all.
START = 400
LONGEST = 120

_HEAD = """\

The programs' conversations on Unix sockets, as tshark -i unixsock sees them:
   time  source → destination  protocol  length  info
"""

_TAIL = """
{count} packets are in {capture}. Look at them with
   wireshark {capture}     (once the dissector is installed)
Your own sockets, on a machine whose kernel permits BPF tracing:
   sudo python3 -m unixsock_bpf install --system
   sudo tshark -i unixsock -f 'path /run/dbus/*'     or pick "Unix sockets" in Wireshark
"""


def main() -> int:
    if sys.argv[1:] == ["--in-guest"]:
        # The same filter every time, so that the second demo finds it compiled.
        GUEST_FOLDER.mkdir()
        return show(GUEST_FOLDER)
    refusal = why_not_here()
    if not refusal:
        print("This kernel permits BPF tracing: capturing the demo's own sockets right here.", flush=True)
        with tempfile.TemporaryDirectory(prefix="unixsock-demo-") as folder:
            status = show(Path(folder))
    else:
        print(f"No capture on this kernel, so in a guest. ({refusal})", flush=True)
        status = in_guest()
    if status == 0:
        CAPTURE.chmod(0o600)
        count = sum(1 for _ in pcapng.packets(CAPTURE.read_bytes()))
        print(_TAIL.format(count=count, capture=CAPTURE.name), flush=True)
        status = 0 if count else 1
    return status


def why_not_here() -> str:
    """Why this kernel refuses a capture, in the extcap's own words; empty if one really works."""
    with tempfile.TemporaryDirectory() as folder:
        fifo, path = Path(folder) / "fifo", Path(folder) / "try.sock"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        command = [EXTCAP, "--capture", "--extcap-interface", "unixsock", "--fifo", fifo]
        extcap = subprocess.Popen(
            [*command, "--extcap-capture-filter", f"path {path}"], stderr=subprocess.PIPE, text=True
        )
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        seen, end = b"", time.monotonic() + START
        try:
            while extcap.poll() is None and time.monotonic() < end:
                sender.sendto(b"?", str(path))
                receiver.recv(1)
                if select.select([reader], [], [], 0.2)[0]:
                    seen += os.read(reader, 65536)
                    time.sleep(0.05)
                with contextlib.suppress(pcapng.PcapngError):
                    if any(pcapng.packets(seen)):
                        return ""
        finally:
            if extcap.poll() is None:
                extcap.terminate()
            stderr = extcap.communicate()[1].strip()
            os.close(reader)
            receiver.close()
            sender.close()
        return stderr or "a capture was started, but saw nothing"


def in_guest() -> int:
    """The demo on a stock Debian kernel.  The exit status."""
    from vm import guest, kernels
    from vm.__main__ import show as show_output
    from vm.debian import SetupError

    try:
        kernel = kernels.fetched("bookworm") or kernels.fetch("bookworm")
        with guest.boot(kernel, _IN_GUEST) as running:
            show_output(running, START + LONGEST)
            return running.wait(1)
    except SetupError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1


def show(folder: Path) -> int:
    """Capture the demo's traffic, whose sockets lie in ``folder``, printing packets.  The exit status."""
    CAPTURE.unlink(missing_ok=True)
    home, sockets, capture = folder / "home", folder / "s", folder / "demo.pcapng"
    sockets.mkdir(mode=0o755)
    with installed(home):
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "WIRESHARK_CONFIG_DIR"):
            environment.pop(name, None)
        print("Starting tshark; under emulation its first packet takes some seconds.", flush=True)
        status = captured(sockets, capture, environment)
    if capture.exists():
        shutil.copyfile(capture, CAPTURE)
        CAPTURE.chmod(0o600)
    return status


def captured(sockets: Path, capture: Path, environment: dict[str, str]) -> int:
    """Run tshark and, once it captures, the traffic.  The exit status."""
    capture_filter = f"path {sockets}/*"
    # -l: a line as soon as there is a packet; -P: print although the packets are also written.
    command = ["tshark", "-i", "unixsock", "-f", capture_filter, "-l", "-P", "-w", str(capture)]
    complaints = capture.with_suffix(".stderr")
    with complaints.open("wb") as stderr:
        tshark = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
        )
    assert tshark.stdout
    printed = Lines(tshark.stdout)
    try:
        if not knock(sockets / "demo.sock", capture, tshark):
            print(f"tshark captures nothing. Its output: {complaints.read_text().strip()}", file=sys.stderr)
            return 1
        print(_HEAD, flush=True)
        traffic = subprocess.Popen([sys.executable, str(CHECKOUT / "demo/traffic.py"), str(sockets)])
        end = time.monotonic() + LONGEST
        quiet = 0.0
        while time.monotonic() < end and quiet < 1.5:
            printed.forward(0.2)
            busy = traffic.poll() is None or printed.count < packets(capture) or tshark.poll() is not None
            quiet = 0.0 if busy else quiet + 0.2
        if traffic.poll() is None:
            traffic.kill()
        return traffic.wait()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            tshark.send_signal(signal.SIGINT)
            tshark.wait(15)
        if tshark.poll() is None:
            tshark.kill()
            tshark.wait()
        printed.forward(0)


def knock(path: Path, capture: Path, tshark: subprocess.Popen[bytes]) -> bool:
    """Send datagrams to ``path`` until one is in the capture file: the probe is attached."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(str(path))
        end = time.monotonic() + START
        while tshark.poll() is None and time.monotonic() < end:
            sender.sendto(b"Is anybody listening?", str(path))
            receiver.recv(100)
            time.sleep(0.5)
            if packets(capture):
                return True
    return False


def packets(capture: Path) -> int:
    """How many whole packets the growing file ``capture`` holds."""
    count = 0
    with contextlib.suppress(OSError, pcapng.PcapngError):
        for _ in pcapng.packets(capture.read_bytes()):
            count += 1
    return count


class Lines:
    """Passes a program's output on as it comes, and counts its lines."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.count = 0
        os.set_blocking(stream.fileno(), False)

    def forward(self, seconds: float) -> None:
        """Print what there is; wait at most so long for it."""
        if select.select([self._stream], [], [], seconds)[0]:
            text = self._stream.read() or b""
            self.count += text.count(b"\n")
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
            if not text:
                time.sleep(seconds)


@contextlib.contextmanager
def installed(home: Path) -> Iterator[None]:
    """Links to the extcap and the dissector in the personal folders under ``home``.

    As root, Wireshark 4.4 and later runs Lua only from its global folder, so for the
    time of the demo there is a link in there too, unless the dissector is installed.
    """
    dissector = CHECKOUT / "dissector" / "unixsock.lua"
    for place in (".config/wireshark/extcap", ".local/lib/wireshark/extcap"):
        link(EXTCAP, home / place)
    for place in (".config/wireshark/plugins", ".local/lib/wireshark/plugins"):
        link(dissector, home / place)
    ours = global_folder() / dissector.name if os.geteuid() == 0 and tshark_version() >= (4, 4) else None
    if ours is None or ours.exists():
        yield
        return
    link(dissector, ours.parent)
    try:
        yield
    finally:
        ours.unlink()


def tshark_version() -> tuple[int, ...]:
    """As dpkg knows it: starting tshark only to ask takes seconds under emulation."""
    query = ["dpkg-query", "-W", "-f", "${Version}", "tshark"]
    output = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return tuple(map(int, re.findall(r"\d+", output)[:2]))


def global_folder() -> Path:
    """Wireshark's global folder for Lua plugins."""
    output = subprocess.run(["tshark", "-G", "folders"], capture_output=True, text=True, check=False).stdout
    folder = re.search(r"^Global Lua Plugins:\s*(\S+)", output, re.MULTILINE)
    if not folder:
        sys.exit("tshark -G folders names no global folder for Lua plugins")
    return Path(folder[1])


def link(target: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / target.name).symlink_to(target)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
