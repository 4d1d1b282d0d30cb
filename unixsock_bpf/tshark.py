"""Calling tshark with the dissector of this very package."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from unixsock_bpf.install import InstallError, dissector_source


class TsharkError(Exception):
    """tshark is missing, or refused: one sentence."""


def dissector_arguments() -> list[str]:
    """What makes tshark load the dissector; harmless where it is installed, too.  Raises TsharkError."""
    try:
        source = dissector_source()
        source.open("rb").close()
    except InstallError as error:
        raise TsharkError(str(error)) from None
    except OSError as error:
        why = (error.strerror or "").lower()
        raise TsharkError(f"the dissector {error.filename} cannot be read: {why}") from None
    return ["-X", f"lua_script:{source}"]


def complaints(lines: Iterable[str]) -> list[str]:
    """What tshark says on stderr, without what it says to root each time."""
    stripped = [line.strip() for line in lines]
    return [line for line in stripped if line and not line.startswith("Running as user")]


def frame_numbers(path: str, display_filter: str) -> set[int]:
    """The frames of a file that a display filter takes.  Raises TsharkError."""
    if shutil.which("tshark") is None:
        raise TsharkError("a display filter needs tshark, which was not found: install tshark")
    command = ["tshark", "-n", *dissector_arguments(), "-r", path, "-Y", display_filter]
    done = subprocess.run(
        [*command, "-T", "fields", "-e", "frame.number"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = complaints(done.stderr.splitlines())
        raise TsharkError(" ".join(said) or f"tshark failed with status {done.returncode}")
    return {int(line) for line in done.stdout.split()}
