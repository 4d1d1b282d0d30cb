"""The sockets of other hosts, for the selector in Wireshark's dialog and the toolbar's list."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from unixsock_bpf.errors import ProbeError
from unixsock_bpf.linux.listed_sockets import as_glob
from unixsock_bpf.remote.way import Way, explain, start
from unixsock_bpf.timeouts import REMOTE_ANSWER_TIMEOUT_S

#: Names that a selector shows at most.
_MOST = 5000


def choices(ways: Sequence[Way]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return a glob and a text for each bound name on any of the hosts, and why some hosts list none.

    Raises ProbeError if no host lists any.
    """
    running = [start(way, ("sockets", "--json"), subprocess.DEVNULL, subprocess.PIPE) for way in ways]
    problems: list[str] = []
    found: dict[str, tuple[set[str], set[str]]] = {}
    try:
        for way, process in zip(ways, running):
            try:
                answer = _answer(way, process)
            except ProbeError as error:
                problems.append(str(error))
                continue
            for one in answer:
                name, kind = str(one.get("name") or ""), str(one.get("type"))
                if name and len(found) < _MOST:
                    kinds, processes = found.setdefault(name, (set(), set()))
                    kinds.add(kind)
                    processes |= {f"{each.get('comm')}[{each.get('pid')}]" for each in one["processes"]}
    except (KeyError, TypeError, AttributeError):
        raise ProbeError(f"The list of sockets of {way.name} cannot be read.") from None
    finally:
        for process in running:
            process.kill()
            process.wait()
    if len(problems) == len(ways):
        raise ProbeError("\n".join(problems))
    listed = [(as_glob(name.encode(errors="replace")), _text(name, *found[name])) for name in sorted(found)]
    return listed, problems


def _text(name: str, kinds: set[str], processes: set[str]) -> str:
    shown = ", ".join(sorted(processes)[:4]) + (", ..." if len(processes) > 4 else "")
    return f"{name}  ({'/'.join(sorted(kinds))})  {shown}".rstrip()


def _answer(way: Way, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    try:
        out, err = process.communicate(timeout=REMOTE_ANSWER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ProbeError(
            f"{way.name} did not list its sockets within {REMOTE_ANSWER_TIMEOUT_S:.0f} s."
        ) from None
    if process.returncode:
        raise ProbeError(explain(way, err.decode(errors="replace").splitlines(), process.returncode))
    try:
        listed = json.loads(out)
    except ValueError:
        raise ProbeError(f"The list of sockets of {way.name} cannot be read.") from None
    return listed if isinstance(listed, list) else []
