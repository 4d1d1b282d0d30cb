"""python -m benchmarks [--short] [--counted] [--peer COMMAND]: measure, and write to docs/performance.md.

``--counted``: only what is counted in instructions, not what is timed.
``--short`` only shows that the bench works: few messages, two peers, and leaves the page as it is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import shutil
import sys
from typing import Any

from vm import guest, kernels
from vm.__main__ import show
from vm.debian import CHECKOUT, SetupError, say

from benchmarks import counted, report, startup

#: The last run's numbers.
NUMBERS = CHECKOUT / ".cache" / "bench.json"

#: Seconds that the guest may take.
LONGEST = 3600


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--suite", default="bookworm", choices=kernels.SUITES, help="whose kernel")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--peer", default="", help="a shell command that prints what it sees of {path}")
    parser.add_argument("--minutes", type=float, default=60, help="begin no round after so many")
    parser.add_argument("--only", default="", help="names of observers, separated by commas")
    parser.add_argument("--counted", action="store_true")
    options = parser.parse_args()
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    try:
        if options.counted or not options.short:
            suites = (options.suite,) if options.short else counted.SUITES
            found = counted.measure(suites, options.peer, options.short, options.only)
            print(counted.part(found, options.peer, today))
            if not options.short and not options.only:
                counted.write(found, options.peer, today)
            if options.counted:
                return 0
        kernel = kernels.fetch(options.suite)
        arguments = [
            "--rounds",
            str(options.rounds),
            "--minutes",
            str(options.minutes),
            "--peer",
            options.peer,
            "--only",
            options.only,
        ]
        command = shlex.join(["/usr/bin/python3", "-m", "benchmarks.measure", "RESULT", *arguments])
        command = command.replace("RESULT", '"$RESULTS"/bench.json') + (" --short" if options.short else "")
        with guest.boot(kernel, f"export PYTHONPATH=tests\n{command}") as running:
            show(running, LONGEST)
            try:
                status = running.wait(1)
            finally:
                shutil.copy(running.results / "bench.json", NUMBERS)
    except (SetupError, FileNotFoundError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    if status:
        return status
    say("Start-up here, natively")
    native = startup.until_loaded(2 if options.short else 9)
    made = report.parts(
        json.loads(NUMBERS.read_text()),
        native,
        None if options.short else _dissector(),
        options.peer,
        today,
    )
    print("\n".join(made.values()))
    if not options.short:
        report.write(made)
    return 0


def _dissector() -> dict[str, Any]:
    say("tshark with and without the dissector, here")
    from benchmarks import dissector

    found: dict[str, Any] = dissector.measure()
    return found


if __name__ == "__main__":
    sys.exit(main())
