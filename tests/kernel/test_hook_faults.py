"""Hooks that cannot be attached, or see nothing: named in one sentence, and never a wrong zero."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHIM = Path(__file__).parent / "hooks_shim.py"


def unixsock(what: str, functions: str, *command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SHIM), what, functions, *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_hooks_that_are_not_needed_are_a_line_each() -> None:
    functions = ("unix_bind", "unix_release_sock", "unix_stream_recvmsg", "cgroup_mkdir")
    done = unixsock("missing", ",".join(functions), "check")
    lines = done.stdout.splitlines()
    for function in functions:
        (line,) = [line for line in lines if line.startswith("note") and f"hook: {function} " in line]
        assert "Unknown without it: " in line
    for way in ("stream, write", "stream, splice", "dgram, write", "seqpacket, splice"):
        assert f"ok      self-test: {way}: captured" in lines


@pytest.mark.parametrize("what", ["missing", "blind"])
def test_a_message_hook_that_is_not_there_or_sees_nothing_is_named(what: str) -> None:
    done = unixsock(what, "skb_queue_tail", "dump", "-a", "duration:1")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if "skb_queue_tail" in line]
    assert "cannot be hooked" in sentence if what == "missing" else "that the probe itself sent" in sentence
