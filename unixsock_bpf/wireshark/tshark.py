"""Run tshark with this package's dissector, and without root's rights.

Wireshark 4.4 and later load no personal Lua for root, and with good reason: root would run Lua that
another user can write, and every dissector on untrusted data.  So for root, tshark runs as nobody:
confined.py.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Union

from unixsock_bpf.errors import UnixsockError
from unixsock_bpf.linux import interpreter
from unixsock_bpf.wireshark.folders import FoldersError, dissector_source

_Stream = Union[int, IO[bytes], None]


class TsharkError(UnixsockError):
    """tshark is missing, or refused; the text is one sentence."""


def available() -> None:
    """Check that tshark and the dissector are there.  Raises TsharkError."""
    if shutil.which("tshark") is None:
        raise TsharkError("tshark was not found: install tshark")
    _dissector()


def _dissector() -> Path:
    try:
        source = dissector_source()
        source.open("rb").close()
    except FoldersError as error:
        raise TsharkError(str(error)) from None
    except OSError as error:
        why = (error.strerror or "").lower()
        raise TsharkError(f"the dissector {error.filename} cannot be read: {why}") from None
    return source


def start(
    arguments: Iterable[str], stdin: _Stream, stderr: _Stream = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start tshark without name resolution, with a pipe for its output.  Raises TsharkError.

    What it is to read has to be open already, as its stdin (``-r -``): root's runs as nobody.
    """
    available()
    return subprocess.Popen(
        _command(_dissector(), arguments),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env=_environment(),
        start_new_session=True,  # a terminal's Ctrl-C is for the program, which may want the rest
    )


def _command(source: Path, arguments: Iterable[str]) -> list[str]:
    if os.geteuid() != 0:
        return ["tshark", "-n", "-X", f"lua_script:{source}", *arguments]
    program = shutil.which("tshark") or "tshark"
    return interpreter.command("unixsock_bpf.wireshark.confined", str(source), program, *arguments)


def _environment() -> dict[str, str]:
    """Return tshark's environment: user nobody has no home, and reads nothing in root's."""
    if os.geteuid() != 0:
        return dict(os.environ)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return kept | {"HOME": "/nonexistent"}


def leaves_out_personal_lua() -> bool:
    """Return whether Wireshark, run by this user, loads only the system's Lua plugins."""
    if os.geteuid() != 0:
        return False
    try:
        stdout = subprocess.run(["tshark", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    version = re.search(r"(\d+)\.(\d+)", stdout)
    return version is not None and tuple(map(int, version.groups())) >= (4, 4)


def complaints(lines: Iterable[str]) -> list[str]:
    """Return tshark's stderr, without what it prints for root each time."""
    stripped = [line.strip() for line in lines]
    return [line for line in stripped if line and not line.startswith("Running as user")]


#: Bytes of stderr that are kept.
_MOST_STDERR = 1 << 16


class Lines:
    """tshark's output for a file, line by line while tshark reads on; ``with`` ends tshark."""

    def __init__(self, path: str, arguments: Iterable[str]) -> None:
        """Start tshark.  Raises TsharkError, OSError."""
        with open(path, "rb") as file:
            self._process = start(["-r", "-", *arguments], file)
        self._stderr = b""
        # A pipe and not a file, which root's tshark cannot write.
        self._reader = threading.Thread(target=self._read_stderr, name="tshark's stderr", daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while piece := self._process.stderr.read(1 << 12):
            self._stderr += piece[: _MOST_STDERR - len(self._stderr)]

    def __enter__(self) -> Lines:
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines.  Raises TsharkError where tshark fails, after its last line."""
        assert self._process.stdout is not None
        yield from io.BufferedReader(self._process.stdout, 1 << 16)  # type: ignore[type-var]
        if self._process.wait():
            self._reader.join()
            problems = complaints(self._stderr.decode(errors="replace").splitlines())
            raise TsharkError(" ".join(problems) or f"tshark failed with status {self._process.returncode}")

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def _chosen(display_filter: str | None) -> list[str]:
    return [] if display_filter is None else ["-Y", display_filter]


def frame_numbers(path: str, display_filter: str) -> Iterator[int]:
    """Yield the frames of a file that a display filter matches.  Raises TsharkError, OSError."""
    with Lines(path, ["-Y", display_filter, "-T", "fields", "-e", "frame.number"]) as lines:
        yield from map(int, lines)


#: Columns that are the same in all versions: the frame's number, and two of the packet list.
_COLUMNS = 'gui.column.format:"No.","%m","Protocol","%p","Info","%i"'


@contextmanager
def frame_infos(path: str, display_filter: str | None) -> Iterator[Iterator[tuple[int, str]]]:
    """Yield each frame's number and its columns in the packet list.  Raises TsharkError, OSError."""

    def parsed(lines: Lines) -> Iterator[tuple[int, str]]:
        for line in lines:
            number, _, rest = line.decode(errors="replace").strip().partition("\t")
            if number.isdigit():
                yield int(number), rest.partition("\t")[2].strip()

    with Lines(path, ["-o", _COLUMNS, "-T", "tabs", *_chosen(display_filter)]) as lines:
        yield parsed(lines)


@contextmanager
def frame_values(
    path: str, display_filter: str | None, names: Iterable[str]
) -> Iterator[Iterator[tuple[int, str, str, list[str]]]]:
    """Give each frame's number, protocol, packet list text, and the first value of fields; empty for none.

    Fields that this tshark does not have are empty, too.  Raises TsharkError, OSError.
    """
    # Columns, because they may be of fields that do not exist, which -e refuses.
    names = list(names)
    columns = "".join(f',"{name}","%Cus:{name}:1:R"' for name in names)
    arguments = ["-o", _COLUMNS + columns, "-T", "tabs", *_chosen(display_filter)]

    def parsed(lines: Lines) -> Iterator[tuple[int, str, str, list[str]]]:
        for line in lines:
            number, *values = line.decode(errors="replace").rstrip("\n").split("\t")
            if number.strip().isdigit() and len(values) >= 2 + len(names):
                # The packet list's text may hold tabs; the fields are the last values.
                end = len(values) - len(names)
                fields = [value.strip() for value in values[end:]]
                yield int(number), values[0].strip(), "\t".join(values[1:end]).strip(), fields

    with Lines(path, arguments) as lines:
        yield parsed(lines)
