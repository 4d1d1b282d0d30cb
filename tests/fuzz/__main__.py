"""Fuzz each target in turn, from the corpus in the tree: ``python -m fuzz [--seconds N] [TARGET...]``.

What is new goes to .cache/fuzz/TARGET; a finding stops that target and is kept beside it.  Exit
status 1 if there are findings.  Add a finding's file to tests/fuzz/corpus/TARGET with its mend.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
CACHE = Path(__file__).resolve().parents[2] / ".cache/fuzz"

#: Seconds that one input of at most so many bytes may take, and MiB that all may.
LIMITS = ["-timeout=10", "-max_len=65536", "-rss_limit_mb=2048"]


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own; return its exit status."""
    found, corpus = CACHE / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz", "--one", name]
    print(f"== {name} for {seconds} s", flush=True)
    limits = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={found}-", "-print_final_stats=1"]
    return subprocess.run([*command, *limits, str(found), str(corpus)], check=False).returncode


def one(name: str, arguments: list[str]) -> None:
    """Fuzz one target here, with libFuzzer's arguments."""
    import atheris

    with atheris.instrument_imports(include=["unixsock_bpf"]):
        from fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Run what the command line names."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
        return 0
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}")
    chosen = parser.parse_args()
    chosen.targets = chosen.targets or list(TARGETS)
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    seconds = max(1, chosen.seconds // len(chosen.targets))
    failed = [name for name in chosen.targets if fuzz(name, seconds)]
    print(f"== findings: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
