"""Booting a guest with virtme-ng and running one command in it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vm.debian import CACHE, CHECKOUT, SetupError, say
from vm.kernels import Kernel

#: Seconds that a boot under KVM may take; where KVM works it takes two.
_KVM_PATIENCE = 15

_MEMORY = "3G"

#: Options of QEMU: see ``boot``.
_ONE_THREAD = "-accel tcg,thread=single"
_COUNTED = "-icount shift=0,sleep=off"

#: Sockets and fifos can't be made on 9p, so everything temporary goes on a tmpfs.
_SCRIPT = """\
mount -t tmpfs tmpfs /dev/shm 2>/dev/null
mkdir -p /dev/shm/home /dev/shm/tmp
export HOME=/dev/shm/home TMPDIR=/dev/shm/tmp LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
export PATH={path} RESULTS={results}
{env}ip link set lo up 2>/dev/null
# What captures compile outlives the guest.
mkdir /dev/shm/cache && mount --bind /var/cache /dev/shm/cache && mount -t tmpfs tmpfs /var/cache
for kept in /dev/shm/cache/*; do ln -s $kept /var/cache/; done
rm -f /var/cache/unixsock && mkdir /var/cache/unixsock && mount --bind {programs} /var/cache/unixsock
# Mapped from 9p, large libraries come page by page, each a round trip; a copy is read by the megabyte.
mkdir /dev/shm/lib
copied() {{
    for library; do
        [ -f "$library" ] && [ ! -L "$library" ] || continue
        copy=/dev/shm/lib/${{library##*/}}
        cp "$library" $copy && mount --bind $copy "$library"
    done
}}
copied /usr/lib/*/libwireshark.so.*
copied /usr/lib/*/libLLVM* /usr/lib/llvm-*/lib/libclang-cpp.so* &
cd {checkout} || exit 1
touch {results}/booted
sh {results}/command >{results}/output 2>&1 </dev/null
# Whoever waits for it must not find it empty.
echo $? >{results}/status.new && mv {results}/status.new {results}/status
sync
"""


class Guest:
    """A command that runs, or has run, in a guest.  ``results`` is a folder that both sides see."""

    def __init__(self, kernel: Kernel, results: Path, process: subprocess.Popen[bytes]) -> None:
        self.kernel = kernel
        self.results = results
        self._process = process

    @property
    def output(self) -> Path:
        """The command's stdout and stderr, growing while it runs."""
        return self.results / "output"

    def booted(self) -> bool:
        return (self.results / "booted").exists()

    def running(self) -> bool:
        return self._process.poll() is None and not (self.results / "status").exists()

    def wait(self, seconds: float) -> int:
        """The command's exit status.

        Raises SetupError if the guest did not boot, crashed or took longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > end:
                raise SetupError(f"the guest's command was not done within {seconds:.0f} s")
            time.sleep(0.1)
        try:
            return int((self.results / "status").read_text())
        except (FileNotFoundError, ValueError):
            state = "crashed before its command was done" if self.booted() else "did not boot"
            raise SetupError(f"the guest {state}; its console said: {self.console()[-1500:]}") from None

    def console(self) -> str:
        """What virtme-ng and the guest's kernel printed."""
        return (self.results / "console").read_text(errors="replace")

    def stop(self) -> None:
        """Turn the guest off, whatever it does."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        except ProcessLookupError:
            pass


@contextmanager
def boot(
    kernel: Kernel,
    command: str,
    *,
    root: Path | None = None,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    one_thread: bool = False,
    counted: bool = False,
) -> Iterator[Guest]:
    """Run the shell ``command`` as root in a guest, in the checkout, with ``env`` besides.

    ``files`` (names and texts) are put into ``results``, which the command knows as $RESULTS.
    ``one_thread``: emulated processors take turns in one thread.  Else, where there are more of them than
    real ones, those that wait for each other keep them busy, and all becomes many times slower.  And QEMU
    7.2 may go on with an old translation of code that another processor has changed: a processor that came
    to a function just when a hook was taken out then stays at its first instruction for ever.
    ``counted``: one emulated processor, whose clock counts instructions: a nanosecond is one of them,
    whatever else this machine does, and nothing waits while the processor is idle.

    The guest sees this machine's own files, or those in ``root``, read-only; the checkout is shared
    read-write.  It is turned off when the block ends.  Raises SetupError if it can't be started.
    """
    say(f"Booting a guest with kernel {kernel.release}")
    kvm = not counted and _use_kvm(kernel)
    if counted:
        say("  with a clock that counts instructions, which only emulated processors have")
    elif not kvm:
        say("  emulated, as KVM is not usable here; that is slower")
    with _start(kernel, command, root, env or {}, files or {}, kvm, one_thread, counted) as guest:
        yield guest


@contextmanager
def _start(
    kernel: Kernel,
    command: str,
    root: Path | None,
    env: Mapping[str, str],
    files: Mapping[str, str],
    kvm: bool,
    one_thread: bool = False,
    counted: bool = False,
) -> Iterator[Guest]:
    (CACHE / "guests").mkdir(parents=True, exist_ok=True)
    results = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE / "guests"))
    programs = CACHE / "programs"
    programs.mkdir(mode=0o700, exist_ok=True)
    path = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    path += [str(CACHE / "tools/usr/sbin"), str(CACHE / "tools/usr/bin")]
    script = _SCRIPT.format(
        path=":".join(map(shlex.quote, path)),
        checkout=shlex.quote(str(CHECKOUT)),
        results=shlex.quote(str(results)),
        programs=shlex.quote(str(programs)),
        env="".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items()),
    )
    (results / "script").write_text(script)
    (results / "command").write_text(command + "\n")
    for name, text in files.items():
        (results / name).write_text(text)
    words = [
        "vng",
        "--run",
        str(kernel.image),
        "--cpus",
        "1" if counted else kernel.suite.cpus,
        "--memory",
        _MEMORY,
    ]
    words += ["--force-9p", "--user", "root", "--rwdir", f"{CHECKOUT}={CHECKOUT}"]
    words += [f"--append={word}" for word in kernel.suite.parameters.split()]
    qemu = []
    if kernel.suite.foreign:
        words += ["--arch", kernel.suite.arch]
        # Newer processors take twice as long to emulate; this one has no pages of 16 KiB.
        qemu += ["-cpu cortex-a76" if kernel.suite.flavour else "-cpu cortex-a72"]
    if not kvm:
        words += ["--disable-kvm"]
        qemu += [_COUNTED] if counted else [_ONE_THREAD] if one_thread else []
    if not kvm and not kernel.suite.foreign and "clocksource=" not in kernel.suite.parameters:
        # Emulated processors' counters are one and the same; a kernel that mistrusts them asks a device
        # for the time, each time, which costs more than most of what is measured here.
        words += ["--append", "tsc=reliable"]
    words += [f"--qemu-opts={' '.join(qemu)}"] if qemu else []
    if root:
        (root / CHECKOUT.relative_to("/")).mkdir(parents=True, exist_ok=True)
        words += ["--root", str(root)]
    words += ["-v", "--", f"sh {shlex.quote(str(results / 'script'))}"]
    tools = {"PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    with (results / "console").open("wb") as console:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={"TERM": "linux", "HOME": str(CACHE / "guests"), **os.environ, **tools},
                start_new_session=True,
            )
        except FileNotFoundError as missing:
            raise SetupError("virtme-ng is not installed: run tests/setup") from missing
    guest = Guest(kernel, results, process)
    # The default would leave guests behind.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield guest
    finally:
        guest.stop()
        shutil.rmtree(results, ignore_errors=True)


def _use_kvm(kernel: Kernel) -> bool:
    """Whether a guest really boots under KVM here.  Tried once; the answer is kept in the cache.

    /dev/kvm alone proves nothing: nested in some hosts, stock kernels hang after the BIOS.
    """
    answer = CACHE / "guests" / "kvm"
    if kernel.suite.foreign or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    # The answer is for this machine as it runs now: a checkout may be carried elsewhere.
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if answer.exists():
        known, _, asked = answer.read_text().partition(" ")
        if asked == boot_id:
            return known == "yes"
    say("Trying whether KVM works here (once)")
    with _start(kernel, ":", None, {}, {}, True) as guest:
        end = time.monotonic() + _KVM_PATIENCE
        while guest.running() and time.monotonic() < end:
            time.sleep(0.2)
        works = guest.booted()
    answer.write_text(f"{'yes' if works else 'no'} {boot_id}")
    return works
