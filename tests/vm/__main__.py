"""python -m vm [--suite SUITE] [--own-root] [--] COMMAND…: run COMMAND in a guest, showing its output."""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from vm import guest, kernels, rootfs
from vm.debian import SetupError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="vm", description="Run a command in a guest with a stock Debian kernel."
    )
    parser.add_argument(
        "--suite", default="bookworm", choices=kernels.SUITES, help="kernel and boot (default: %(default)s)"
    )
    parser.add_argument("--own-root", action="store_true", help="with that release's user land too")
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="give up after this (default: %(default)s)"
    )
    parser.add_argument("command", nargs="*", help="one word is a shell command; none: only fetch the kernel")
    options = parser.parse_args()
    try:
        kernel = kernels.fetch(options.suite)
        root = rootfs.build_for(kernel) if options.own_root or kernel.suite.foreign else None
        words = options.command
        if not words:
            return 0
        command = words[0] if len(words) == 1 else shlex.join(words)
        with guest.boot(kernel, command, root=root, one_thread=True) as running:
            show(running, options.timeout)
            return running.wait(1)
    except SetupError as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def show(running: guest.Guest, seconds: float) -> None:
    """Copy the command's output to ours while it runs, for at most so many seconds."""
    end = time.monotonic() + seconds
    while running.running() and not running.output.exists() and time.monotonic() < end:
        time.sleep(0.1)
    if not running.output.exists():
        return
    with running.output.open("rb") as output:
        while True:
            going = running.running() and time.monotonic() < end
            part = output.read()
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            if not going and not part:
                return
            if not part:
                time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
